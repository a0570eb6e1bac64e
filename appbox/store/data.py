"""Volumes on disk: making and seeding them, so that a volume is there whole or not at all."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

from appbox.errors import AppboxError
from appbox.host import syscalls
from appbox.host.inside import open_inside, remove_tree
from appbox.store import files

DEPTH: Final = 200
"""Levels of directories that are copied into a volume; deeper ones are no data of anybody."""


@dataclass(frozen=True, slots=True)
class Making:
    """How a volume's directory is to be: `owner` in host ids, `seed` the directory that it starts as a copy of.

    `reachable`: users of the host can get at it.
    """

    owner: tuple[int, int]
    mode: int
    seed: int | None = None
    reachable: bool = False


def make(parent: int, name: str, making: Making, *, durable: bool = True) -> None:
    """Make the directory `name` as a volume, by one rename, durably. An empty directory of that name is replaced.

    In a staged bundle it need not be `durable`: publishing that syncs the file system. Raises AppboxError when there is
    one that is not empty.
    """
    temporary = f".{name}{files.TEMPORARY}"
    remove_tree(parent, temporary)
    os.mkdir(temporary, 0o700, dir_fd=parent)
    try:
        with files.directory(temporary, parent) as fd:
            fill(fd, making)
            if durable:
                syscalls.syncfs(fd)
        _put(parent, temporary, name, making)
    finally:
        remove_tree(parent, temporary)
    if durable:
        os.fsync(parent)


def _put(parent: int, temporary: str, name: str, making: Making) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError as error:
        # A mount point, or what mkfs leaves in one, cannot be renamed over, but filled it can be.
        if error.errno not in {errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST}:
            raise
        _fill_in_place(parent, name, making)


def _fill_in_place(parent: int, name: str, making: Making) -> None:
    with files.directory(name, parent) as fd:
        if set(os.listdir(fd)) - {"lost+found"}:
            raise AppboxError("is not empty any more", where=name)
        fill(fd, making)
        syscalls.syncfs(fd)


def fill(fd: int, making: Making) -> None:
    """Copy the seed into an open empty directory and give it its owner and mode.

    Until it is full nobody but root can enter it, so that nothing in it can be swapped meanwhile.
    """
    os.fchown(fd, 0, 0)
    os.fchmod(fd, 0o700)
    if making.seed is not None:
        copy_tree(making.seed, fd, reachable=making.reachable)
    os.fchown(fd, *making.owner)
    os.fchmod(fd, making.mode)


def copy_tree(source: int, target: int, *, reachable: bool = False) -> None:
    """Copy everything below one open directory of an image into another, with all that may be kept of it.

    What users of the host can reach gets no setuid and setgid bits and no file capabilities: they would be those of an
    image. Raises Refused for a device, and for a tree of more than `DEPTH` levels.
    """
    from appbox.store import tree  # noqa: PLC0415  # most runs copy nothing

    tree.copy(source, target, tree.Rules(image=True, reachable=reachable, depth=DEPTH), top=False)


def open_seed(rootfs: int, path: str) -> int | None:
    """Open the directory `path` of a rootfs, symlinks followed inside it; None when there is no such directory."""
    try:
        return open_inside(rootfs, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise


def names(directory: int) -> frozenset[str]:
    """Return the names of the volumes in an open data directory, unfinished ones left out."""
    return frozenset(name for name in os.listdir(directory) if not name.startswith("."))
