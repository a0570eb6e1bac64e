"""Capabilities of files in words."""

from __future__ import annotations

import struct

import pytest

from appbox.oci.file_capabilities import words


def value(permitted: int, inheritable: int = 0, *, effective: bool = True, root: int | None = None) -> bytes:
    magic = (0x02000000 if root is None else 0x03000000) | effective
    low, high = 0xFFFFFFFF, 32
    sets = (permitted & low, inheritable & low, permitted >> high, inheritable >> high)
    return struct.pack("<IIIII", magic, *sets) + (b"" if root is None else struct.pack("<I", root))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (value(1 << 13), "cap_net_raw=ep"),
        (value(1 << 13, root=1000), "cap_net_raw=ep"),
        (value(1 << 12 | 1 << 13, effective=False), "cap_net_admin,cap_net_raw=p"),
        (value(1 << 40, 1 << 0), "cap_checkpoint_restore=ep cap_chown=i"),
        (value(1 << 5, 1 << 5), "cap_kill=eip"),
        (value(1 << 63), "63=ep"),
        (value(0), "none"),
        (b"", "malformed"),
        (value(1)[:-1], "malformed"),
        (value(1) + b"\0\0\0\0", "malformed"),
        (bytes(20), "malformed"),
    ],
)
def test_words(data: bytes, text: str) -> None:
    assert words(data) == text
