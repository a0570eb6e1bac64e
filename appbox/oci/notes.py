"""What the unpacker made, told to a `Recorder` as the disk has it: the host's ids, kept attributes, times as held."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

from appbox.oci import create, xattrs
from appbox.oci.ids import IdMap
from appbox.oci.layer import Entry
from appbox.oci.recorder import Recorder
from appbox.oci.tar import Kind

if TYPE_CHECKING:
    from hashlib import _Hash

_EVERYWHERE: Final = range(2**31 * 10**9)
"""Times, in nanoseconds, that every file system with nanoseconds can hold; others are clamped by the kernel."""


class Notes:
    """Takes note for `recorder` of what is made below `root_fd`. Paths are free of symlinks."""

    def __init__(self, recorder: Recorder, root_fd: int, idmap: IdMap) -> None:
        self._recorder = recorder
        self._idmap = idmap
        self._exact = _keeps_nanoseconds(root_fd)
        self.removed = recorder.removed
        self.linked = recorder.linked

    def hasher(self) -> _Hash:
        """Return what is to be told the content of a file."""
        return hashlib.sha256(usedforsecurity=False)

    def made(self, dir_fd: int, path: bytes, entry: Entry, content: _Hash | None, *, empty: bool = False) -> None:
        """Note what was made under the entry's name in `dir_fd`; `empty`: a device that became an empty file."""
        mtime = self._time(entry, dir_fd)
        uid, gid = create.owner(entry, self._idmap)
        if entry.kind is Kind.SYMLINK:
            self._recorder.symlink(path, uid, gid, mtime, entry.link)
        elif content is not None:
            size = entry.sparse.size if entry.sparse is not None else entry.size
            self._recorder.file(path, entry.mode, uid, gid, mtime, size, content.digest(), self._kept(entry))
        elif empty:
            self._recorder.placeholder(path, entry.kind, entry.mode, uid, gid, mtime, entry.major, entry.minor)
        else:
            self._recorder.special(path, entry.kind, entry.mode, uid, gid, mtime, entry.major, entry.minor)

    def directory(self, fd: int, path: bytes, entry: Entry) -> int:
        """Note a directory that the image describes, and return the time that it will have."""
        mtime = entry.mtime
        if mtime not in _EVERYWHERE or not self._exact:
            os.utime(fd, ns=(mtime, mtime))
            mtime = os.fstat(fd).st_mtime_ns
        self._recorder.directory(path, entry.mode, *create.owner(entry, self._idmap), mtime, self._kept(entry))
        return mtime

    def implied(self, path: bytes, mode: int, mtime: int) -> None:
        """Note a directory that no layer describes."""
        self._recorder.directory(path, mode, self._idmap.base, self._idmap.base, mtime)

    def _time(self, entry: Entry, dir_fd: int) -> int:
        if entry.mtime in _EVERYWHERE and self._exact:
            return entry.mtime
        return os.stat(entry.name, dir_fd=dir_fd, follow_symlinks=False).st_mtime_ns

    def _kept(self, entry: Entry) -> tuple[tuple[str, bytes], ...]:
        if not entry.xattrs.kept:
            return ()
        kept = dict(entry.xattrs.kept)
        if xattrs.CAPABILITY in kept:
            value = kept.pop(xattrs.CAPABILITY)
            if entry.kind is Kind.FILE:
                kept[xattrs.CAPABILITY] = xattrs.capability(value, self._idmap.base, self._idmap.size)
        return tuple(kept.items())


def _keeps_nanoseconds(root_fd: int) -> bool:
    """Tell whether the file system holds times as exactly as they are set: ext4 with small inodes does not."""
    before = os.fstat(root_fd)
    os.utime(root_fd, ns=(999_999_999, 999_999_999))
    exact = os.fstat(root_fd).st_mtime_ns == 999_999_999
    os.utime(root_fd, ns=(before.st_atime_ns, before.st_mtime_ns))
    return exact
