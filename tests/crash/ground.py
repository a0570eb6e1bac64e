"""Where the root of a sandbox is: in memory, or on a file system in an image file that can be cut off from its disk."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.crash import operation
from tests.ground.ordinary import OrdinarySandbox, subordinate_ids
from tests.ground.rootfs import mounted
from tests.ground.sandbox import Sandbox

LOG_FLUSHED: Final = 1
NOTHING_FLUSHED: Final = 2
_SHUTDOWN: Final = 0x8004587D
"""XFS_IOC_GOINGDOWN and EXT4_IOC_SHUTDOWN, `_IOR('X', 125, __u32)`: nothing reaches the disk any more."""

MAKE: Final = {
    "ext4": (64, ["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-J", "size=4"]),
    "xfs": (300, ["mkfs.xfs", "-q", "-m", "reflink=1"]),
    "btrfs": (128, ["mkfs.btrfs", "-q", "-m", "single"]),
}
"""File system to its size in MiB and to what makes it; the sizes are the least that each one takes."""

CHECK: Final = {
    "ext4": ["e2fsck", "-f", "-n"],
    "xfs": ["xfs_repair", "-n"],
    "btrfs": ["btrfs", "check", "--readonly"],
}


_NEW_MOUNTS: Final = 0x20000
"""CLONE_NEWNS of linux/sched.h."""


def leave_shared_mounts() -> None:
    """Give this process mounts of its own, so that what is unmounted is unmounted.

    Whatever else is started on this machine with mounts of its own would otherwise keep a copy of ours, and the file
    system mounted. See unshare(2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    run("mount", "--make-rprivate", "/")


def run(*words: object) -> None:
    """Run a program that has to succeed."""
    done = subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-1000:]}{done.stderr[-1000:]}"


@dataclass
class Memory:
    """A root in a tmpfs: nothing takes long to become durable there."""

    box: Sandbox
    kind: str = "tmpfs"

    @property
    def filler(self) -> Path:
        """Where something can be that takes all the room: on the same file system."""
        return self.box.place / "filler"

    def keep(self) -> None:
        """Remember the root as it is."""
        run("cp", "-a", self.box.root, self.box.place / "before")

    def back(self) -> None:
        """Have the root as it was."""
        shutil.rmtree(self.box.root)
        run("cp", "-a", self.box.place / "before", self.box.root)


@dataclass
class Disk:
    """A root on a loop device, whose image file is in memory."""

    box: Sandbox
    kind: str
    attached: bool = False

    @property
    def image(self) -> Path:
        return self.box.place / "disk"

    @property
    def filler(self) -> Path:
        """Where something can be that takes all the room: on the same file system."""
        return self.box.root / "filler"

    def make(self, *options: str, size: int | None = None) -> None:
        """Make an empty file system of so many MiB, and mount it."""
        least, words = MAKE[self.kind]
        with self.image.open("wb") as file:
            file.truncate((size or least) << 20)
        run(*words, *options, self.image)
        self.attach()

    def attach(self) -> None:
        """Mount the file system; after it was cut off, that replays its journal."""
        run("mount", "-o", "loop", self.image, self.box.root)
        self.attached = True

    def detach(self) -> None:
        """Unmount it."""
        if self.attached:
            run("umount", self.box.root)
            self.attached = False

    def keep(self) -> None:
        """Remember the root as it is, all of it on its disk."""
        self.detach()
        run("cp", "--sparse=always", self.image, self.box.place / "before")
        self.attach()

    def back(self) -> None:
        """Have the root as it was."""
        self.detach()
        run("cp", "--sparse=always", self.box.place / "before", self.image)
        self.attach()

    def cut(self, flag: int) -> None:
        """Have nothing reach the disk from now on; with `LOG_FLUSHED` what is in the journal's memory still does.

        btrfs has no such call: what is on its disk at this moment is put aside.
        """
        if self.kind == "btrfs":
            run("cp", "--sparse=always", self.image, self.box.place / "cut")
            return
        fd = os.open(self.box.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("=I", flag))
        finally:
            os.close(fd)

    def return_of_power(self) -> None:
        """Mount what is on the disk, see that the file system is sound, and go on with it."""
        self.detach()
        if self.kind == "btrfs":
            (self.box.place / "cut").rename(self.image)
        self.attach()
        self.detach()
        run(*CHECK[self.kind], self.image)
        self.attach()


Ground = Memory | Disk


@contextlib.contextmanager
def memory(place: Path, options: str = "size=512m") -> Iterator[Memory]:
    """Yield a sandbox in memory, with its images."""
    with mounted(place, "tmpfs", f"{options},mode=0755"):
        box = Sandbox(place)
        operation.images(box)
        yield Memory(box)


@contextlib.contextmanager
def memory_of_user() -> Iterator[Memory]:
    """Yield the sandbox of an ordinary user in memory, with its images, where that user can enter every directory."""
    with tempfile.TemporaryDirectory(prefix="appbox-test.") as name:
        place = Path(name)
        place.chmod(0o755)
        with mounted(place, "tmpfs", "size=512m,mode=0755"), subordinate_ids(place):
            box = OrdinarySandbox(place)
            operation.images(box)
            yield Memory(box, "tmpfs, user")


@contextlib.contextmanager
def disk(place: Path, kind: str, *options: str, size: int | None = None) -> Iterator[Disk]:
    """Yield a sandbox whose root is a file system of this kind, with its images."""
    with mounted(place, "tmpfs", "size=2g,mode=0755"):
        box = Sandbox(place)
        operation.images(box)
        made = Disk(box, kind)
        made.make(*options, size=size)
        try:
            yield made
        finally:
            made.detach()
            let_go(made.image)


def let_go(image: Path) -> None:
    """Return when no loop device has an image file any more: that may be a moment after it was unmounted."""
    for _ in range(100):
        if not subprocess.run(["losetup", "--associated", image], capture_output=True, check=True).stdout:
            return
        time.sleep(0.1)
    raise AssertionError(f"a loop device still has {image}")
