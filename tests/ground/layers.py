"""Layers made byte by byte, so that they can be wrong in every way: nothing here checks what it is given."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Iterable, Mapping

from appbox.oci.stream import Layer

END = bytes(1024)
"""The two zero blocks that end an archive."""
OCI = "application/vnd.oci.image.layer.v1.tar"


def padded(data: bytes) -> bytes:
    """Return the data filled up to whole blocks."""
    return data + bytes(-len(data) % 512)


def octal(value: int, width: int) -> bytes:
    """Return a numeric field as most tars write it: zeros in front, a NUL behind."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """Return a numeric field in GNU's binary form, which may be negative."""
    raw = bytearray((value & ((1 << (8 * width - 1)) - 1)).to_bytes(width, "big"))
    raw[0] |= 0x80
    return bytes(raw)


def _field(value: int | bytes, width: int) -> bytes:
    return value.ljust(width, b"\0") if isinstance(value, bytes) else octal(value, width)


def header(
    name: bytes,
    *,
    flag: bytes = b"0",
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    size: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    tail: bytes = b"",
    checksum: int | None = None,
) -> bytes:
    """Return one header block; numbers given as bytes are put in as they are."""
    front = name.ljust(100, b"\0") + _field(mode, 8) + _field(uid, 8) + _field(gid, 8)
    front += _field(size, 12) + _field(mtime, 12)
    back = flag + link.ljust(100, b"\0") + magic.ljust(8, b"\0") + bytes(64)
    back += _field(major, 8) + _field(minor, 8) + prefix.ljust(155, b"\0") + tail.rjust(12, b"\0")
    if len(front) != 148 or len(back) != 356:
        raise ValueError("a field is too long")
    total = sum(front) + 8 * 0x20 + sum(back) if checksum is None else checksum
    return front + b"%06o\0 " % total + back


def file(name: bytes, data: bytes = b"", **fields: object) -> bytes:
    """Return a regular file, or with `flag` anything else that has data."""
    return header(name, **{"size": len(data), **fields}) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes, **fields: object) -> bytes:
    """Return a directory."""
    return header(name, **{"flag": b"5", "mode": 0o755, **fields})  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """Return a symlink."""
    return header(name, **{"flag": b"2", "mode": 0o777, "link": target, **fields})  # type: ignore[arg-type]


def hardlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """Return a hard link."""
    return header(name, **{"flag": b"1", "link": target, **fields})  # type: ignore[arg-type]


def device(name: bytes, major: int | bytes, minor: int | bytes, **fields: object) -> bytes:
    """Return a character device, or with `flag` a block device."""
    return header(name, **{"flag": b"3", "major": major, "minor": minor, **fields})  # type: ignore[arg-type]


def record(key: bytes, value: bytes) -> bytes:
    """Return one record of an extended header."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax(records: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], flag: bytes = b"x") -> bytes:
    """Return an extended header for the member that follows, or with flag g for all."""
    pairs = records.items() if isinstance(records, Mapping) else records
    return file(b"PaxHeaders/x", b"".join(record(key, value) for key, value in pairs), flag=flag)


def long_name(name: bytes, flag: bytes = b"L") -> bytes:
    """Return GNU's long name for the member that follows, or with flag K its long link."""
    return file(b"././@LongLink", name + b"\0", flag=flag, magic=b"ustar  \0")


def archive(*members: bytes) -> bytes:
    """Return a whole archive."""
    return b"".join(members) + END


def digest(data: bytes) -> str:
    """Return the sha256 digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(tar: bytes, compressed: bytes | None = None, media_type: str = OCI) -> Layer:
    """Return a layer of these bytes, with digests that are right."""
    raw = tar if compressed is None else compressed
    return Layer(digest(raw), digest(tar), media_type, len(raw), lambda: io.BytesIO(raw))


def gzip_layer(tar: bytes) -> Layer:
    """Return a gzip layer."""
    return layer(tar, gzip.compress(tar, 1, mtime=0), OCI + "+gzip")


def of(*members: bytes) -> Layer:
    """Return a plain layer with these members."""
    return layer(archive(*members))
