"""Volumes on disk: making and seeding them, so that a volume is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from dataclasses import dataclass
from typing import Final

from appbox.errors import AppboxError, Refused
from appbox.host import syscalls
from appbox.host.inside import open_inside, remove_tree
from appbox.store import files

_CHUNK: Final = 1 << 20

DEPTH: Final = 200
"""Levels of directories that are copied into a volume; deeper ones are no data of anybody."""

_BELOW: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS


@dataclass(frozen=True, slots=True)
class Making:
    """How a volume's directory is to be: `owner` in host ids, `seed` the directory that it starts as a copy of.

    `reachable`: users of the host can get at it.
    """

    owner: tuple[int, int]
    mode: int
    seed: int | None = None
    reachable: bool = False


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
    """Copy everything below one open directory into another: owners, modes, times, xattrs and hard links kept.

    No symlink is followed. What users of the host can reach gets no setuid and setgid bits and no file capabilities:
    they would be those of an image. Raises Refused for a device, and for a tree of more than `DEPTH` levels.
    """
    _Copy(target, reachable=reachable).entries(source, target, ())


class _Copy:
    """One copying: `top` is where it goes, `seen` the paths below it of files with several names, by inode."""

    def __init__(self, top: int, *, reachable: bool) -> None:
        self.top, self.reachable = top, reachable
        self.seen: dict[tuple[int, int], str] = {}

    def entries(self, source: int, target: int, path: tuple[str, ...]) -> None:
        if len(path) > DEPTH:
            raise Refused(f"the image's volume has more than {DEPTH} directories within one another")
        for name in sorted(os.listdir(source)):
            info = os.lstat(name, dir_fd=source)
            if stat.S_ISDIR(info.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
                with files.directory(name, source) as inner, files.directory(name, target) as copy:
                    self.entries(inner, copy, (*path, name))
                    self.attributes(inner, copy, info)
            elif stat.S_ISREG(info.st_mode):
                self.file(source, target, (*path, name), info)
            else:
                self.node(source, target, name, info)

    def file(self, source: int, target: int, path: tuple[str, ...], info: os.stat_result) -> None:
        name, identity = path[-1], (info.st_dev, info.st_ino)
        if identity in self.seen:
            self.link(self.seen[identity], target, name)
            return
        with contextlib.ExitStack() as stack:
            read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            origin = stack.enter_context(open(read, "rb"))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            copy = stack.enter_context(open(os.open(name, flags, 0o600, dir_fd=target), "wb"))
            shutil.copyfileobj(origin, copy, _CHUNK)
            copy.flush()
            self.attributes(origin.fileno(), copy.fileno(), info)
        if info.st_nlink > 1:
            self.seen[identity] = "/".join(path)

    def link(self, first: str, target: int, name: str) -> None:
        """Give a file another name, by a descriptor of it (open(2), O_PATH)."""
        fd = syscalls.openat2(self.top, first, os.O_PATH | os.O_CLOEXEC, resolve=_BELOW)
        try:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=target, follow_symlinks=True)
        finally:
            os.close(fd)

    def attributes(self, source: int, target: int, info: os.stat_result) -> None:
        """Owner, mode, xattrs, times: in the order in which none of them undoes another."""
        os.fchown(target, info.st_uid, info.st_gid)
        os.fchmod(target, self.mode(info))
        for name in os.listxattr(source):
            if name.startswith("user.") or (name == "security.capability" and not self.reachable):
                os.setxattr(target, name, os.getxattr(source, name))
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))

    def mode(self, info: os.stat_result) -> int:
        mode = stat.S_IMODE(info.st_mode)
        setid = stat.S_ISUID | (0 if stat.S_ISDIR(info.st_mode) else stat.S_ISGID)
        return mode & ~setid if self.reachable else mode

    def node(self, source: int, target: int, name: str, info: os.stat_result) -> None:
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISFIFO(info.st_mode) or stat.S_ISSOCK(info.st_mode):
            os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, 0, dir_fd=target)
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
            try:
                syscalls.fchmod_path(fd, self.mode(info))
            finally:
                os.close(fd)
        else:
            raise Refused(f"the image has the device {name} in a volume", hint='set seed = "never" for the volume')
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
