"""Ids inside of extended attributes: shifted there and back, and never out of a service's range unnoticed."""

from __future__ import annotations

import struct

import pytest

from appbox import owned_xattrs
from appbox.errors import Refused

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in [(1, 7, 0xFFFFFFFF), (2, 5, 33), (4, 0, 0xFFFFFFFF), (8, 4, 7), (16, 7, 0xFFFFFFFF)]
)


def test_named_users_of_an_access_control_list() -> None:
    for name in owned_xattrs.ACLS:
        there = owned_xattrs.shifted(name, ACL, lambda number: number + 1000)
        assert struct.unpack_from("<I", there, 4 + 8 + 4) == (1033,)
        assert struct.unpack_from("<I", there, 4 + 24 + 4) == (1007,)
        assert there[:12] == ACL[:12]
        assert owned_xattrs.shifted(name, there, lambda number: number - 1000) == ACL


def test_the_root_that_capabilities_are_for() -> None:
    of_root = struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 5)
    anyones = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    assert owned_xattrs.shifted("security.capability", of_root, lambda number: number + 7)[20:] == struct.pack("<I", 12)
    assert owned_xattrs.shifted("security.capability", anyones, lambda number: number + 7) == anyones
    assert owned_xattrs.shifted("user.note", ACL, lambda number: number + 7) == ACL


@pytest.mark.parametrize("value", [b"", b"\2\0\0", ACL[:-1], b"\1" + ACL[1:]])
def test_malformed_lists_are_refused(value: bytes) -> None:
    with pytest.raises(Refused, match="malformed"):
        owned_xattrs.shifted("system.posix_acl_access", value, lambda number: number)


def test_what_goes_along() -> None:
    assert owned_xattrs.kept("user.x")
    assert owned_xattrs.kept("security.capability")
    assert not owned_xattrs.kept("security.selinux")
    assert not owned_xattrs.kept("trusted.overlay.opaque")
