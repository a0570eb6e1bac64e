"""The data of a service as a tar stream, and back: owners are ids of the container, so that any host can have them.

Written are directories, files, hard links, symlinks and fifos, with modes, times, holes and the extended attributes
that go along (`owned_xattrs`). Read is only what is written here: each member behind its directory, nothing twice,
everything below one directory whose name no member can leave. Names are followed one at a time, by descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from appbox import owned_xattrs
from appbox.errors import AppboxError, Refused
from appbox.host import syscalls
from appbox.host.facts import IdRange
from appbox.oci import limits, tar_header
from appbox.oci.sparse import SEGMENTS
from appbox.oci.tar import Archive, Kind, Member
from appbox.store import files

_CHUNK: Final = 1 << 20
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LEFT_OUT: Final = {stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(slots=True)
class DataReader:
    """The volumes below the open data directory `fd`, whose owners have ids of `ids`.

    `left_out` says after a pass what no archive of data holds: sockets, which live as long as their process, and
    devices, which are the host's.
    """

    fd: int
    ids: IdRange
    left_out: list[str] = field(default_factory=list)
    _maps: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    _seen: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def blocks(self) -> Iterator[bytes]:
        """Yield the archive; the same bytes each time, as long as the data stays the same."""
        self.left_out, self._seen = [], {}
        for name in sorted(map(os.fsencode, os.listdir(self.fd))):
            if name.startswith(b"."):
                continue  # unfinished ones, and notes of appbox
            if stat.S_ISDIR(os.lstat(name, dir_fd=self.fd).st_mode):
                yield from self._directory(self.fd, name, name, 1)
            else:
                self.left_out.append(f"{os.fsdecode(name)} (no volume)")
        yield tar_header.END

    def _directory(self, parent: int, leaf: bytes, path: bytes, depth: int) -> Iterator[bytes]:
        if depth > limits.DEPTH:
            raise AppboxError(f"is more than {limits.DEPTH} directories deep", where=os.fsdecode(path))
        with files.directory(leaf, parent) as fd:
            info = os.fstat(fd)
            yield self._header(Kind.DIRECTORY, path + b"/", info, more=self._xattrs(fd))
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                yield from self._entry(fd, name, path + b"/" + name, depth)

    def _entry(self, parent: int, leaf: bytes, path: bytes, depth: int) -> Iterator[bytes]:
        info = os.lstat(leaf, dir_fd=parent)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFDIR:
            yield from self._directory(parent, leaf, path, depth + 1)
        elif kind in _LEFT_OUT:
            self.left_out.append(f"{os.fsdecode(path)} ({_LEFT_OUT[kind]})")
        elif (first := self._seen.get((info.st_dev, info.st_ino))) is not None:
            yield self._header(Kind.HARDLINK, path, info, link=first)
        else:
            if info.st_nlink > 1:
                self._seen[info.st_dev, info.st_ino] = path
            if kind == stat.S_IFLNK:
                yield self._header(Kind.SYMLINK, path, info, link=os.fsencode(os.readlink(leaf, dir_fd=parent)))
            elif kind == stat.S_IFIFO:
                yield self._header(Kind.FIFO, path, info)
            else:
                yield from self._file(parent, leaf, path)

    def _file(self, parent: int, leaf: bytes, path: bytes) -> Iterator[bytes]:
        fd = os.open(leaf, _READ, dir_fd=parent)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise _changed(path)
            segments = self._segments(fd, info)
            xattrs = self._xattrs(fd)
            if segments is None:
                yield self._header(Kind.FILE, path, info, info.st_size, more=xattrs)
                yield from _content(fd, path, [(0, info.st_size)])
                return
            table = tar_header.sparse_map(segments, info.st_size)
            size = len(table) + sum(length for _, length in segments)
            more = [*tar_header.sparse_records(path, info.st_size), *xattrs]
            yield self._header(Kind.FILE, b"GNUSparseFile.0/" + path[-64:], info, size, more=more) + table
            yield from _content(fd, path, segments)
        finally:
            os.close(fd)

    def _segments(self, fd: int, info: os.stat_result) -> list[tuple[int, int]] | None:
        """Return where a file with holes has data; None for one without, or with too many.

        They are looked for once: what the file system calls a hole may change while the bytes stay the same.
        """
        key = (info.st_dev, info.st_ino)
        if key not in self._maps and info.st_blocks * 512 < info.st_size:
            self._maps[key] = list(_data(fd, info.st_size))
        found = self._maps.get(key)
        return None if found is None or len(found) > SEGMENTS - 1 else found

    def _xattrs(self, fd: int) -> list[tuple[bytes, bytes]]:
        try:
            names = [name for name in os.listxattr(fd) if owned_xattrs.kept(name)]
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return []
            raise
        values = [(name, owned_xattrs.shifted(name, os.getxattr(fd, name), self._inside)) for name in sorted(names)]
        return [(tar_header.XATTR + os.fsencode(name), value) for name, value in values]

    def _header(  # noqa: PLR0917
        self,
        kind: Kind,
        path: bytes,
        info: os.stat_result,
        size: int = 0,
        link: bytes = b"",
        more: Iterable[tuple[bytes, bytes]] = (),
    ) -> bytes:
        try:
            owner = self._inside(info.st_uid), self._inside(info.st_gid)
        except Refused as error:
            raise AppboxError(
                f"belongs to {info.st_uid}:{info.st_gid}, who is nobody in the service",
                where=os.fsdecode(path),
                hint=f"chown it to ids from {self.ids.base} on, or move it away",
            ) from error
        mode = stat.S_IMODE(info.st_mode)
        return tar_header.header(kind, path, mode, owner, size, info.st_mtime_ns, link, more)

    def _inside(self, number: int) -> int:
        """Return what an id of the host is called in the container."""
        if not self.ids.base <= number < self.ids.end:
            raise Refused(f"the id {number} is none of the service's")
        return number - self.ids.base


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < at:
            yield start, at - start


def _content(fd: int, path: bytes, segments: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Yield what a file has at the segments, and padding."""
    total = 0
    for start, length in segments:
        at, end = start, start + length
        while at < end:
            block = os.pread(fd, min(_CHUNK, end - at), at)
            if not block:
                raise _changed(path)
            at += len(block)
            yield block
        total += length
    if rest := tar_header.padding(total):
        yield rest


def _changed(path: bytes) -> AppboxError:
    return AppboxError("changed while it was read", where=os.fsdecode(path), hint="stop the service and try again")


def check(blocks: Iterable[bytes], size: int) -> frozenset[str]:
    """Read an archive of data for a service that has `size` ids, and return the names of its volumes.

    Raises Refused unless `write` would take it.
    """
    return _Writer(None, IdRange(0, size)).run(blocks)


def write(blocks: Iterable[bytes], fd: int, ids: IdRange) -> frozenset[str]:
    """Write an archive of data into the open and empty directory `fd`, for the host's ids; return the volumes."""
    return _Writer(fd, ids).run(blocks)


@dataclass(slots=True)
class _Folder:
    """A directory that is being filled; `fd` is -1 where nothing is written."""

    name: bytes
    fd: int
    member: Member


class _Writer:
    """Takes an archive; `top` None: only looks at it."""

    def __init__(self, top: int | None, ids: IdRange) -> None:
        self._top, self._ids = top, ids
        self._stack: list[_Folder] = []
        self._volumes: set[str] = set()
        self._linkable: set[bytes] = set()
        self._names: list[set[bytes]] = [set()]

    def run(self, blocks: Iterable[bytes]) -> frozenset[str]:
        archive, entries = Archive(blocks, limits.Limits().size), 0
        try:
            for member in archive:
                entries += 1
                if entries > limits.Limits().entries:
                    raise Refused(f"the data has more than {limits.Limits().entries} entries")
                self._take(member, archive)
            self._leave(0)
        finally:
            for folder in self._stack:
                if folder.fd >= 0:
                    os.close(folder.fd)
        return frozenset(self._volumes)

    def _take(self, member: Member, archive: Archive) -> None:
        parts = _parts(member)
        shared = 0
        while shared < min(len(self._stack), len(parts) - 1) and self._stack[shared].name == parts[shared]:
            shared += 1
        if shared != len(parts) - 1:
            raise _refused(member, "comes before its directory")
        self._leave(shared)
        if parts[-1] in self._names[-1]:
            raise _refused(member, "is there twice")
        self._names[-1].add(parts[-1])
        for number in (member.uid, member.gid):
            if not 0 <= number < self._ids.size:
                raise _refused(member, f"belongs to the id {number}, and the service has {self._ids.size}")
        if not self._stack:
            self._volume(member, parts[0])
        if member.kind is Kind.DIRECTORY:
            self._enter(member, parts[-1])
        elif member.kind is Kind.FILE:
            self._file(member, parts, archive)
        elif member.kind is Kind.HARDLINK:
            self._hard_link(member, parts[-1])
        elif member.kind in (Kind.SYMLINK, Kind.FIFO):
            self._node(member, parts)
        else:
            raise _refused(member, f"is a {member.kind.value}")

    def _volume(self, member: Member, name: bytes) -> None:
        if member.kind is not Kind.DIRECTORY or name.startswith(b".") or not name.isascii():
            raise _refused(member, "is no volume")
        self._volumes.add(os.fsdecode(name))

    @property
    def _here(self) -> int:
        """The directory that is being filled; only while something is written."""
        return self._stack[-1].fd if self._stack else self._top if self._top is not None else -1

    def _enter(self, member: Member, name: bytes) -> None:
        self._xattrs_of(member)
        fd = -1
        if self._top is not None:
            os.mkdir(name, 0o700, dir_fd=self._here)
            fd = os.open(name, _FOLDER, dir_fd=self._here)
        self._stack.append(_Folder(name, fd, member))
        self._names.append(set())

    def _leave(self, depth: int) -> None:
        """Finish directories: their attributes come last, or filling them would change them again."""
        while len(self._stack) > depth:
            folder = self._stack[-1]
            if folder.fd >= 0:
                self._attributes(folder.fd, folder.member)
                os.close(folder.fd)
            self._stack.pop()
            self._names.pop()

    def _file(self, member: Member, parts: tuple[bytes, ...], archive: Archive) -> None:
        self._linkable.add(b"/".join(parts))
        self._xattrs_of(member)
        segments = member.sparse.segments if member.sparse else ((0, member.size),)
        if self._top is None:
            return
        fd = os.open(parts[-1], _WRITE, 0o600, dir_fd=self._here)
        try:
            pieces = (memoryview(block)[start:end] for block, start, end in archive.data())
            _fill(fd, pieces, segments)
            os.ftruncate(fd, member.sparse.size if member.sparse else member.size)
            self._attributes(fd, member)
        finally:
            os.close(fd)

    def _hard_link(self, member: Member, name: bytes) -> None:
        if member.link not in self._linkable:
            raise _refused(member, "is a link to no file of this archive")
        if self._top is None:
            return
        *folders, leaf = member.link.split(b"/")
        with contextlib.ExitStack() as stack:
            fd = self._top
            for folder in folders:
                fd = stack.enter_context(files.directory(folder, fd))
            os.link(leaf, name, src_dir_fd=fd, dst_dir_fd=self._here, follow_symlinks=False)

    def _node(self, member: Member, parts: tuple[bytes, ...]) -> None:
        self._linkable.add(b"/".join(parts))
        link = member.kind is Kind.SYMLINK
        if link and not 0 < len(member.link) <= limits.PATH:
            raise _refused(member, "is a link to nowhere")
        if self._top is None:
            return
        name, here = parts[-1], self._here
        if link:
            os.symlink(member.link, name, dir_fd=here)
        else:
            os.mkfifo(name, 0o600, dir_fd=here)
        uid, gid = self._ids.base + member.uid, self._ids.base + member.gid
        os.chown(name, uid, gid, dir_fd=here, follow_symlinks=False)
        if not link:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            try:
                syscalls.fchmod_path(fd, member.mode)
            finally:
                os.close(fd)
        os.utime(name, ns=(member.mtime, member.mtime), dir_fd=here, follow_symlinks=False)

    def _attributes(self, fd: int, member: Member) -> None:
        """Owner, mode, xattrs, times: in the order in which none of them undoes another."""
        os.fchown(fd, self._ids.base + member.uid, self._ids.base + member.gid)
        os.fchmod(fd, member.mode)
        for name, value in self._xattrs_of(member):
            os.setxattr(fd, name, value)
        os.utime(fd, ns=(member.mtime, member.mtime))

    def _xattrs_of(self, member: Member) -> list[tuple[str, bytes]]:
        found = []
        for key, value in member.records:
            if not key.startswith(tar_header.XATTR):
                continue
            name = os.fsdecode(key[len(tar_header.XATTR) :])
            fits = len(os.fsencode(name)) <= limits.XATTR_NAME and len(value) <= limits.XATTR_VALUE
            if not fits or not owned_xattrs.kept(name):
                raise _refused(member, f"has the attribute {name[:100]!r}")
            found.append((name, owned_xattrs.shifted(name, value, self._outside)))
        return found

    def _outside(self, number: int) -> int:
        """Return what an id of the container is called on this host."""
        if not 0 <= number < self._ids.size:
            raise Refused(f"an attribute of the data names the id {number}, and the service has {self._ids.size}")
        return self._ids.base + number


def _fill(fd: int, pieces: Iterable[memoryview], segments: Iterable[tuple[int, int]]) -> None:
    """Write a member's bytes to where they belong."""
    places = iter(segments)
    at, left = next(places, (0, 0))
    for piece in pieces:
        rest = piece
        while rest:
            if not left:
                at, left = next(places)
            count = os.pwrite(fd, rest[:left], at)
            at, left, rest = at + count, left - count, rest[count:]


def _parts(member: Member) -> tuple[bytes, ...]:
    """Return the components of a member's name: relative, and none that leads elsewhere."""
    name = member.name[:-1] if member.kind is Kind.DIRECTORY and member.name.endswith(b"/") else member.name
    parts = tuple(name.split(b"/"))
    if len(parts) > limits.DEPTH or any(p in (b"", b".", b"..") or len(p) > limits.NAME for p in parts):
        raise _refused(member, "has a name that no file can have here")
    return parts


def _refused(member: Member, why: str) -> Refused:
    return Refused("the archive's data is refused", where=os.fsdecode(member.name[:200]), why=f"it {why}")
