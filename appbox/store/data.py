"""Volumes on disk: making and seeding them, so that a volume is there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass
from typing import Final

from appbox.errors import AppboxError
from appbox.host import syscalls
from appbox.host.inside import open_inside, remove_tree
from appbox.store import files

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Making:
    """How a volume's directory is to be: `owner` in host ids, `seed` the directory that it starts as a copy of."""

    owner: tuple[int, int]
    mode: int
    seed: int | None = None


def make(parent: int, name: str, making: Making) -> None:
    """Make the directory `name` as a volume, by one rename, durably. An empty directory of that name is replaced.

    Raises AppboxError when there is one that is not empty.
    """
    temporary = f".{name}{files.TEMPORARY}"
    remove_tree(parent, temporary)
    os.mkdir(temporary, 0o700, dir_fd=parent)
    try:
        with files.directory(temporary, parent) as fd:
            fill(fd, making)
            syscalls.syncfs(fd)
        _put(parent, temporary, name, making)
    finally:
        remove_tree(parent, temporary)
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
    """Copy the seed into an open empty directory and give it its owner and mode."""
    if making.seed is not None:
        copy_tree(making.seed, fd)
    os.fchown(fd, *making.owner)
    os.fchmod(fd, making.mode)


def copy_tree(source: int, target: int) -> None:
    """Copy everything below one open directory into another: owners, modes, times, xattrs and hard links kept.

    No symlink is followed. Device nodes and the like are copied as nodes.
    """
    _copy_entries(source, target, {})


def _copy_entries(source: int, target: int, seen: dict[tuple[int, int], str]) -> None:
    for name in sorted(os.listdir(source)):
        info = os.lstat(name, dir_fd=source)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            with files.directory(name, source) as inner, files.directory(name, target) as copy:
                _copy_entries(inner, copy, seen)
                _copy_attributes(inner, copy, info)
        elif stat.S_ISREG(info.st_mode):
            _copy_file(source, target, name, info, seen)
        else:
            _copy_node(source, target, name, info)


def _copy_file(source: int, target: int, name: str, info: os.stat_result, seen: dict[tuple[int, int], str]) -> None:
    identity = (info.st_dev, info.st_ino)
    if identity in seen:
        os.link(seen[identity], name, dst_dir_fd=target, follow_symlinks=False)
        return
    read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        write = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            with open(read, "rb", closefd=False) as origin, open(write, "wb", closefd=False) as copy:
                shutil.copyfileobj(origin, copy, _CHUNK)
            _copy_attributes(read, write, info)
            if info.st_nlink > 1:
                seen[identity] = os.readlink(f"/proc/self/fd/{write}")
        finally:
            os.close(write)
    finally:
        os.close(read)


def _copy_attributes(source: int, target: int, info: os.stat_result) -> None:
    """Owner, mode, xattrs, times: in the order in which none of them undoes another."""
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    for name in os.listxattr(source):
        if name.startswith("user.") or name == "security.capability":
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy_node(source: int, target: int, name: str, info: os.stat_result) -> None:
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
    os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


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
