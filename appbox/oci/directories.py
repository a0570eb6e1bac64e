"""The directories of a rootfs that is being written: found, made, kept open, and given their times at the end. Effects.

They are opened by the kernel inside the root, without symlinks on the way; where an image has some, `walk` follows them
first, inside the root too. Directories stay open for the entries that follow, as a tar lists a directory's content
together. Whoever renames things meanwhile cannot turn an open descriptor into another directory; one only goes stale
when the writer itself removes a directory or a symlink, and says so with `forget`.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from appbox.errors import Refused
from appbox.host import syscalls
from appbox.host.inside import open_inside
from appbox.oci import walk
from appbox.oci.ids import IdMap
from appbox.oci.layer import shown

if TYPE_CHECKING:
    from appbox.oci.notes import Notes

_RULES: Final = (
    syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS
)
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN: Final = 128
"""Directories kept open: far below the usual limit of 1,024 descriptors."""

IMPLIED_MODE: Final = 0o755
IMPLIED_TIME: Final = 0
"""A directory that no layer describes is root's, 0755 and of 1970, so that the same image is always the same rootfs."""


class Directory(NamedTuple):
    """An open directory; `path` is free of symlinks."""

    fd: int
    inode: int
    path: bytes


class Directories:
    """Open directories below `root_fd`, which stays the caller's. What `open` returns is valid until `settle`."""

    def __init__(self, root_fd: int, idmap: IdMap, notes: Notes | None = None) -> None:
        self._notes = notes
        self.root = Directory(root_fd, os.fstat(root_fd).st_ino, b"")
        self._idmap = idmap
        self._known: dict[bytes, Directory] = {b"": self.root}
        self._stale: list[int] = []
        self._times: dict[int, tuple[bytes, int]] = {}
        self._made: list[bytes] = []
        self.imply(self.root)

    def close(self) -> None:
        """Close all of them."""
        self.forget()
        self.settle()

    def forget(self) -> None:
        """Look everything up again from now on: a directory or a symlink has been removed."""
        self._stale += [directory.fd for directory in self._known.values() if directory is not self.root]
        self._known = {b"": self.root}

    def settle(self) -> None:
        """Close what is no longer known; nothing that `open` returned before is in use any more."""
        while self._stale:
            os.close(self._stale.pop())

    def open(self, path: bytes, *, make: bool = False) -> Directory:
        """Return the directory that `path` leads to, with `make` also when it has to be made.

        Raises FileNotFoundError, NotADirectoryError, and `Refused` for what cannot be resolved inside the root.
        """
        known = self._known.get(path)
        if known is not None:
            return known
        try:
            found = self._direct(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            found = self._followed(path, make=make)
        self._keep(path, found)
        return found

    def _direct(self, path: bytes) -> Directory:
        try:
            fd = open_inside(self.root.fd, path, _FLAGS, resolve=_RULES)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise Refused("a mount point is in the way of unpacking", where=shown(path)) from error
            raise
        return Directory(fd, os.fstat(fd).st_ino, path)

    def _followed(self, path: bytes, *, make: bool) -> Directory:
        place = walk.follow(path, self._look)
        if place is None:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), shown(path))
        if place.found is None:
            if not make:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shown(path))
            self._make(place.path)
        return self._direct(place.path)

    def _make(self, path: bytes) -> None:
        """Make the missing directories of a path that is free of symlinks."""
        here = self.root
        parts = path.split(b"/")
        for depth, part in enumerate(parts, 1):
            try:
                os.mkdir(part, 0o700, dir_fd=here.fd)
                fresh = True
            except FileExistsError:
                fresh = False
            here = self.enter(here, part, b"/".join(parts[:depth]))
            if fresh:
                self.imply(here)
                self._made.append(here.path)

    def made(self) -> list[bytes]:
        """Return the directories that no layer describes and that were made since the last call."""
        made, self._made = self._made, []
        return made

    def enter(self, parent: Directory, name: bytes, path: bytes) -> Directory:
        """Open a subdirectory, which must not be a symlink, and remember it as `path`, the path it was asked for by."""
        known = self._known.get(path)
        if known is not None:
            return known
        fd = os.open(name, _FLAGS, dir_fd=parent.fd)
        made = Directory(fd, os.fstat(fd).st_ino, b"/".join((parent.path, name)) if parent.path else name)
        self._keep(path, made)
        return made

    def _keep(self, path: bytes, directory: Directory) -> None:
        evicted = path
        if path not in self._known and len(self._known) > _OPEN:
            evicted = next(key for key in self._known if key)
        if evicted in self._known:
            self._stale.append(self._known.pop(evicted).fd)
        self._known[path] = directory

    def _look(self, path: bytes) -> walk.Found | None:
        """Answer `walk.follow`, which has made sure of the directories of `path`."""
        try:
            fd = open_inside(self.root.fd, path, os.O_PATH | os.O_NOFOLLOW, resolve=_RULES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            mode = os.fstat(fd).st_mode
            link = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(mode) else b""
        finally:
            os.close(fd)
        return walk.Found("directory" if stat.S_ISDIR(mode) else "other", 0, 0, 0, link)

    # Attributes

    def imply(self, directory: Directory) -> None:
        """Give a directory the attributes of one that no layer describes."""
        os.fchown(directory.fd, self._idmap.base, self._idmap.base)
        # Nobody is to meet a setuid file that is not verified yet: the root opens up at the very end.
        os.fchmod(directory.fd, IMPLIED_MODE if directory.path else 0o700)
        clear_xattrs(directory.fd)
        self.remember_time(directory, IMPLIED_TIME)
        if self._notes:
            self._notes.implied(directory.path, IMPLIED_MODE, IMPLIED_TIME)

    def remember_time(self, directory: Directory, mtime: int) -> None:
        """Set the directory's time at the end, as every new entry changes it."""
        self._times[directory.inode] = (directory.path, mtime)

    def removed(self, inode: int) -> None:
        """Take note that a directory is no more."""
        self._times.pop(inode, None)

    def set_times(self) -> None:
        """Give every directory its time; `Refused` when one is not where it was made."""
        for inode, (path, mtime) in self._times.items():
            if not path:
                continue
            directory = self._direct(path)
            try:
                if directory.inode != inode:
                    raise Refused("a directory was replaced while it was being unpacked", where=shown(path))
                os.utime(directory.fd, ns=(mtime, mtime))
            finally:
                os.close(directory.fd)
        mtime = self._times[self.root.inode][1]
        os.utime(self.root.fd, ns=(mtime, mtime))


def clear_xattrs(fd: int) -> None:
    """Remove the extended attributes that a lower layer may have set; those of the host's own stay."""
    for name in os.listxattr(fd):
        if name.startswith("user."):
            os.removexattr(fd, name)
