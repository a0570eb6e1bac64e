"""Making one thing in a directory that is held by descriptor. Effects; names are single components.

Nothing here follows a symlink: files and directories are worked on through the descriptor that made them, the rest with
calls that take the link itself. The order is that of tar everywhere: content, owner (which clears setuid and
`security.capability`), mode, extended attributes, times.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from appbox.errors import HostLacks, Refused
from appbox.host import syscalls
from appbox.oci import xattrs
from appbox.oci.ids import IdMap
from appbox.oci.layer import Entry
from appbox.oci.sparse import Sparse
from appbox.oci.tar import Kind, Span

_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HOLE: Final = 1 << 14
"""Bytes of zeros that become a hole: small ones would only make extents."""
_ZEROS: Final = bytes(_HOLE)
_OVER: Final = 1 << 20
"""Bytes of a file that takes another one's place: it gets no holes, so a large one is made anew."""
_ZEROS_AT_ONCE: Final = 1 << 20
_DEVICES: Final = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


class Owner(NamedTuple):
    """Ids on the host."""

    uid: int
    gid: int


def owner(entry: Entry, idmap: IdMap) -> Owner:
    """Return the host's ids of the entry, whose range `layer.interpret` has checked."""
    return Owner(entry.uid + idmap.base, entry.gid + idmap.base)


class Hasher(Protocol):
    """What is told the content of a file, holes included."""

    def update(self, data: bytes | memoryview, /) -> object: ...


def regular(dir_fd: int, entry: Entry, idmap: IdMap, data: Iterable[Span], hasher: Hasher | None = None) -> None:
    """Make a file with its content; FileExistsError when the name is taken."""
    fd = os.open(entry.name, _NEW_FILE, 0o600, dir_fd=dir_fd)
    try:
        if hasher is not None:
            data = _hashed(data, hasher, entry.sparse)
        if entry.sparse is not None:
            _write_sparse(fd, entry.sparse, data)
        elif entry.size:
            _write(fd, entry.size, data)
        attributes(fd, entry, idmap)
        os.utime(fd, ns=(entry.mtime, entry.mtime))
    finally:
        os.close(fd)


def over(dir_fd: int, entry: Entry, idmap: IdMap, data: Iterable[Span], hasher: Hasher | None = None) -> bool:
    """Make a file in the place of a plain one with no other name, whose inode stays; return False when that cannot be.

    Nothing is read of `data` then.
    """
    if entry.sparse is not None or entry.size > _OVER:
        return False
    # Opening a device may do something, so look first.
    before = os.stat(entry.name, dir_fd=dir_fd, follow_symlinks=False)
    if not stat.S_ISREG(before.st_mode) or before.st_nlink != 1:
        return False
    fd = os.open(entry.name, _OLD_FILE, dir_fd=dir_fd)
    try:
        if not os.path.samestat(before, os.fstat(fd)):
            raise Refused("a file was replaced while it was being written", where=entry.shown)
        at = 0
        for block, start, end in _hashed(data, hasher, None) if hasher is not None else data:
            _write_all(fd, memoryview(block)[start:end], at)
            at += end - start
        os.ftruncate(fd, entry.size)
        for name in os.listxattr(fd):
            if name.startswith("user.") or name == xattrs.CAPABILITY:
                os.removexattr(fd, name)
        attributes(fd, entry, idmap)
        os.utime(fd, ns=(entry.mtime, entry.mtime))
    finally:
        os.close(fd)
    return True


def _hashed(data: Iterable[Span], hasher: Hasher, sparse: Sparse | None) -> Iterator[Span]:
    """Pass the data on and hash it, with the holes of a sparse file in between."""
    if sparse is None:
        for block, start, end in data:
            hasher.update(memoryview(block)[start:end])
            yield block, start, end
        return
    at = 0
    for offset, block, start, end in _placed(sparse, data):
        _hash_zeros(hasher, offset - at)
        hasher.update(memoryview(block)[start:end])
        at = offset + end - start
        yield block, start, end
    _hash_zeros(hasher, sparse.size - at)


def _hash_zeros(hasher: Hasher, count: int) -> None:
    zeros = memoryview(bytes(min(count, _ZEROS_AT_ONCE)))
    while count > 0:
        hasher.update(zeros[:count])
        count -= len(zeros)


def attributes(fd: int, entry: Entry, idmap: IdMap) -> None:
    """Set owner, mode and extended attributes of a file or directory."""
    os.fchown(fd, entry.uid + idmap.base, entry.gid + idmap.base)
    os.fchmod(fd, entry.mode)
    for name, value in entry.xattrs.kept:
        _set_xattr(fd, name, value, entry, idmap)


def check(entry: Entry, idmap: IdMap) -> None:
    """Raise what `attributes` would refuse whatever the file system."""
    for name, value in entry.xattrs.kept:
        if name == xattrs.CAPABILITY and entry.kind is Kind.FILE:
            xattrs.capability(value, idmap.base, idmap.size)


def _set_xattr(fd: int, name: str, value: bytes, entry: Entry, idmap: IdMap) -> None:
    if name == xattrs.CAPABILITY:
        if entry.kind is not Kind.FILE:
            return  # it would mean nothing
        value = xattrs.capability(value, idmap.base, idmap.size)
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        raise HostLacks(
            f"the file system cannot hold the extended attribute {name}",
            where=entry.shown,
            hint="use ext4, xfs or btrfs",
        ) from error


def _write(fd: int, size: int, data: Iterable[Span]) -> None:
    at = 0
    for block, start, end in data:
        if size < 2 * _HOLE:
            _write_all(fd, memoryview(block)[start:end], at)
        else:
            _write_around_holes(fd, block, start, end, at)
        at += end - start
    if size >= 2 * _HOLE:
        os.ftruncate(fd, size)  # the end may be a hole


def _write_around_holes(fd: int, block: bytes, start: int, end: int, at: int) -> None:
    """Write block[start:end] at offset `at`, except runs of zeros between boundaries of the file's `_HOLE`."""
    view = memoryview(block)
    begin = place = start  # of what is still to be written, and to be looked at
    while place < end:
        stop = min(place + _HOLE - (at + place - start) % _HOLE, end)
        if block[place] == 0 and block.startswith(_ZEROS[: stop - place], place):
            _write_all(fd, view[begin:place], at + begin - start)
            begin = stop
        place = stop
    _write_all(fd, view[begin:end], at + begin - start)


def _write_sparse(fd: int, sparse: Sparse, data: Iterable[Span]) -> None:
    for offset, block, start, end in _placed(sparse, data):
        _write_all(fd, memoryview(block)[start:end], offset)
    os.ftruncate(fd, sparse.size)


def _placed(sparse: Sparse, data: Iterable[Span]) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield the stored data in pieces with their places in the file."""
    segments = iter(sparse.segments)
    offset = room = 0
    for block, start, end in data:
        at = start
        while at < end:
            if not room:
                offset, room = next(segments)
            piece = min(room, end - at)
            yield offset, block, at, at + piece
            at += piece
            offset += piece
            room -= piece


def _write_all(fd: int, view: memoryview, at: int) -> None:
    while view:
        done = os.pwrite(fd, view, at)
        at += done
        view = view[done:]


def symlink(dir_fd: int, entry: Entry, idmap: IdMap) -> None:
    """Make a symlink; its extended attributes are dropped, as Linux keeps none of ours on symlinks."""
    os.symlink(entry.link, entry.name, dir_fd=dir_fd)
    os.chown(entry.name, *owner(entry, idmap), dir_fd=dir_fd, follow_symlinks=False)
    os.utime(entry.name, ns=(entry.mtime, entry.mtime), dir_fd=dir_fd, follow_symlinks=False)


def special(dir_fd: int, entry: Entry, idmap: IdMap) -> None:
    """Make a device or a fifo."""
    kind = _DEVICES[entry.kind]
    numbers = os.makedev(entry.major, entry.minor)
    try:
        os.mknod(entry.name, kind, numbers, dir_fd=dir_fd)
    except PermissionError as error:
        raise HostLacks("no privilege to make a device", where=entry.shown, hint="run as root") from error
    fd = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        status = os.fstat(fd)
        if stat.S_IFMT(status.st_mode) != kind or status.st_rdev != numbers:
            raise Refused("a device was replaced while it was being made", where=entry.shown)
        os.chown(entry.name, *owner(entry, idmap), dir_fd=dir_fd, follow_symlinks=False)
        syscalls.fchmod_path(fd, entry.mode)
        os.utime(entry.name, ns=(entry.mtime, entry.mtime), dir_fd=dir_fd, follow_symlinks=False)
    finally:
        os.close(fd)
