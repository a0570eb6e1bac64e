"""Extended attributes that name users: access control lists and file capabilities, for another range of ids. Pure.

The layouts are those of linux/posix_acl_xattr.h and of struct vfs_ns_cap_data in linux/capability.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from appbox.errors import Refused

ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
CAPABILITY: Final = "security.capability"
_ACL_VERSION: Final = 2
_NAMED: Final = frozenset((0x02, 0x08))
"""Entries of an access control list that name a user or a group by id."""
_ENTRY: Final = struct.Struct("<HHI")
_CAPABILITY_OF_ROOT: Final = (0x03000000, 24)
"""The revision of file capabilities that says whose root they are for, and its length."""


def kept(name: str) -> bool:
    """Return whether an attribute goes along with a file: others belong to the host, or to a mount."""
    return name.startswith("user.") or name == CAPABILITY or name in ACLS


def shifted(name: str, value: bytes, to: Callable[[int], int]) -> bytes:
    """Return an attribute whose ids were given to `to`; raise `Refused` for one that is malformed."""
    if name in ACLS:
        return _acl(name, value, to)
    if name == CAPABILITY:
        magic, size = _CAPABILITY_OF_ROOT
        if len(value) == size and int.from_bytes(value[:4], "little") & 0xFF000000 == magic:
            return value[:20] + struct.pack("<I", to(struct.unpack_from("<I", value, 20)[0]))
    return value


def _acl(name: str, value: bytes, to: Callable[[int], int]) -> bytes:
    if len(value) < 4 or (len(value) - 4) % _ENTRY.size or int.from_bytes(value[:4], "little") != _ACL_VERSION:
        raise Refused(f"{name} is malformed")
    entries = [
        _ENTRY.pack(tag, rights, to(who) if tag in _NAMED else who)
        for tag, rights, who in _ENTRY.iter_unpack(value[4:])
    ]
    return value[:4] + b"".join(entries)
