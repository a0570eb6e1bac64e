"""The tar format, read strictly: blocks of bytes in, members and their data out. No effects, and no rules of images.

Read are V7, ustar (POSIX.1-1988), pax (POSIX.1-2001), star and GNU tar's long names, base-256 numbers and sparse
files. An archive that is not whole is an error, never a shorter one: every header must have its checksum, the end must
be two zero blocks, and after them there may only be zeros (tar pads to its record size; anything else would be
content that some tools see and others do not).

Where the standards leave a choice, the one of Go's archive/tar is taken, as nearly all images are written and read by
it: global headers are checked and then ignored, and an empty value in an extended header leaves the plain one valid.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple

from appbox.errors import Refused
from appbox.oci import limits, pax, sparse, tar_fields
from appbox.oci.sparse import Sparse

BLOCK: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK)

Span = tuple[bytes, int, int]
"""A piece of a member's data: `block[start:end]`, not copied."""

_LONG_NAME: Final = 2 * (limits.PATH + 1)
"""Bytes of a GNU long name: the longest path and a generous padding with NUL."""


class Kind(Enum):
    """What a member is."""

    FILE = "file"
    HARDLINK = "hard link"
    SYMLINK = "symlink"
    CHAR = "character device"
    BLOCK = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,  # V7
    b"7": Kind.FILE,  # "contiguous": no file system of Linux knows a difference
    b"S": Kind.FILE,  # GNU sparse
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHAR,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_IGNORED: Final = frozenset((b"g", b"V", b"M"))
"""Global header, volume label, continuation of a member from an earlier volume: none of them makes a file."""


class Member(NamedTuple):
    """One member. A tuple, since a frozen dataclass takes four times as long to make and there may be a million.

    `size` counts the bytes stored in the archive; `mtime` is in nanoseconds since 1970; `name` and `link` are the bytes
    of the archive, unchecked except that they hold no NUL. `records` are those of the member's own extended header.
    """

    kind: Kind
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    major: int
    minor: int
    records: pax.Records
    sparse: Sparse | None


class _Extra(NamedTuple):
    """What extended headers and long names said about the member that follows them."""

    records: pax.Records | None = None
    name: bytes | None = None
    link: bytes | None = None


_NOTHING: Final = _Extra()
_NO_RECORDS: Final[pax.Records] = []


class Archive:
    """Iterates over the members of a tar stream; `data()` yields the bytes of the current one, and may be left early.

    `source` yields non-empty blocks of any size. `largest` bounds the size of a member. Raises `Refused`.
    """

    def __init__(self, source: Iterable[bytes], largest: int) -> None:
        self._source = iter(source)
        self._block = b""
        self._at = 0
        self._passed = 0  # bytes of the blocks before this one
        self._left = 0  # bytes of the current member not yet read
        self._padding = 0
        self._largest = largest

    def __iter__(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            yield member
            self._skip()

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._passed + self._at

    def data(self) -> Iterator[Span]:
        """Yield the rest of the current member's data in pieces, as they lie in the source's blocks."""
        while self._left:
            block, start = self._here()
            end = min(start + self._left, len(block))
            self._at = end
            self._left -= end - start
            yield block, start, end

    def _here(self) -> tuple[bytes, int]:
        """Return the block that holds the next byte, and its place there."""
        while self._at >= len(self._block):
            self._passed += len(self._block)
            self._at = 0
            self._block = b""
            block = next(self._source, None)
            if block is None:
                raise Refused("the tar archive is truncated", why=f"it ends after {self._passed} bytes")
            self._block = block
        return self._block, self._at

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._block):
            piece = self._block[self._at : end]
            self._at = end
            return piece
        pieces = []
        while size:
            block, start = self._here()
            piece = block[start : start + size]
            self._at = start + len(piece)
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _skip(self) -> None:
        """Go to the next header, past what was not read of the data and past its padding."""
        end = self._at + self._left + self._padding
        if end <= len(self._block):
            self._at = end
            self._left = self._padding = 0
            return
        self._left += self._padding
        self._padding = 0
        for _ in self.data():
            pass

    def _next(self) -> Member | None:
        extra = _NOTHING
        for _ in range(limits.EXTENDED_HEADERS + 1):
            header = self._take(BLOCK)
            if not header[0] and header == ZERO_BLOCK:
                self._end(extra)
                return None
            self._verify(header)
            flag = header[156:157]
            kind = _KINDS.get(flag)
            if kind is not None:
                return self._member(kind, header, extra)
            extra = self._meta(flag, header, extra)
        raise Refused("a tar member has too many extended headers", why=f"more than {limits.EXTENDED_HEADERS}")

    def _end(self, extra: _Extra) -> None:
        """Read on to the end: `header` was the first zero block."""
        if extra is not _NOTHING:
            raise Refused("the tar archive ends after an extended header")
        if self._take(BLOCK) != ZERO_BLOCK:
            raise Refused("the tar archive has a lone zero block", why=f"before byte {self.position}")
        rest = self._block[self._at :]
        while True:
            if rest.count(0) != len(rest):
                raise Refused("there is data after the end of the tar archive", why=f"after byte {self.position}")
            following = next(self._source, None)
            if following is None:
                return
            rest = following

    def _verify(self, header: bytes) -> None:
        if not tar_fields.is_intact(header):
            raise Refused("a tar header has a wrong checksum", why=f"before byte {self.position}")

    def _size(self, field: bytes, most: int) -> int:
        size = tar_fields.number("size", field)
        if not 0 <= size <= most:
            raise Refused("a tar member has an absurd size", why=f"{size} bytes, before byte {self.position}")
        return size

    def _no_data(self, field: bytes) -> int:
        """Check the size of a member that has no data, whatever it says."""
        self._size(field, self._largest)
        return 0

    def _open(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _meta(self, flag: bytes, header: bytes, extra: _Extra) -> _Extra:
        """Read a header that makes no file, and return what is then known about the next member."""
        field = header[124:136]
        if flag == b"x":
            _once(extra.records)
            return extra._replace(records=pax.records(self._payload(field, limits.EXTENDED_HEADER)))
        if flag == b"L":
            _once(extra.name)
            return extra._replace(name=_long(self._payload(field, _LONG_NAME)))
        if flag == b"K":
            _once(extra.link)
            return extra._replace(link=_long(self._payload(field, _LONG_NAME)))
        if flag not in _IGNORED:
            raise Refused(f"tar type {flag!r} is not known", where=_shown(header[:100]))
        if flag == b"g":
            pax.records(self._payload(field, limits.EXTENDED_HEADER))
            return extra
        self._open(self._size(field, self._largest))
        self._skip()
        return _NOTHING

    def _payload(self, field: bytes, most: int) -> bytes:
        size = self._size(field, most)
        self._open(size)
        payload = self._take(size)
        self._left = 0
        self._skip()
        return payload

    def _member(self, kind: Kind, header: bytes, extra: _Extra) -> Member:
        """Return the member that `header` and `extra` describe, ready for `data()`."""
        name, mode, uid, gid, size, mtime, _, flag, link, magic, _, _, _, major, minor, prefix = (
            tar_fields.LAYOUT.unpack(header)
        )
        name = tar_fields.text(name)
        if magic == b"ustar\0" and prefix[0]:
            # star has its own fields at the end of the prefix.
            name = tar_fields.text(prefix[:131] if header[508:] == b"tar\0" else prefix) + b"/" + name
        device = kind is Kind.CHAR or kind is Kind.BLOCK
        member = Member(
            kind,
            name,
            tar_fields.text(link) if link[0] else b"",
            tar_fields.positive("mode", mode) & 0o7777,
            tar_fields.positive("uid", uid),
            tar_fields.positive("gid", gid),
            self._size(size, self._largest) if kind is Kind.FILE else self._no_data(size),
            tar_fields.clamp(tar_fields.number("mtime", mtime)) * 10**9,
            tar_fields.positive("major", major) if device else 0,
            tar_fields.positive("minor", minor) if device else 0,
            _NO_RECORDS,
            None,
        )
        if extra is not _NOTHING:
            member = _extended(member, extra)
        if kind is Kind.FILE and member.name[-1:] == b"/":
            if flag != b"\0":
                raise Refused("the name of a file ends in a slash", where=_shown(member.name))
            member = member._replace(kind=Kind.DIRECTORY)  # V7 had no type for them
        return self._stored(member, header if flag == b"S" else b"")

    def _stored(self, member: Member, sparse_header: bytes) -> Member:
        """Open the member's data, and read the map when it is sparse.

        Only files have data: POSIX gives the sizes of the other types other meanings ("ustar Interchange Format").
        """
        if member.kind is not Kind.FILE:
            return member if not member.size else member._replace(size=0)
        if member.size > self._largest:
            raise Refused("a tar member has an absurd size", where=_shown(member.name), why=f"{member.size} bytes")
        self._open(member.size)
        if sparse_header:
            return self._old_sparse(member, sparse_header)
        if member.records and any(key.startswith(b"GNU.sparse.") for key, _ in member.records):
            return self._pax_sparse(member)
        return member

    def _old_sparse(self, member: Member, header: bytes) -> Member:
        """Read the map of a member of type S: in its header, and in blocks between that and the data."""
        numbers = _map_fields(header, *sparse.OLD_HEADER)
        more = header[482]
        while more:
            block = self._take(BLOCK)
            numbers += _map_fields(block, *sparse.OLD_EXTENSION)
            more = block[504]
            if len(numbers) > 2 * sparse.SEGMENTS:
                raise Refused("the map of a sparse file is too long", where=_shown(member.name))
        size = self._size(header[483:495], self._largest)
        return member._replace(sparse=sparse.build(numbers, size, member.size))

    def _pax_sparse(self, member: Member) -> Member:
        """Read the map of the PAX forms: in records (0.0, 0.1), or in front of the data (1.0)."""
        found = dict(member.records)
        size = found.get(b"GNU.sparse.realsize", found.get(b"GNU.sparse.size"))
        numbers = sparse.from_records(member.records)
        if found.get(b"GNU.sparse.major") == b"1" and found.get(b"GNU.sparse.minor") == b"0":
            numbers = self._stored_map()
        if size is None or numbers is None:
            raise Refused("a sparse file has no size or no map", where=_shown(member.name))
        real = pax.integer("GNU.sparse.size", size)
        if real > self._largest:
            raise Refused("a tar member has an absurd size", where=_shown(member.name), why=f"{real} bytes")
        # The map's own blocks are part of the size in the header, and have been read by now.
        member = member._replace(size=self._left, name=found.get(b"GNU.sparse.name") or member.name)
        return member._replace(sparse=sparse.build(numbers, real, member.size))

    def _stored_map(self) -> list[int]:
        """Read the map of the PAX form 1.0: decimal lines, the first of them their number, padded to whole blocks."""
        lines: list[bytes] = []
        rest = b""
        wanted = 1
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise Refused("the map of a sparse file is truncated")
            self._left -= BLOCK
            *whole, rest = (rest + self._take(BLOCK)).split(b"\n")
            lines += whole
            if lines and wanted == 1:
                wanted = 1 + 2 * min(pax.integer("GNU.sparse.map", lines[0]), sparse.SEGMENTS + 1)
            if len(rest) > BLOCK:
                raise Refused("the map of a sparse file has an endless line")
        return [pax.integer("GNU.sparse.map", line) for line in lines[1:wanted]]


def _long(payload: bytes) -> bytes:
    text = payload.rstrip(b"\0")
    if b"\0" in text:
        raise Refused("NUL in a long name of a tar archive", where=_shown(text))
    return text


def _once(earlier: object) -> None:
    if earlier is not None:
        raise Refused("a tar member has two extended headers of the same type")


def _shown(name: bytes) -> str:
    return os.fsdecode(tar_fields.text(name)[:200])


def _map_fields(block: bytes, start: int, count: int) -> list[int]:
    end = start + 24 * count
    return [tar_fields.positive("sparse map", block[at : at + 12]) for at in range(start, end, 12)]


def _extended(member: Member, extra: _Extra) -> Member:
    """Return the member with what its extended headers say."""
    records = extra.records or _NO_RECORDS
    found = {key: value for key, value in records if value}
    if (extra.name and b"path" in found) or (extra.link and b"linkpath" in found):
        raise Refused("a tar member has two long names", where=_shown(member.name))
    mtime = member.mtime
    if b"mtime" in found:
        mtime = pax.nanoseconds("mtime", found[b"mtime"])
        mtime = tar_fields.clamp(mtime // 10**9) * 10**9 + mtime % 10**9
    return member._replace(
        name=found.get(b"path", member.name) if extra.name is None else extra.name,
        link=found.get(b"linkpath", member.link) if extra.link is None else extra.link,
        uid=_integer(found, "uid", member.uid),
        gid=_integer(found, "gid", member.gid),
        size=_integer(found, "size", member.size),
        mtime=mtime,
        records=records,
    )


def _integer(found: dict[bytes, bytes], key: str, plain: int) -> int:
    value = found.get(key.encode())
    return plain if value is None else pax.integer(key, value)
