"""Looking and removing inside a directory that others may have filled: nothing here ever leaves it.

The kernel does the resolving (openat2(2), Linux 5.6): symlinks lead to where they would lead if the directory were `/`,
the links of /proc are not followed, and what is removed is removed by the descriptor of its directory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

from appbox.errors import AppboxError, HostLacks, Refused
from appbox.host import syscalls
from appbox.oci import walk
from appbox.oci.rootfs import Node
from appbox.oci.walk import Found
from appbox.store import files

_IN_ROOT: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_PLAIN: Final = _IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
_CHILD: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV
_MISSING: Final = frozenset((errno.ENOENT, errno.ENOTDIR))


def open_inside(root_fd: int, path: str | bytes, flags: int, *, resolve: int = _IN_ROOT) -> int:
    """Open `path` inside the root; OSError as open(2), `HostLacks` on a kernel without openat2."""
    try:
        return syscalls.openat2(root_fd, path or b".", flags, resolve=resolve)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise HostLacks("the kernel has no openat2", hint="Linux 5.6 or later is needed") from error
        raise


def read_inside(root_fd: int, path: str | bytes, limit: int) -> bytes | None:
    """Return the bytes of a regular file inside the root, symlinks followed inside; None when there is none.

    Raises `Refused` for anything but a regular file, for a loop of symlinks, and for more than `limit` bytes.
    """
    try:
        # A device or a fifo must not even be opened, so look first; the descriptor then cannot become another file.
        place = open_inside(root_fd, path, os.O_PATH)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise _unreadable(path, error) from error
    try:
        return _read_regular(place, path, limit)
    finally:
        os.close(place)


def _read_regular(place: int, path: str | bytes, limit: int) -> bytes:
    status = os.fstat(place)
    if not stat.S_ISREG(status.st_mode):
        raise Refused("not a regular file", where=os.fsdecode(path))
    fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = files.read_regular(fd, status.st_size, limit)
    finally:
        os.close(fd)
    if len(content) > limit:
        raise Refused(f"larger than {limit} bytes", where=os.fsdecode(path))
    return content


def locate(root_fd: int, path: str, base: int = 0) -> Node | None:
    """Return what `path` leads to inside the root, symlinks followed, also the last one.

    Where something is missing, also at the end of a symlink, the node's kind is "missing" and its path the place
    where it would be made. None when there can be nothing: below a file. Raises `Refused` for a loop of symlinks. Ids
    are returned less `base`, the host's id of the container's root.
    """
    return locate_all(root_fd, (path,), base)[path]


def locate_all(root_fd: int, paths: Iterable[str], base: int = 0) -> dict[str, Node | None]:
    """Return what each of `paths` leads to, as `locate` does. What several of them pass is looked at once."""

    @cache
    def look(place: bytes) -> Found | None:
        try:
            fd = open_inside(root_fd, place, os.O_PATH | os.O_NOFOLLOW, resolve=_PLAIN)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise _unreadable(place, error) from error
        try:
            return _found(fd, base)
        finally:
            os.close(fd)

    return {path: walk.node(os.fsencode(path), look) for path in paths}


def _found(fd: int, base: int) -> Found:
    status = os.fstat(fd)
    mode = status.st_mode
    link = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(mode) else b""
    kind: walk.Kind = "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
    return Found(kind, status.st_uid - base, status.st_gid - base, stat.S_IMODE(mode), link)


def _unreadable(path: str | bytes, error: OSError) -> AppboxError:
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return Refused("cannot be resolved inside the root", where=os.fsdecode(path), why=error.strerror or "")
    return AppboxError("cannot be read", where=os.fsdecode(path), why=error.strerror or "")


def remove_tree(parent_fd: int, name: str | bytes, gone: Callable[[int], object] | None = None) -> None:
    """Remove `name` below `parent_fd` and everything in it; nothing happens when there is none.

    No symlink is followed and no mount point is crossed, bind mounts included: `AppboxError` then, with what was found
    before already removed. Any depth is removed with two descriptors. `gone` is told the inode of each directory
    removed.
    """
    raw = os.fsencode(name)
    try:
        mode = os.stat(raw, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        _remove_directory(parent_fd, raw, gone)
    else:
        os.unlink(raw, dir_fd=parent_fd)


class _Level:
    """A directory on the way down: its name, what it is, and which of its directories are still to be removed."""

    __slots__ = ("identity", "name", "todo")

    def __init__(self, name: bytes, fd: int) -> None:
        status = os.fstat(fd)
        self.name = name
        self.identity = (status.st_dev, status.st_ino)
        self.todo = _unlink_files(fd)


def _remove_directory(parent_fd: int, name: bytes, gone: Callable[[int], object] | None) -> None:
    fd = _enter(parent_fd, name)
    try:
        levels = [_Level(name, fd)]
        while levels:
            here = levels[-1]
            if here.todo:
                down = here.todo.pop()
                child = _enter(fd, down)
                os.close(fd)
                fd = child
                levels.append(_Level(down, fd))
                continue
            levels.pop()
            above = _leave(fd, levels[-1].identity) if levels else parent_fd
            try:
                os.rmdir(here.name, dir_fd=above)
            finally:
                os.close(fd)
                fd = -1 if above == parent_fd else above
            if gone:
                gone(here.identity[1])
    finally:
        if fd >= 0:
            os.close(fd)


def _unlink_files(fd: int) -> list[bytes]:
    """Unlink everything in the directory except directories, and return their names."""
    directories = []
    with os.scandir(fd) as entries:
        found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if is_directory:
            directories.append(name)
        else:
            os.unlink(name, dir_fd=fd)
    return directories


def _enter(parent_fd: int, name: bytes) -> int:
    try:
        return open_inside(parent_fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=_CHILD)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise AppboxError(
                "a mount point is in the way of removing", where=os.fsdecode(name), hint="unmount it first"
            ) from error
        raise


def _leave(fd: int, identity: tuple[int, int]) -> int:
    """Return a descriptor of the parent, which must be the directory that we came from: others may have moved us."""
    above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    status = os.fstat(above)
    if (status.st_dev, status.st_ino) != identity:
        os.close(above)
        raise Refused("a directory was moved while it was being removed")
    return above
