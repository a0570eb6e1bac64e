"""Programs told by the head of their files."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.oci import elf


def head(kinds: tuple[int, ...], *, wide: bool = True, order: str = "<", kind: int = 2, machine: int = 62) -> bytes:
    """Return the head of a file with program headers of these kinds."""
    size = 56 if wide else 32
    start = 64 if wide else 52
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    form = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    values = (kind, machine, 1, 0, start, 0, 0, start, size, len(kinds), 0, 0, 0)
    return (
        ident
        + struct.pack(order + form, *values)
        + b"".join(struct.pack(f"{order}I", k).ljust(size, b"\0") for k in kinds)
    )


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_program_that_asks_for_a_loader_is_not_static(order: str, *, wide: bool) -> None:
    assert elf.program(head((1, 1), wide=wide, order=order)) == elf.Program("amd64", static=True)
    assert elf.program(head((6, 3, 1), wide=wide, order=order)) == elf.Program("amd64", static=False)
    assert elf.program(head((1,), wide=wide, order=order, kind=3, machine=183)) == elf.Program("arm64", static=True)


def test_other_machines_have_no_name() -> None:
    assert elf.program(head((1,), machine=9999)) == elf.Program("", static=True)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF", head((1, 3))[:100], head(()), head((1,), kind=1)])
def test_what_is_no_program(data: bytes) -> None:
    assert elf.program(data) is None


@given(st.binary(max_size=200))
def test_nothing_breaks_it(tail: bytes) -> None:
    for start in (b"\x7fELF\x02\x01", b"\x7fELF\x01\x02"):
        elf.program(start + tail)
