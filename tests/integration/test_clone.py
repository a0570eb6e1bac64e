"""Data cloned on real file systems: everything that `cp -a` keeps is kept, and a copy that was killed goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import AppboxError
from appbox.host import cow
from appbox.store import clone, tree
from appbox.store.walk import measure
from tests.ground.disks import KINDS, described, disk, fill

pytestmark = pytest.mark.root

USUAL = {"ext4": "copy", "xfs": "reflink", "btrfs": "subvolume"}


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with disk(tmp_path_factory.mktemp("clone"), request.param) as mounted:
        yield mounted


@pytest.fixture
def work(place: Path) -> Iterator[Path]:
    path = place / "work"
    path.mkdir()
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)


@contextlib.contextmanager
def opened(*paths: Path) -> Iterator[list[int]]:
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in paths]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def data(work: Path) -> Path:
    with opened(work) as (fd,):
        cow.make_directory(fd, "data", 0o711)
    return work / "data"


def cloned(source: Path, name: str, how: clone.How | None = None) -> Path:
    with opened(source, source.parent) as (fd, parent):
        clone.clone(fd, parent, name, how or clone.can(fd, parent))
    return source.parent / name


@pytest.mark.parametrize("seed", range(4))
def test_a_clone_is_what_cp_makes(work: Path, seed: int) -> None:
    top = data(work)
    fill(top, seed)
    subprocess.run(["cp", "-a", str(top), str(work / "peer")], check=True)
    wanted = described(top)
    assert described(work / "peer") == wanted
    with opened(top, work) as (fd, parent):
        best = clone.can(fd, parent)
        assert best == USUAL[work.parent.name]
    for how in dict.fromkeys((best, "reflink" if best != "copy" else "copy", "copy")):
        copy = cloned(top, how, how)
        assert described(copy) == wanted
        with opened(top, copy) as (first, second):
            ours, theirs = measure(first), measure(second)
        assert ours
        assert theirs
        assert (ours.entries, ours.apparent) == (theirs.entries, theirs.apparent)
        assert theirs.allocated <= ours.allocated + (2 << 20)  # xfs gives files more room than they need
    assert sorted(os.listdir(work)) == sorted(
        {"data", "peer", best, "copy"} | ({"reflink"} if best != "copy" else set())
    )


def test_deep_and_long_names(work: Path) -> None:
    top = data(work)
    fd = os.open(top, os.O_RDONLY)
    for number in range(120):
        os.mkdir("d" * 200, dir_fd=fd)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        if number == 100:
            (top / "first").write_text("linked")
            os.link(top / "first", "second", dst_dir_fd=fd)
            os.close(os.open("deep", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            os.link("deep", "twin", src_dir_fd=fd, dst_dir_fd=fd)
    os.close(fd)
    for how in ("copy", "reflink"):
        copy = cloned(top, how, how)
        with opened(top, copy) as (first, second):
            assert measure(first) == measure(second) or work.parent.name == "btrfs"
            found = measure(second)
        assert found
        assert (found.entries, found.apparent) == (120 + 4, 6)


def test_what_is_cloned_later_does_not_change_what_was(work: Path) -> None:
    top = data(work)
    (top / "file").write_bytes(b"before" * 10_000)
    copy = cloned(top, "copy")
    (top / "file").write_bytes(b"after!" * 10_000)
    assert (copy / "file").read_bytes() == b"before" * 10_000
    with pytest.raises(AppboxError, match="is there already"):
        cloned(top, "copy")


def test_a_subvolume_in_the_data_and_a_mount_in_it_are_cloned(work: Path) -> None:
    top = data(work)
    with opened(top) as (fd,):
        cow.make_directory(fd, "inner", 0o750)
    (top / "inner/file").write_text("inside")
    (top / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(top / "mounted")], check=True)
    try:
        (top / "mounted/file").write_text("elsewhere")
        copy = cloned(top, "copy")
        assert described(copy) == described(top)
    finally:
        subprocess.run(["umount", str(top / "mounted")], check=True)
    assert (copy / "mounted/file").read_text() == "elsewhere"


def test_a_full_disk_is_said_and_nothing_is_left(work: Path) -> None:
    top = data(work)
    room = os.statvfs(work)
    half = room.f_bavail * room.f_frsize * 6 // 10
    with (top / "big").open("wb") as file:
        for _ in range(half >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    with pytest.raises(AppboxError, match=r"there is no room for a copy of the data.*make room"):
        cloned(top, "copy", "copy")
    assert os.listdir(work) == ["data"]
    if work.parent.name != "ext4":
        cloned(top, "copy")


KILLED = """
import os, sys
from appbox.store import clone, tree
tree.KEPT = 1 << 16
source, parent = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
clone.clone(source, parent, "copy", "copy", clone.Making(progress=lambda done, total: None))
"""


def test_a_copy_that_was_killed_goes_on(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at the 20th time that a file gets its times; what changed since is copied again, what has gone is gone."""
    monkeypatch.setattr(tree, "KEPT", 1 << 16)
    top = data(work)
    for number in range(40):
        (top / f"f{number:02}").write_bytes(os.urandom(100_000))
    os.link(top / "f01", top / "twin")
    words = ["strace", "-f", "-o", "/dev/null", "-e", "trace=utimensat", "-e", "inject=utimensat:signal=KILL:when=20"]
    done = subprocess.run([*words, sys.executable, "-c", KILLED, str(top), str(work)], check=False, capture_output=True)
    assert done.returncode != 0
    left = work / ".copy.appbox-tmp"
    kept = {
        path.name: path.stat().st_ino
        for path in left.iterdir()
        if path.stat().st_mtime_ns == (top / path.name).stat().st_mtime_ns
    }
    assert len(kept) >= 18
    first, second, third = sorted(kept)[:3]
    info = (top / first).stat()
    (top / first).write_bytes(os.urandom(100_000))
    os.utime(top / first, ns=(info.st_atime_ns, info.st_mtime_ns))
    (top / second).unlink()
    (top / "new").write_text("new")
    copy = cloned(top, "copy", "copy")
    assert described(copy) == described(top)
    assert (copy / third).stat().st_ino == kept[third]
    assert (copy / first).stat().st_ino != kept[first] or (copy / first).read_bytes() == (top / first).read_bytes()
