"""The fields of a tar header block: numbers, texts and the checksum. Bytes in, values out."""

from __future__ import annotations

import functools
import struct
from typing import Final
from zlib import adler32

from appbox.errors import Refused

# name mode uid gid size mtime checksum type link magic version uname gname major minor prefix, 12 bytes of padding
LAYOUT: Final = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_CHECKSUM: Final = slice(148, 156)

MAX_SECONDS: Final = 2**62
"""Times are clamped to what a 64-bit time_t can count; the kernel then clamps to what the file system can hold."""


def is_intact(header: bytes) -> bool:
    """Tell whether the checksum is right: the sum of all bytes, those of the field itself counted as spaces.

    adler32's lower half is 1 plus the sum modulo 65521, exact for 256 bytes, and six times faster than sum().
    """
    total = (adler32(header[:256]) & 0xFFFF) + (adler32(header[256:]) & 0xFFFF) - 2
    total += 8 * 0x20 - sum(header[_CHECKSUM])
    claimed = number("checksum", header[_CHECKSUM])
    if claimed == total:
        return True
    # Some old tars summed signed characters; POSIX asks readers to know that.
    outside = header[:148] + header[156:]
    return claimed == total - 256 * sum(byte > 0x7F for byte in outside)


def number(key: str, field: bytes) -> int:
    """Return a numeric field: octal digits between spaces and NULs, or GNU's base-256 when the first bit is set."""
    first = field[0]
    if first & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if first & 0x40 else value
    text = field.strip(b" \0")
    if not text:
        return 0
    # int() alone would also take signs, underscores and spaces.
    if text.translate(None, b"01234567"):
        raise Refused(f"the {key} of a tar header is not a number", why=repr(field))
    return int(text, 8)


@functools.lru_cache(1024)  # owners and modes are the same few, a million times
def positive(key: str, field: bytes) -> int:
    """Return a numeric field that may not be negative."""
    value = number(key, field)
    if value < 0:
        raise Refused(f"the {key} of a tar header is negative", why=str(value))
    return value


def clamp(seconds: int) -> int:
    """Return a time within what a 64-bit time_t can count."""
    return max(-MAX_SECONDS, min(seconds, MAX_SECONDS))


def text(field: bytes) -> bytes:
    """Return the field up to its NUL, or all of it."""
    return field.partition(b"\0")[0]
