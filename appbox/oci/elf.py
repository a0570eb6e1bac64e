"""What the head of an ELF file tells of a program (elf(5)). Pure: bytes in, facts out; it may be short or a lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

HEAD: Final = 64 << 10
"""Bytes from the start of a file that hold its header and its program headers, whatever linked it."""

_MACHINES: Final = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 21: "ppc64le", 22: "s390x", 243: "riscv64"}
_PT_INTERP: Final = 3


@dataclass(frozen=True, slots=True)
class Program:
    """An executable: the architecture as image platforms call it ("" for another), and whether it needs no loader."""

    architecture: str
    static: bool


def program(head: bytes) -> Program | None:
    """Return what the first `HEAD` bytes of a file say, None when it is no executable that Linux loads itself.

    A program that asks for an interpreter (PT_INTERP) needs libraries, which are those of the image it runs in.
    """
    if head[:4] != b"\x7fELF" or head[4:5] not in {b"\1", b"\2"} or head[5:6] not in {b"\1", b"\2"}:
        return None
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    try:
        kind, machine = struct.unpack_from(f"{order}HH", head, 16)
        (offset,) = struct.unpack_from(f"{order}Q" if wide else f"{order}I", head, 32 if wide else 28)
        size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
        kinds = [struct.unpack_from(f"{order}I", head, offset + size * index)[0] for index in range(count)]
    except struct.error:
        return None
    # ET_EXEC and ET_DYN: the second is a static program that may be loaded anywhere, or needs its loader.
    return Program(_MACHINES.get(machine, ""), _PT_INTERP not in kinds) if kind in {2, 3} and kinds else None
