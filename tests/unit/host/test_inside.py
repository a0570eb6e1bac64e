"""Looking and removing inside a directory, against the real kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import Refused
from appbox.host.inside import locate, read_inside, remove_tree
from appbox.oci.rootfs import Node


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "root"
    path.mkdir()
    (tmp_path / "secret").write_text("outside")
    fd = os.open(path, os.O_RDONLY)
    yield path, fd
    os.close(fd)


class TestReadInside:
    def test_links_lead_inside(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "etc").mkdir()
        (path / "etc/passwd").write_text("inside")
        (path / "link").symlink_to("/etc/passwd")
        (path / "up").symlink_to("../../../etc/passwd")
        for name in ("/etc/passwd", "etc/passwd", "link", b"up", "../etc/passwd"):
            assert read_inside(fd, name, 6) == b"inside"

    def test_nothing_outside_is_read(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "out").symlink_to("../secret")
        assert read_inside(fd, "out", 100) is None
        assert read_inside(fd, "../secret", 100) is None

    def test_missing(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "f").touch()
        assert read_inside(fd, "no", 1) is None
        assert read_inside(fd, "f/no", 1) is None
        assert read_inside(fd, "f", 1) == b""

    def test_only_regular_files_of_a_bounded_size(self, root: tuple[Path, int]) -> None:
        path, fd = root
        os.mkfifo(path / "fifo")
        (path / "large").write_bytes(bytes(11))
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{fd}/socket")
            for name in ("fifo", "socket", ".", "large"):
                with pytest.raises(Refused):
                    read_inside(fd, name, 10)

    def test_loops_and_magic_links(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "loop").symlink_to("loop")
        with pytest.raises(Refused, match="cannot be resolved"):
            read_inside(fd, "loop", 10)


class TestLocate:
    def test_directories_files_and_links(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "usr/lib").mkdir(parents=True)
        (path / "usr/lib").chmod(0o700)
        (path / "usr/f").touch(0o640)
        (path / "lib").symlink_to("usr/lib")
        (path / "abs").symlink_to("/usr")
        me, group = os.getuid(), os.getgid()
        for name in ("/usr/lib", "lib", "abs/lib", "/../lib/"):
            assert locate(fd, name) == Node("/usr/lib", "directory", me, group, 0o700)
        assert locate(fd, "abs/f") == Node("/usr/f", "file", me, group, 0o640)
        assert locate(fd, "/", base=me) == Node("/", "directory", 0, group - me, 0o755)

    def test_what_is_missing(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "dangling").symlink_to("/run/x")
        (path / "f").touch()
        assert locate(fd, "dangling") == Node("/run/x", "missing")
        assert locate(fd, "dangling/y") == Node("/run/x/y", "missing")
        assert locate(fd, "a/../b") == Node("/b", "missing")
        assert locate(fd, "f/x") is None
        assert locate(fd, "f/..") is None

    def test_names_that_are_no_text(self, root: tuple[Path, int]) -> None:
        path, fd = root
        os.mkdir(os.fsencode(path) + b"/\xff")
        found = locate(fd, "/\udcff")
        assert found is not None
        assert (found.path, found.kind) == ("/\udcff", "directory")

    def test_loops(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "a").symlink_to("b")
        (path / "b").symlink_to("a")
        with pytest.raises(Refused, match="too many symlinks"):
            locate(fd, "a")


class TestRemoveTree:
    def test_everything_goes_and_nothing_else(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "d/e/f").mkdir(parents=True)
        (path / "d/e/f/file").touch()
        (path / "d/out").symlink_to("../..")
        (path / "d/e/secret").symlink_to("../../../secret")
        (path / "keep").touch()
        gone: list[int] = []
        inodes = {entry.stat().st_ino for entry in (path / "d", path / "d/e", path / "d/e/f")}
        remove_tree(fd, "d", gone.append)
        assert os.listdir(path) == ["keep"]
        assert set(gone) == inodes
        assert (path.parent / "secret").read_text() == "outside"

    def test_files_links_and_nothing(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "link").symlink_to("../secret")
        (path / "f").touch()
        for name in ("link", b"f", "missing"):
            remove_tree(fd, name)
        assert os.listdir(path) == []
        assert (path.parent / "secret").exists()

    def test_any_depth_and_width(self, root: tuple[Path, int]) -> None:
        path, fd = root
        (path / "d").mkdir()
        here = os.open(path / "d", os.O_RDONLY)
        for _ in range(600):
            os.mkdir("directory", dir_fd=here)
            os.mkdir("e", dir_fd=here)
            below = os.open("directory", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        before = len(os.listdir("/proc/self/fd"))
        remove_tree(fd, "d")
        assert os.listdir(path) == []
        assert len(os.listdir("/proc/self/fd")) == before
