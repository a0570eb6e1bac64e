"""What is refused, what fails, and that nothing beside the root is ever touched."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import AppboxError, HostLacks, Refused
from appbox.host import syscalls
from appbox.oci import unpack
from tests.ground.layers import (
    archive,
    base256,
    device,
    directory,
    file,
    gzip_layer,
    header,
    of,
    pax,
    symlink,
)
from tests.ground.rootfs import IDENTITY, Root, mounted, snapshot

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    made.close()


class TestRefusals:
    """Nothing of a refused layer is outside the root, and the error is one that can be told to people."""

    @pytest.mark.parametrize(
        "member",
        [
            file(b"../evil", b"x"),
            file(b"a/../../evil", b"x"),
            file(b""),
            file(b"/"),
            symlink(b".", b"/etc"),
            device(b"d", 0o10000, 1),
            device(b"d", base256(-1, 8), 1),
            pax({b"path": b"a\0b"}) + file(b"f"),
            header(b"f", flag=b"Z"),
            header(b"f", size=base256(-1, 12)),
            header(b"f", size=base256(1 << 70, 12)),
            header(b"f", checksum=1),
            file(b"n" * 50 + b"/.wh.x/y"),
        ],
    )
    def test_hostile_members(self, root: Root, member: bytes) -> None:
        with pytest.raises(Refused) as caught:
            root.unpack(gzip_layer(archive(file(b"first"), member, file(b"last"))))
        assert str(caught.value).startswith("layer sha256:")
        assert "\n" not in str(caught.value)

    def test_a_directory_that_is_not_empty(self, root: Root) -> None:
        (root.path / "there").touch()
        with pytest.raises(AppboxError, match="not empty"):
            root.unpack(of(file(b"f")))

    def test_a_full_disk(self, root: Root, tmp_path: Path) -> None:
        small = tmp_path / "outside" / "small"
        small.mkdir()
        with mounted(small, "tmpfs", "size=1m"):
            fd = os.open(small, os.O_RDONLY)
            with pytest.raises(AppboxError, match="no space left") as caught:
                unpack.unpack([gzip_layer(archive(file(b"f", os.urandom(4 << 20))))], fd, IDENTITY)
            os.close(fd)
        assert type(caught.value) is AppboxError

    def test_a_mount_point_in_the_way(self, root: Root) -> None:
        (root.path / "d").mkdir()
        with mounted(root.path / "d", "tmpfs"):
            with pytest.raises(AppboxError, match="mount point"):
                unpack.remove_tree(root.fd, "d")
            (root.path / "d/survives").touch()
        bound = root.path / "e/bound"
        bound.mkdir(parents=True)
        with mounted(bound, "none", "bind", source=root.place / "outside"):
            with pytest.raises(AppboxError, match="mount point"):
                unpack.remove_tree(root.fd, "e")
            assert (root.place / "outside/file").exists()

    def test_a_file_system_without_the_attribute(self, root: Root, tmp_path: Path) -> None:
        place = tmp_path / "outside" / "ramfs"
        place.mkdir()
        with mounted(place, "ramfs"):
            fd = os.open(place, os.O_RDONLY)
            with pytest.raises(HostLacks, match=r"user\.a"):
                unpack.unpack([of(pax({b"SCHILY.xattr.user.a": b""}), file(b"f"))], fd, IDENTITY)
            os.close(fd)


SWAPPER = """
import os, sys
os.chdir(sys.argv[1])
print("ready", flush=True)
while True:
    for name in ("d", "d/e"):
        try:
            os.rename(name, "away")
            os.symlink(sys.argv[2], name)
            os.unlink(name)
            os.rename("away", name)
        except OSError:
            for again in (lambda: os.unlink(name), lambda: os.rename("away", name)):
                try:
                    again()
                except OSError:
                    pass
"""


def test_a_process_that_swaps_directories_for_symlinks_gains_nothing(root: Root) -> None:
    """Each attempt is done or refused, and whatever it is, nothing beside the root is made or changed."""
    members = [directory(b"d"), directory(b"d/e")]
    for i in range(600):
        members += [
            directory(b"d/e"),
            file(b"d/e/file", b"evil %d" % i),
            symlink(b"d/e/s", b"x"),
            device(b"d/e/n", 1, 3),
        ]
        members += [directory(b"x%d" % i), file(b"x%d/f" % i), file(b"d/f", mode=0o4755), directory(b"d", mode=0o777)]
    layer = of(*members)
    before = snapshot(root.place / "outside", root.path)
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAPPER, root.path, root.place / "outside"], stdout=subprocess.PIPE
    )
    try:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        for _ in range(6):
            with contextlib.suppress(AppboxError):
                unpack.unpack([layer], root.fd, IDENTITY, durable=False)
            assert snapshot(root.place / "outside", root.path) == before
            for name in os.listdir(root.path):
                with contextlib.suppress(AppboxError, OSError):
                    unpack.remove_tree(root.fd, name)
            assert snapshot(root.place / "outside", root.path) == before
            swapper.send_signal(signal.SIGSTOP)
            root.empty()
            swapper.send_signal(signal.SIGCONT)
    finally:
        swapper.kill()
        swapper.communicate()


def test_durable_means_the_file_system_was_synced(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(syscalls, "syncfs", synced.append)
    unpack.unpack([of(file(b"f"))], root.fd, IDENTITY)
    assert synced == [root.fd]


def test_an_old_kernel_is_named(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(syscalls, "openat2", lacking)
    with pytest.raises(HostLacks, match="openat2"):
        unpack.unpack([of(file(b"d/f"))], root.fd, IDENTITY)


TRACED = """
import io, os, sys
from appbox.oci import unpack
from tests.ground.layers import *
layers = [
    of(directory(b"d"), file(b"d/f", b"x"), hardlink(b"h", b"d/f"), symlink(b"s", b"d"), device(b"n", 1, 3),
       file(b"s/g"), pax({b"SCHILY.xattr.user.a": b"b"}), file(b"a"), directory(b"w/w"), file(b"w/w/x")),
    of(file(b"d/.wh..wh..opq"), file(b"d/new"), file(b".wh.w"), file(b"a", bytes(100000)), header(b"p", flag=b"6")),
]
root = os.open(sys.argv[1], os.O_RDONLY)
os.path.exists("/begin")
unpack.unpack(layers, root, unpack.IdMap(100000, 65536))
for name in os.listdir(root):
    unpack.remove_tree(root, name)
os.path.exists("/end")
"""


def test_no_path_based_call_and_no_program(root: Root) -> None:
    """What strace sees between begin and end: every call below the root is relative to a descriptor."""
    log = root.place / "log"
    trace = ["strace", "-f", "-e", "trace=%file,%process,openat2,chdir", "-o", str(log)]
    words = [*trace, sys.executable, "-c", TRACED, str(root.path)]
    subprocess.run(words, check=True, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."})
    _, _, rest = log.read_text().partition('"/begin"')
    lines = rest.partition('"/end"')[0].splitlines()[:-1]
    assert sum("openat2(" in line for line in lines) > 5
    assert sum("openat(" in line for line in lines) > 5
    assert not [line for line in lines if "execve" in line or "chdir" in line or str(root.path) in line]
    # What goes by a path is Python's own looking for modules.
    by_path = [line for line in lines if "AT_FDCWD" in line or '("/' in line]
    assert not [line for line in by_path if "/lib" not in line and "appbox" not in line and str(Path.cwd()) not in line]
    assert not [
        line for line in lines if "openat2(" in line and "RESOLVE_IN_ROOT" not in line and "RESOLVE_BENEATH" not in line
    ]
