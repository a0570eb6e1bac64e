"""A tar archive of images, read in place. Not here: layers, which have a tar format of their own.

Nothing is extracted: one pass over the headers notes where each file lies. What tools write into such archives is plain
(ustar, or PAX and GNU headers for long names and sizes), so anything else is refused rather than guessed at: a bad
checksum, a name twice, a file that ends behind the archive. Links lead to other members or nowhere.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from appbox.errors import Refused
from appbox.oci.expand import open_expanded

ENTRY_LIMIT = 65536  # headers; an image has a blob for each layer, and layers are few
_BLOCK = 512
_HEADER_LIMIT = 1 << 20  # bytes of a PAX or long-name header
_HEADERS_LIMIT = 16 << 20  # bytes of all of those: a few KB where names are long; a bomb would fill memory with names
_REGULAR, _LINKS, _IGNORED, _EXTENDED = b"0\0" + b"7", b"12", b"3456", b"xgLK"
_HARD_LINK, _NO_DATA = b"1", _LINKS + _IGNORED
LINK_LIMIT: Final = 8  # links on the way to a file; what `docker save` writes has one
_DECIMAL = re.compile(r"[0-9]{1,19}")
_OCTAL = re.compile(rb" *([0-7]{1,12})[ \0]*")


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a file lies in an archive."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Overrides:
    """What extended headers said about the entry that follows them."""

    name: str = ""
    link: str = ""
    size: int = -1


class Archive:
    """The files of the archive at `where`, open until `close`.

    A compressed one needs space in the directory `scratch` while it is open: it is read by position, so it is
    decompressed once, to a file without a name.
    """

    def __init__(self, path: str, scratch: str) -> None:
        self.where = path
        self._stream = open_expanded(path, scratch)
        try:
            self._files, self._links = _scan(self._stream, path)
        except BaseException:
            self._stream.close()
            raise

    def open(self, path: str) -> BinaryIO | None:
        """Return a reader of one file; None when the archive has no such file."""
        extent = self._files.get(self.target(path))
        if extent is None:
            return None
        return io.BufferedReader(Window(self._stream.fileno(), extent), 1 << 16)

    def target(self, path: str) -> str:
        """Return the name of the member that `path` leads to through links; whether there is one is another question.

        Links that leave the archive, or lead nowhere in a circle, are refused.
        """
        start = path
        for _ in range(LINK_LIMIT):
            if path not in self._links:
                return path
            path = posixpath.normpath(self._links[path])
            if path == ".." or path.startswith(("../", "/")):
                raise Refused("a link leads out of the archive", where=self.where, why=repr(start[:200]))
        raise Refused(f"a file is behind more than {LINK_LIMIT} links", where=self.where, why=repr(start[:200]))

    def close(self) -> None:
        """Close the archive; readers that are still open fail from then on."""
        self._stream.close()


class Window(io.RawIOBase):
    """A part of a file as a file of its own; several may be read at once, since none moves the file's position."""

    def __init__(self, fd: int, extent: Extent) -> None:
        self._fd, self._extent, self._position = fd, extent, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._extent.size - self._position)
        if wanted <= 0:
            return 0
        count = os.preadv(self._fd, [memoryview(buffer)[:wanted]], self._extent.offset + self._position)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._extent.size}[whence]
        if base + offset < 0:
            raise ValueError("negative position")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position


def _scan(stream: BinaryIO, where: str) -> tuple[dict[str, Extent], dict[str, str]]:
    """Return where each regular file lies and where each link leads, under names without a leading "./"."""
    total = os.fstat(stream.fileno()).st_size
    files: dict[str, Extent] = {}
    links: dict[str, str] = {}
    offset, entries, extended, overrides = 0, 0, 0, _Overrides()
    while True:
        header = _read(stream, offset, _BLOCK, where)
        if not header.strip(b"\0"):
            return files, links  # the end; GNU tar and Go write two such blocks and padding
        entries += 1
        if entries > ENTRY_LIMIT:
            raise Refused(f"the archive has more than {ENTRY_LIMIT} entries", where=where)
        name, size, kind = _header(header, where)
        if kind in _NO_DATA:
            size = 0  # what has no data: POSIX gives the sizes of these types other meanings
        elif kind not in _EXTENDED and overrides.size >= 0:
            size = overrides.size
        data = offset + _BLOCK
        offset = data + -(-size // _BLOCK) * _BLOCK
        if data + size > total:
            raise Refused("the archive is truncated", where=where, why=f"{name[:200]!r} ends behind its end")
        if kind in _EXTENDED:
            extended += size
            if extended > _HEADERS_LIMIT:
                raise Refused(f"the archive has more than {_HEADERS_LIMIT} bytes of extended headers", where=where)
            overrides = _extended(stream, Extent(data, size), kind, overrides, where)
            continue
        clean = (overrides.name or name).removeprefix("./")
        if clean in files or clean in links:
            raise Refused("the archive has a file twice", where=where, why=repr(clean[:200]))
        if kind in _REGULAR:
            files[clean] = Extent(data, size)
        elif kind in _LINKS:
            link = overrides.link or _text(header[157:257])
            # A hard link names a member, a symlink a path from its own directory.
            links[clean] = link if kind == _HARD_LINK else posixpath.join(posixpath.dirname(clean), link)
        elif kind not in _IGNORED:
            raise Refused(
                "the archive has an entry of an unknown type", where=where, why=f"{clean[:200]!r} is {kind!r}"
            )
        overrides = _Overrides()


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _header(header: bytes, where: str) -> tuple[str, int, bytes]:
    """Return name, size and type of a header whose checksum holds (POSIX.1-2017, pax, "ustar Interchange Format")."""
    blank = header[:148] + b" " * 8 + header[156:]
    if _number(header[148:156], where) != sum(blank):
        raise Refused("this is not a tar archive, or it is damaged", where=where, why="a header has a wrong checksum")
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        name = f"{prefix}/{name}"
    return name, _number(header[124:136], where), header[156:157]


def _number(raw: bytes, where: str) -> int:
    """Return a numeric field: octal digits, or GNU's base 256."""
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    match = _OCTAL.fullmatch(raw)
    if match is None:
        raise Refused("this is not a tar archive, or it is damaged", where=where, why="a header has no valid number")
    return int(match.group(1), 8)


def _extended(stream: BinaryIO, extent: Extent, kind: bytes, overrides: _Overrides, where: str) -> _Overrides:
    """Return what a PAX or GNU header sets for the next entry."""
    if extent.size > _HEADER_LIMIT:
        raise Refused(f"the archive has a header of more than {_HEADER_LIMIT} bytes", where=where)
    data = _read(stream, extent.offset, extent.size, where)
    if kind == b"L":
        return replace(overrides, name=_text(data))
    if kind == b"K":
        return replace(overrides, link=_text(data))
    if kind != b"x":
        return overrides  # global headers say nothing about where a file lies
    records = _pax(data, where)
    if any(key.startswith("GNU.sparse.") for key in records):
        raise Refused("the archive has a sparse file", where=where)
    if not _DECIMAL.fullmatch(records.get("size", "0")):
        raise Refused("the archive has a header with a malformed size", where=where)
    return _Overrides(
        name=records.get("path", overrides.name),
        link=records.get("linkpath", overrides.link),
        size=int(records.get("size", overrides.size)),
    )


def _pax(data: bytes, where: str) -> dict[str, str]:
    """Return the records "LENGTH KEY=VALUE\\n" of a PAX header."""
    records: dict[str, str] = {}
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 21].partition(b" ")
        end = at + int(digits) if space and digits.isdigit() else 0
        if not at < end <= len(data) or data[end - 1] != ord("\n"):
            raise Refused("the archive has a malformed PAX header", where=where)
        key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
        if not equals:
            raise Refused("the archive has a malformed PAX header", where=where)
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at = end
    return records


def _read(stream: BinaryIO, offset: int, size: int, where: str) -> bytes:
    data = os.pread(stream.fileno(), size, offset)
    if len(data) != size:
        raise Refused("the archive is truncated", where=where, why=f"it ends at byte {offset + len(data)}")
    return data
