"""Which extended attributes of a layer reach the disk, and in which form. Values in, values out.

Kept are `security.capability` and `user.*`. Dropped are `trusted.*` and everything of the overlay file system, with
which a layer could redirect lookups or hide files once its rootfs is the lower directory of a mount, `security.selinux`
and other labels that only mean something on the host where they were set, and access control lists. Only the records
`SCHILY.xattr.*` are read: what bsdtar adds as `LIBARCHIVE.xattr.*` says the same again, and no image tool reads it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from appbox.errors import Refused
from appbox.oci import limits, pax

CAPABILITY: Final = "security.capability"
_PREFIX: Final = b"SCHILY.xattr."

# struct vfs_cap_data and vfs_ns_cap_data of linux/capability.h; see capabilities(7), "File capability versions".
_V2: Final = struct.Struct("<IIIII")
_V3: Final = struct.Struct("<IIIIII")
_REVISION: Final = 0xFF000000
_REVISION_2: Final = 0x02000000
_REVISION_3: Final = 0x03000000
_EFFECTIVE: Final = 0x00000001


class Xattrs(NamedTuple):
    """`kept` are names and values in the archive's order; `dropped` are names only."""

    kept: tuple[tuple[str, bytes], ...] = ()
    dropped: tuple[str, ...] = ()


NONE: Final = Xattrs()


def choose(records: pax.Records) -> Xattrs:
    """Return what the records of a member ask for, sorted into kept and dropped; the last of a name wins."""
    found = {key[len(_PREFIX) :]: value for key, value in records if key.startswith(_PREFIX)}
    if not found:
        return NONE
    kept: list[tuple[str, bytes]] = []
    dropped: list[str] = []
    for raw, value in found.items():
        name = raw.decode("utf-8", "surrogateescape")
        if not _wanted(name):
            dropped.append(name)
            continue
        if len(raw) > limits.XATTR_NAME or len(value) > limits.XATTR_VALUE or name == "user.":
            raise Refused("an extended attribute is larger than Linux allows, or has no name", where=name[:100])
        kept.append((name, value))
    return Xattrs(tuple(kept), tuple(dropped))


def _wanted(name: str) -> bool:
    return name == CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay."))


def capability(value: bytes, base: int, size: int) -> bytes:
    """Return a `security.capability` that is valid in the user namespace whose uid 0 is `base` on the host.

    Capabilities of version 2 count in the initial user namespace only, so a shifted rootfs needs version 3, which
    names the namespace's root. One that is version 3 already keeps its root, shifted like any other uid.
    """
    if len(value) not in (_V2.size, _V3.size):
        raise Refused("malformed security.capability", why=f"{len(value)} bytes")
    magic, *sets = _V2.unpack(value[: _V2.size])
    revision = magic & _REVISION
    if revision != (_REVISION_2 if len(value) == _V2.size else _REVISION_3) or magic & ~(_REVISION | _EFFECTIVE):
        raise Refused("malformed security.capability", why=f"revision {magic:#x}")
    root = _V3.unpack(value)[-1] if len(value) == _V3.size else 0
    if root >= size:
        raise Refused("security.capability of a user outside the range of ids", why=str(root))
    flags = magic & _EFFECTIVE
    if base + root == 0:
        return _V2.pack(_REVISION_2 | flags, *sets)
    return _V3.pack(_REVISION_3 | flags, *sets, base + root)
