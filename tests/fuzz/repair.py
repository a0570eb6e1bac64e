"""Makes mutated bytes well-formed again where mutation always breaks them, so that what lies behind is reached too.

Written apart from the product: a checksum or a length that both got wrong in the same way would prove nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_LINES = re.compile(rb"[0-9]* ?([^=\n]*)=([^\n]*)\n?")


def tar(data: bytes) -> bytes:
    """Return an archive with every checksum right, as far as its headers can be followed."""
    mended = bytearray(data)
    for at in headers(data):
        mended[at + 148 : at + 156] = b" " * 8
        mended[at + 148 : at + 156] = b"%06o\0 " % sum(mended[at : at + 512])
    return bytes(mended)


def headers(data: bytes) -> Iterator[int]:
    """Yield where the headers of an archive are: each behind the data of the one before."""
    at = 0
    while at + 512 <= len(data):
        header = data[at : at + 512]
        if not any(header):
            return
        yield at
        more = header[482] if header[156:157] == b"S" else 0
        at += 512
        while more and at + 512 <= len(data):
            more = data[at + 504]
            at += 512
        size = _octal(header[124:136])
        at += size + -size % 512


def _octal(field: bytes) -> int:
    digits = re.match(rb" *([0-7]*)", field)
    return int(digits[1] or b"0", 8) if digits else 0


def pax(data: bytes) -> bytes:
    """Return records with lengths that are right."""
    return b"".join(record(key, value) for key, value in _LINES.findall(data))


def record(key: bytes, value: bytes) -> bytes:
    """Return one record of an extended header (POSIX.1-2017, pax, "pax Extended Header")."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def challenge(scheme: str, parameters: Mapping[str, str]) -> str:
    """Return a challenge as a header has it (RFC 9110, section 11.6.1), every value quoted."""
    escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in parameters.items()}
    return f"{scheme} " + ", ".join(f'{name}="{value}"' for name, value in escaped.items())
