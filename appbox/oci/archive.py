"""A tar archive of an OCI image layout, read in place. Not here: layers, which have a tar format of their own.

Nothing is extracted: one pass over the headers notes where each file lies. What tools write into such archives is plain
(ustar, or PAX and GNU headers for long names and sizes), so anything else is refused rather than guessed at: a bad
checksum, a name twice, a file that ends behind the archive.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from typing import BinaryIO

from appbox.errors import Refused, Unavailable
from appbox.oci.cache import open_regular

ENTRY_LIMIT = 65536  # headers; an image has a blob for each layer, and layers are few
_BLOCK = 512
_HEADER_LIMIT = 1 << 20  # bytes of a PAX or long-name header
_REGULAR, _IGNORED, _EXTENDED = b"0\0" + b"7", b"123456", b"xgLK"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_DECIMAL = re.compile(r"[0-9]{1,19}")
_OCTAL = re.compile(rb" *([0-7]{1,12})[ \0]*")


@dataclass(frozen=True, slots=True)
class _Extent:
    offset: int
    size: int


class Archive:
    """The files of the archive at `where`, open until `close`."""

    def __init__(self, path: str) -> None:
        self.where = path
        try:
            stream = open_regular(path, follow=True)
        except OSError as error:
            raise Unavailable("cannot be read", where=path, why=error.strerror or str(error)) from error
        if stream is None:
            raise Unavailable("no OCI archive", where=path, why="there is no regular file of that name")
        self._stream = stream
        try:
            self._files = _scan(stream, path)
        except BaseException:
            stream.close()
            raise

    def open(self, path: str) -> BinaryIO | None:
        """Return a reader of one file; None when the archive has no such file."""
        extent = self._files.get(path)
        if extent is None:
            return None
        return io.BufferedReader(_Window(self._stream.fileno(), extent), 1 << 16)

    def close(self) -> None:
        """Close the archive; readers that are still open fail from then on."""
        self._stream.close()


class _Window(io.RawIOBase):
    """A part of a file as a file of its own; several may be read at once, since none moves the file's position."""

    def __init__(self, fd: int, extent: _Extent) -> None:
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


def _scan(stream: BinaryIO, where: str) -> dict[str, _Extent]:
    """Return where each regular file lies, under its name without a leading "./"."""
    total = os.fstat(stream.fileno()).st_size
    files: dict[str, _Extent] = {}
    offset, entries, name_override, size_override = 0, 0, "", -1
    while True:
        header = _read(stream, offset, _BLOCK, where)
        if not header.strip(b"\0"):
            return files  # the end; GNU tar and Go write two such blocks and padding
        entries += 1
        if entries > ENTRY_LIMIT:
            raise Refused(f"the archive has more than {ENTRY_LIMIT} entries", where=where)
        name, size, kind = _header(header, where)
        size = size if size_override < 0 or kind in _EXTENDED else size_override
        data = offset + _BLOCK
        offset = data + -(-size // _BLOCK) * _BLOCK
        if data + size > total:
            raise Refused("the archive is truncated", where=where, why=f"{name[:200]!r} ends behind its end")
        if kind in _EXTENDED:
            name_override, size_override = _extended(
                stream, _Extent(data, size), kind, (name_override, size_override), where
            )
            continue
        _note(files, name_override or name, kind, _Extent(data, size), where)
        name_override, size_override = "", -1


def _note(files: dict[str, _Extent], name: str, kind: bytes, extent: _Extent, where: str) -> None:
    if kind in _REGULAR:
        clean = name.removeprefix("./")
        if clean in files:
            raise Refused("the archive has a file twice", where=where, why=repr(clean[:200]))
        files[clean] = extent
    elif kind not in _IGNORED:
        raise Refused("the archive has an entry of an unknown type", where=where, why=f"{name[:200]!r} is {kind!r}")


def _header(header: bytes, where: str) -> tuple[str, int, bytes]:
    """Return name, size and type of a header whose checksum holds (POSIX.1-2017, pax, "ustar Interchange Format")."""
    if header[:2] == _GZIP or header[:4] == _ZSTD:
        raise Refused("the archive is compressed", where=where, hint="decompress it first")
    blank = header[:148] + b" " * 8 + header[156:]
    if _number(header[148:156], where) != sum(blank):
        raise Refused("this is not a tar archive, or it is damaged", where=where, why="a header has a wrong checksum")
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape"), _number(header[124:136], where), header[156:157]


def _number(raw: bytes, where: str) -> int:
    """Return a numeric field: octal digits, or GNU's base 256."""
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    match = _OCTAL.fullmatch(raw)
    if match is None:
        raise Refused("this is not a tar archive, or it is damaged", where=where, why="a header has no valid number")
    return int(match.group(1), 8)


def _extended(
    stream: BinaryIO, extent: _Extent, kind: bytes, overrides: tuple[str, int], where: str
) -> tuple[str, int]:
    """Return name and size that a PAX or GNU header sets for the next entry."""
    if extent.size > _HEADER_LIMIT:
        raise Refused(f"the archive has a header of more than {_HEADER_LIMIT} bytes", where=where)
    data = _read(stream, extent.offset, extent.size, where)
    name, size = overrides
    if kind == b"L":
        return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"), size
    if kind != b"x":
        return overrides  # global headers and link targets say nothing about where a file lies
    records = _pax(data, where)
    if any(key.startswith("GNU.sparse.") for key in records):
        raise Refused("the archive has a sparse file", where=where)
    if not _DECIMAL.fullmatch(records.get("size", "0")):
        raise Refused("the archive has a header with a malformed size", where=where)
    return records.get("path", name), int(records.get("size", size))


def _pax(data: bytes, where: str) -> dict[str, str]:
    """Return the records "LENGTH KEY=VALUE\\n" of a PAX header."""
    records: dict[str, str] = {}
    while data:
        digits, space, _ = data[:21].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        if not length <= len(data) or not equals or data[length - 1 : length] != b"\n":
            raise Refused("the archive has a malformed PAX header", where=where)
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return records


def _read(stream: BinaryIO, offset: int, size: int, where: str) -> bytes:
    data = os.pread(stream.fileno(), size, offset)
    if len(data) != size:
        raise Refused("the archive is truncated", where=where, why=f"it ends at byte {offset + len(data)}")
    return data
