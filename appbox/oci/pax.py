"""Extended headers of POSIX tar: records of keys and values. Bytes in, values out.

The grammar is that of POSIX.1-2017, pax, "pax Extended Header": `length key=value newline`, the length in decimal and
counting itself. Nothing is guessed: a record that is not exactly that is refused.
"""

from __future__ import annotations

import re
from typing import Final

from appbox.errors import Refused

Records = list[tuple[bytes, bytes]]

_LENGTH_DIGITS: Final = 8
"""Digits of a record's length: a header of at most 1 MiB needs seven."""
_INTEGER: Final = re.compile(rb"[0-9]{1,20}")
_TIME: Final = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_TEXT: Final = frozenset((b"path", b"linkpath", b"uname", b"gname", b"GNU.sparse.name"))
"""Keys whose values become names: NUL in one would end the name early for whoever reads it as C does."""


def records(payload: bytes) -> Records:
    """Return the records in order, repetitions included; raise `Refused` when the payload is malformed."""
    found: Records = []
    at = 0
    while at < len(payload):
        space = payload.find(b" ", at, at + _LENGTH_DIGITS + 1)
        digits = payload[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise Refused("an extended tar header has a record without a length")
        end = at + int(digits)
        if not space + 2 < end <= len(payload) or payload[end - 1] != 0x0A:
            raise Refused("an extended tar header has a record of a wrong length")
        found.append(_record(payload[space + 1 : end - 1]))
        at = end
    return found


def _record(body: bytes) -> tuple[bytes, bytes]:
    key, equals, value = body.partition(b"=")
    if not equals or not key or b"\0" in key:
        raise Refused("an extended tar header has a record without a key")
    if key in _TEXT and b"\0" in value:
        raise Refused(f"NUL in the {key.decode()} of an extended tar header")
    return key, value


def integer(key: str, value: bytes) -> int:
    """Return a value that must be a plain decimal number."""
    if not _INTEGER.fullmatch(value):
        raise Refused(f"the {key} of an extended tar header is not a number", why=repr(value[:40]))
    return int(value)


def nanoseconds(key: str, value: bytes) -> int:
    """Return a time in nanoseconds since 1970; digits beyond the ninth are cut off, as time only moves in those."""
    match = _TIME.fullmatch(value)
    if not match:
        raise Refused(f"the {key} of an extended tar header is not a time", why=repr(value[:40]))
    sign, seconds, fraction = match.groups()
    total = int(seconds) * 10**9 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -total if sign else total
