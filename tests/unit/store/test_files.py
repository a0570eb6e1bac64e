"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import AppboxError
from appbox.store import files

ME = (os.geteuid(), os.getegid())


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    with files.directory(str(tmp_path)) as found:
        yield found


def test_a_file_has_exactly_the_mode_that_was_asked_for(tmp_path: Path, fd: int) -> None:
    before = os.umask(0o777)
    try:
        files.create("x", b"abc", mode=0o4755, dir_fd=fd, owner=ME)
    finally:
        os.umask(before)
    assert (tmp_path / "x").read_bytes() == b"abc"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o4755
    with pytest.raises(FileExistsError):
        files.create("x", b"", mode=0o600, dir_fd=fd, owner=ME)


def test_replacing_leaves_the_old_file_or_the_new_one(tmp_path: Path, fd: int) -> None:
    (tmp_path / f".x{files.TEMPORARY}").write_text("an interrupted run")
    for data in (b"1", b"22"):
        files.replace("x", data, mode=0o644, dir_fd=fd, owner=ME)
        assert (tmp_path / "x").read_bytes() == data
    (tmp_path / "dir/inner").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        files.replace("dir", b"", mode=0o644, dir_fd=fd, owner=ME)
    assert sorted(os.listdir(tmp_path)) == ["dir", "x"]


def test_replacing_never_writes_through_a_link(tmp_path: Path, fd: int) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "x").symlink_to("target")
    (tmp_path / f".x{files.TEMPORARY}").symlink_to("target")
    files.replace("x", b"new", mode=0o644, dir_fd=fd, owner=ME)
    assert not (tmp_path / "x").is_symlink()
    assert (tmp_path / "target").read_text() == "mine"


def test_links_are_switched(tmp_path: Path, fd: int) -> None:
    (tmp_path / f".x{files.TEMPORARY}").write_text("an interrupted run")
    for target in ("a", "b"):
        files.link("x", target, dir_fd=fd)
        assert files.link_target("x", fd) == target
    (tmp_path / "dir").mkdir()
    with pytest.raises(IsADirectoryError):
        files.link("dir", "a", dir_fd=fd)
    assert sorted(os.listdir(tmp_path)) == ["dir", "x"]


def test_what_is_no_link_has_no_target(tmp_path: Path, fd: int) -> None:
    (tmp_path / "file").write_text("")
    assert [files.link_target(name, fd) for name in ("file", "none", "file/x")] == [None] * 3
    assert [files.exists(name, fd) for name in ("file", "none", "file/x")] == [True, False, False]
    (tmp_path / "dangling").symlink_to("none")
    assert files.exists("dangling", fd)


def test_removing_says_whether_there_was_something(tmp_path: Path, fd: int) -> None:
    (tmp_path / "x").symlink_to("none")
    assert files.remove("x", dir_fd=fd)
    assert not files.remove("x", dir_fd=fd)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path, fd: int) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert files.read("x", 5, fd) == b"12345"
    with pytest.raises(AppboxError, match="x: is larger than 4 bytes"):
        files.read("x", 4, fd)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AppboxError, match="is not a regular file"):
        files.read("pipe", 4, fd)
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(OSError, match="symbolic links"):
        files.read("link", 5, fd)
    assert files.read_if_present("none", 5, fd) is None
    assert files.read_if_present("x/none", 5, fd) is None


def test_a_directory_is_never_opened_through_a_link(tmp_path: Path, fd: int) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    with pytest.raises(NotADirectoryError), files.directory("link", fd):
        pass
