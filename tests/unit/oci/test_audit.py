"""A tree on disk against its manifest: each way in which it can differ, and what is never touched."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appbox.errors import Refused
from appbox.oci import audit, hashing
from appbox.oci.audit import Audit, Difference
from tests.ground import manifest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a small rootfs with the awkward names that images have."""
    root = tmp_path / "rootfs"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr-local").mkdir()
    (root / "usr/bin/[").write_bytes(b"test")
    (root / "usr/bin/big").write_bytes(bytes(3_000_000))
    (root / "usr/bin/empty").write_bytes(b"")
    (root / "usr/bin/twin").hardlink_to(root / "usr/bin/[")
    (root / "bin").symlink_to("usr/bin")
    (root / "a\nb \\c").write_bytes(b"x")
    os.mkfifo(root / "pipe")
    for number in range(100):
        (root / f"usr-local/{number}").write_bytes(b"%d" % number)
    return root


def run(root: Path, lines: list[bytes]) -> list[Difference]:
    fd = os.open(root, os.O_RDONLY)
    try:
        return Audit(fd, lines).differences()
    finally:
        os.close(fd)


def untimed(found: list[Difference]) -> list[tuple[str, str]]:
    """Return paths and kinds of change, without the times of the directories that had to change."""
    return [(one.path, one.change) for one in found if one.change != "time"]


def test_an_untouched_tree(tree: Path) -> None:
    lines = manifest.lines(tree)
    fd = os.open(tree, os.O_RDONLY)
    checked = Audit(fd, lines)
    assert checked.differences() == []
    assert checked.entries == len(lines) - 1
    os.close(fd)


def rewritten(path: Path, data: bytes) -> None:
    """Write other content, and hide it as well as one can."""
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced(path: Path) -> None:
    (path / "usr/bin/big").unlink()
    os.mkfifo(path / "usr/bin/big")


def swapped(path: Path) -> None:
    (path / "usr-local").rename(path / "elsewhere")
    (path / "usr-local").symlink_to("elsewhere")


CHANGES: list[tuple[Callable[[Path], object], list[tuple[str, str]]]] = [
    (lambda p: rewritten(p / "a\nb \\c", b"y"), [("/a\nb \\c", "content")]),
    (lambda p: rewritten(p / "a\nb \\c", b"xy"), [("/a\nb \\c", "content")]),
    (lambda p: rewritten(p / "usr/bin/big", bytes(2_999_999) + b"\1"), [("/usr/bin/big", "content")]),
    (lambda p: rewritten(p / "usr/bin/empty", b"1"), [("/usr/bin/empty", "content")]),
    (lambda p: rewritten(p / "usr/bin/[", b"tess"), [("/usr/bin/[", "content"), ("/usr/bin/twin", "content")]),
    (lambda p: (p / "usr/bin/empty").unlink(), [("/usr/bin/empty", "removed")]),
    (lambda p: (p / "usr/bin/twin").unlink(), [("/usr/bin/[", "links"), ("/usr/bin/twin", "removed")]),
    (lambda p: (p / "usr/new").write_bytes(b""), [("/usr/new", "added")]),
    (lambda p: (p / "usr/bin-").mkdir(), [("/usr/bin-", "added")]),
    (lambda p: (p / "zz").symlink_to("/etc/shadow"), [("/zz", "added")]),
    (lambda p: (p / "usr/bin/big").chmod(0o4755), [("/usr/bin/big", "mode")]),
    (lambda p: p.chmod(0o700), [("/", "mode")]),
    (lambda p: (p / "pipe").chmod(0o600), [("/pipe", "mode")]),
    (replaced, [("/usr/bin/big", "type")]),
    (
        lambda p: ((p / "bin").unlink(), (p / "bin").symlink_to("usr/sbin")),
        [("/bin", "link")],
    ),
    (
        swapped,
        [
            ("/elsewhere", "added"),
            *sorted((f"/elsewhere/{number}", "added") for number in range(100)),
            ("/usr-local", "type"),
            *sorted((f"/usr-local/{number}", "removed") for number in range(100)),
        ],
    ),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_what_changed_is_found(tree: Path, change: Callable[[Path], object], expected: list[tuple[str, str]]) -> None:
    lines = manifest.lines(tree)
    change(tree)
    assert untimed(run(tree, lines)) == expected


def test_times_count(tree: Path) -> None:
    os.utime(tree / "bin", ns=(5, -1), follow_symlinks=False)
    lines = manifest.lines(tree)
    os.utime(tree / "bin", ns=(5, 1_000_000_007), follow_symlinks=False)
    assert run(tree, lines) == [Difference("/bin", "time", "-1.999999999", "1.000000007")]


def test_a_socket_is_told_and_not_opened(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = manifest.lines(tree)
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        (found,) = [one for one in run(tree, lines) if one.change == "added"]
    assert found.path == "/sock"
    assert found.now.startswith("socket, ")


def test_extended_attributes(tree: Path) -> None:
    try:
        os.setxattr(tree / "usr/bin/big", "user.was", b"1")
    except OSError:
        pytest.skip("needs a file system with extended attributes")
    os.setxattr(tree / "usr", "user.dir", b"1")
    lines = manifest.lines(tree)
    assert run(tree, lines) == []
    os.setxattr(tree / "usr/bin/big", "user.now", b"2")
    os.setxattr(tree / "usr", "user.dir", b"2")
    os.removexattr(tree / "usr/bin/big", "user.was")
    assert run(tree, lines) == [
        Difference("/usr", "xattr", "user.dir=31", "user.dir=32"),
        Difference("/usr/bin/big", "xattr", "", "user.now=32"),
        Difference("/usr/bin/big", "xattr", "user.was=31", ""),
    ]


def test_nothing_but_files_and_directories_is_opened(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = os.open

    def watched(name: bytes, flags: int, *, dir_fd: int) -> int:
        assert flags & os.O_NOFOLLOW
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        assert stat.S_ISREG(status.st_mode)
        opened.append(os.fsdecode(name))
        return real(name, flags, dir_fd=dir_fd)

    lines = manifest.lines(tree)
    fd = real(tree, os.O_RDONLY)
    monkeypatch.setattr(audit.os, "open", watched)
    assert Audit(fd, lines).differences() == []
    os.close(fd)
    assert len(opened) == 105


@pytest.mark.parametrize("damage", [0, 1, 50, -1])
def test_a_damaged_manifest_is_refused_and_leaves_nothing_open(tree: Path, damage: int) -> None:
    lines = manifest.lines(tree)
    lines[damage] = lines[damage][:-2]
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(Refused):
        run(tree, lines)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_tree_that_goes_away_while_it_is_read(tree: Path) -> None:
    lines = manifest.lines(tree)

    def slowly() -> Iterator[bytes]:
        for number, line in enumerate(lines):
            if number == 40:
                for path in (tree / "usr-local").iterdir():
                    path.unlink()
            if number == 5:
                for path in (tree / "usr/bin").iterdir():
                    path.unlink()
                (tree / "usr/bin").rmdir()
            yield line

    fd = os.open(tree, os.O_RDONLY)
    found = Audit(fd, slowly()).differences()
    os.close(fd)
    assert ("/usr/bin/empty", "removed") in untimed(found)


def test_a_file_that_is_swapped_between_look_and_open(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = manifest.lines(tree)
    real = audit._open_file

    def swapping(item: audit.Item) -> int:
        if item.name == b"big":
            (tree / "usr/bin/other").write_bytes(b"secret")
            (tree / "usr/bin/other").rename(tree / "usr/bin/big")
        return real(item)

    monkeypatch.setattr(audit, "_open_file", swapping)
    (found,) = [one for one in run(tree, lines) if one.path == "/usr/bin/big"]
    assert (found.change, found.now) == ("unreadable", "it was replaced while it was looked at")


def test_a_file_that_becomes_a_symlink_is_not_followed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = manifest.lines(tree)
    real = audit._open_file

    def swapping(item: audit.Item) -> int:
        if item.name == b"big":
            (tree / "usr/bin/big").unlink()
            (tree / "usr/bin/big").symlink_to("/etc/passwd")
        return real(item)

    monkeypatch.setattr(audit, "_open_file", swapping)
    (found,) = [one for one in run(tree, lines) if one.path == "/usr/bin/big"]
    assert found.change == "unreadable"


def test_a_tree_deeper_than_any_image(tree: Path) -> None:
    lines = manifest.lines(tree)
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=fd)
        child = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(fd)
    found = run(tree, lines)
    assert 500 < sum(1 for one in found if one.change == "added") < 520
    assert [one.now for one in found if one.change == "unreadable"] == ["it is deeper than any image may be"]


def test_few_files_are_open_at_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2000):
        (tree / f"usr/{number}").write_bytes(b"%d" % number)
    most = 0
    real = hashing.Hashing.add

    def counting(self: hashing.Hashing, file: hashing.File) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))
        real(self, file)

    monkeypatch.setattr(hashing.Hashing, "add", counting)
    assert run(tree, manifest.lines(tree)) == []
    assert most < 700


def test_a_file_that_grows_without_end_is_not_read_for_ever() -> None:
    found = []
    with hashing.Hashing(lambda file, what: found.append((file.path, what))) as hashed:
        hashed.add(hashing.File(os.open("/dev/zero", os.O_RDONLY), b"log", 5, bytes(32)))
    assert found == [(b"log", "more than 5 bytes")]
