"""A tree of files copied into another directory: the one engine for seeding volumes and for cloning data.

Everything that root can keep is kept: owners, modes, times, extended attributes with ACLs and capabilities, hard links
across directories, holes, symlinks, fifos, sockets, devices. No symlink is followed. Only the two directories that are
worked on are open, so that no depth is too deep, and no name is ever part of a path that could be too long.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from appbox.errors import AppboxError, Refused
from appbox.host import cow, syscalls
from appbox.host.inside import remove_tree
from appbox.store.walk import Cursor, Identity, identity

CHUNK: Final = 8 << 20
"""Bytes copied at once, and between two reports of progress."""

KEPT: Final = 16 << 20
"""Bytes from which on a file that a killed copy had finished is trusted: they are durable before they count."""

_FILES: Final = 1000
"""Files between two reports of progress."""

_PATH: Final = 3000
"""Bytes of a path that are opened at once; the kernel takes 4,095."""

_BELOW: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_NO_RANGE: Final = frozenset((errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF))

Progress = Callable[[int], object]
"""Told how many bytes are done."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a copy is like.

    `share`: blocks are shared where the file system can (FICLONE). `server`: copy_file_range(2) may do the copying; not
    where it would share what is to be apart. `resume`: what a killed copy left is used. `live`: files may vanish
    meanwhile. `image`: what is copied is an image's: no devices, no attributes but `user.*` and capabilities, at most
    `depth` levels; and where users of the host can reach it (`reachable`), no setid bits and no capabilities.
    """

    share: bool = False
    server: bool = False
    resume: bool = False
    live: bool = False
    image: bool = False
    reachable: bool = False
    depth: int = 0


def copy(source: int, target: int, rules: Rules, progress: Progress | None = None, *, top: bool = True) -> None:
    """Copy everything below one open directory into another; with `top` also what the directory itself is like.

    Raises Refused for what an image's volume may not hold, and AppboxError, with the path, for what the disk refuses.
    """
    _Copy(target, rules, progress or _quiet).run(source, attributes=top)


def _quiet(done: int) -> None:
    del done


@dataclass(slots=True)
class _Level:
    """A directory on the way down: what it is like, what both sides are, and which of its directories are to come."""

    name: str
    info: os.stat_result
    sides: tuple[Identity, Identity]
    todo: list[str] = field(default_factory=list)


class _Copy:
    """One copying. `seen`: of each file that has more names, the path of its first one, and how many are to come."""

    def __init__(self, top: int, rules: Rules, progress: Progress) -> None:
        self.top, self.rules, self.progress = top, rules, progress
        self.levels: list[_Level] = []
        self.seen: dict[Identity, tuple[bytes, int]] = {}
        self.done = self.told = self.count = 0
        self.at = ""

    def run(self, top: int, *, attributes: bool) -> None:
        source, target = Cursor(top), Cursor(self.top)
        try:
            self._walk(source, target, attributes=attributes)
        except OSError as error:
            raise in_words(error, "/".join(filter(None, (*(one.name for one in self.levels), self.at)))) from error
        finally:
            source.close()
            target.close()
        self.progress(self.done)

    def _walk(self, source: Cursor, target: Cursor, *, attributes: bool) -> None:
        self._files("", source.fd, target.fd)
        while True:
            here = self.levels[-1]
            if here.todo:
                self._down(here.todo.pop(), source, target)
                continue
            self.at = ""
            if attributes or len(self.levels) > 1:
                self._attributes(source.fd, target.fd, here.info)
            if len(self.levels) == 1:
                return
            self.levels.pop()
            for cursor, wanted in zip((source, target), self.levels[-1].sides, strict=True):
                cursor.up(wanted)

    def _down(self, name: str, source: Cursor, target: Cursor) -> None:
        """Go into a directory, which is made on the other side, and copy the files in it."""
        self.at = name
        if self.rules.depth and len(self.levels) > self.rules.depth:
            raise Refused(f"the image's volume has more than {self.rules.depth} directories within one another")
        try:
            source.down(name)
        except (FileNotFoundError, NotADirectoryError):
            if self.rules.live:
                return
            raise
        self._make(name, target.fd)
        target.down(name)
        if self.rules.resume:
            strip(target.fd)
        self._files(name, source.fd, target.fd)

    def _make(self, name: str, target: int) -> None:
        """Make a directory, unless a killed copy left it."""
        try:
            os.mkdir(name, 0o700, dir_fd=target)
        except FileExistsError:
            if not self.rules.resume:
                raise
            if not stat.S_ISDIR(os.lstat(name, dir_fd=target).st_mode):
                os.unlink(name, dir_fd=target)
                os.mkdir(name, 0o700, dir_fd=target)

    def _files(self, name: str, source: int, target: int) -> None:
        """Copy everything in a directory but its directories, which are noted; what a killed copy left besides goes."""
        info = os.fstat(source)
        here = _Level(name, info, (identity(info), identity(os.fstat(target))))
        self.levels.append(here)
        left = set(os.listdir(target)) if self.rules.resume else set()
        with os.scandir(source) as entries:
            for entry in entries:
                self.at = entry.name
                left.discard(entry.name)
                try:
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        here.todo.append(entry.name)
                    else:
                        self._leaf(source, target, entry.name, found)
                except FileNotFoundError:
                    if not self.rules.live:
                        raise
        for extra in left:
            remove_tree(target, extra)

    def _leaf(self, source: int, target: int, name: str, info: os.stat_result) -> None:
        if identity(info) in self.seen:
            self._link(identity(info), target, name)
        else:
            if stat.S_ISREG(info.st_mode):
                self._file(source, target, name)
            else:
                self._node(source, target, name, info)
            if info.st_nlink > 1:
                path = b"/".join(os.fsencode(one) for one in (*(one.name for one in self.levels[1:]), name))
                self.seen[identity(info)] = path, info.st_nlink - 1
        self.count += 1
        self._tell(0)

    def _tell(self, size: int) -> None:
        self.done += size
        if self.done - self.told >= CHUNK or self.count >= _FILES:
            self.told, self.count = self.done, 0
            self.progress(self.done)

    def _link(self, first: Identity, target: int, name: str) -> None:
        """Give a file another name, by a descriptor of it (open(2), O_PATH); after its last one it is forgotten."""
        path, left = self.seen.pop(first)
        if self.rules.resume:
            remove_tree(target, name)
        fd = open_below(self.top, path)
        try:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=target, follow_symlinks=True)
        finally:
            os.close(fd)
        if left > 1:
            self.seen[first] = path, left - 1

    def _file(self, source: int, target: int, name: str) -> None:
        read = os.open(name, _READ, dir_fd=source)
        try:
            found = os.fstat(read)
            if not stat.S_ISREG(found.st_mode):
                raise AppboxError("changed while it was being copied", where=name)
            if self.rules.resume and self._is_done(target, name, found):
                self._tell(found.st_size)
                return
            write = os.open(name, _NEW, 0o600, dir_fd=target)
            try:
                self._content(read, write, found)
                self._attributes(read, write, found)
            finally:
                os.close(write)
        finally:
            os.close(read)

    def _is_done(self, target: int, name: str, info: os.stat_result) -> bool:
        """Return whether a killed copy had finished this file; what it left otherwise is removed.

        The time of a copy is set last, and a large file's bytes are durable before it.
        """
        try:
            copy = os.lstat(name, dir_fd=target)
        except FileNotFoundError:
            return False
        same = stat.S_ISREG(copy.st_mode) and (copy.st_size, copy.st_mtime_ns) == (info.st_size, info.st_mtime_ns)
        if same and info.st_size >= KEPT and info.st_ctime_ns < copy.st_ctime_ns:
            return True
        remove_tree(target, name)
        return False

    def _content(self, read: int, write: int, info: os.stat_result) -> None:
        size = info.st_size
        if not size:
            return
        if self.rules.share and cow.clone_file(read, write):
            self._tell(size)
            return
        end = 0
        for start, length in _extents(read, size):
            self._tell(start - end)
            end = start + self._range(read, write, start, length)
        if end < size:
            os.ftruncate(write, size)
            self._tell(size - end)
        if size >= KEPT:
            os.fsync(write)

    def _range(self, read: int, write: int, start: int, length: int) -> int:
        """Copy `length` bytes from `start` on, fewer when the file has become shorter; return how many."""
        move = _by_range if self.rules.server else _by_sendfile
        done = 0
        while done < length:
            try:
                moved = move(read, write, start + done, min(CHUNK, length - done))
            except OSError as error:
                if error.errno not in _NO_RANGE or move is _by_hand:
                    raise
                move = _by_hand
                continue
            if not moved:
                break
            done += moved
            self._tell(moved)
        return done

    def _attributes(self, source: int, target: int, info: os.stat_result) -> None:
        """Owner, mode, extended attributes, times: in the order in which none of them undoes another."""
        os.fchown(target, info.st_uid, info.st_gid)
        os.fchmod(target, self._mode(info))
        for name in os.listxattr(source):
            self._xattr(source, target, name)
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _xattr(self, source: int | str, target: int | str, name: str) -> None:
        rules, follow = self.rules, isinstance(source, int)
        if rules.image and not (name.startswith("user.") or (name == "security.capability" and not rules.reachable)):
            return
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)
        except OSError as error:
            # Labels of a security module, and properties of btrfs, mean something only where they are known.
            known = name.startswith(("user.", "trusted.", "system.")) or name == "security.capability"
            if known or error.errno not in {errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL}:
                raise

    def _mode(self, info: os.stat_result) -> int:
        mode = stat.S_IMODE(info.st_mode)
        setid = stat.S_ISUID | (0 if stat.S_ISDIR(info.st_mode) else stat.S_ISGID)
        return mode & ~setid if self.rules.reachable else mode

    def _node(self, source: int, target: int, name: str, info: os.stat_result) -> None:
        """Copy what is neither a directory nor a regular file."""
        if self.rules.resume:
            remove_tree(target, name)
        if self.rules.image and (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
            raise Refused(f"the image has the device {name} in a volume", hint='set seed = "never" for the volume')
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        else:
            os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=target)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
            try:
                syscalls.fchmod_path(fd, self._mode(info))
            finally:
                os.close(fd)
        if not self.rules.image:
            origin, copied = (f"/proc/self/fd/{fd}/{name}" for fd in (source, target))
            for attribute in os.listxattr(origin, follow_symlinks=False):
                self._xattr(origin, copied, attribute)
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def strip(fd: int) -> None:
    """Take every extended attribute from an open directory, ACLs that its children would inherit included."""
    for name in os.listxattr(fd):
        if name.startswith(("user.", "trusted.")) or name in _ACLS:
            os.removexattr(fd, name)


def open_below(top: int, path: bytes) -> int:
    """Open what has this path below an open directory (O_PATH), symlinks never followed, however long the path is."""
    fd = os.dup(top)
    while True:
        cut = len(path) if len(path) <= _PATH else path.index(b"/", _PATH - 256)
        head, path = path[:cut], path[cut + 1 :]
        try:
            inner = syscalls.openat2(fd, head, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, resolve=_BELOW)
        finally:
            os.close(fd)
        if not path:
            return inner
        fd = inner


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a file has bytes, as offset and length (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(size, os.lseek(fd, start, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        if start >= end:
            return
        yield start, end - start


def _by_range(read: int, write: int, offset: int, length: int) -> int:
    return os.copy_file_range(read, write, length, offset, offset)


def _by_sendfile(read: int, write: int, offset: int, length: int) -> int:
    os.lseek(write, offset, os.SEEK_SET)
    return os.sendfile(write, read, offset, length)


def _by_hand(read: int, write: int, offset: int, length: int) -> int:
    data = os.pread(read, min(length, 1 << 20), offset)
    done = 0
    while done < len(data):
        done += os.pwrite(write, data[done:], offset + done)
    return done


def in_words(error: OSError, where: str) -> AppboxError:
    """Return why a copy failed, with the path below the data, and what to do."""
    why = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return AppboxError(
            "there is no room for a copy of the data", where=where, why=why, hint="make room, then again"
        )
    what = "cannot be read or written" if error.errno == errno.EIO else "cannot be copied"
    return AppboxError(what, where=where, why=why)
