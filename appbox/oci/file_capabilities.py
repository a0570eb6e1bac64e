"""What `security.capability` of a file grants, in words. Values in, values out.

The layout is that of struct vfs_cap_data and vfs_ns_cap_data in linux/capability.h; the words are those of getcap(8).
"""

from __future__ import annotations

import struct
from typing import Final

_SIZES: Final = {0x02000000: 20, 0x03000000: 24}
"""Bytes of the revisions that Linux has written since 2.6.25."""
_REVISION: Final = 0xFF000000
_EFFECTIVE: Final = 0x00000001
_TABLE: Final = """
    chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
    net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin
    sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override
    mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
"""
_NAMES: Final = _TABLE.split()
"""By their numbers, from 0."""


def words(value: bytes) -> str:
    """Return the capabilities as in `cap_net_raw=ep`, sorted by number, or that the value is malformed."""
    magic = int.from_bytes(value[:4], "little")
    if len(value) < 4 or _SIZES.get(magic & _REVISION) != len(value):
        return "malformed"
    low_permitted, low_inheritable, permitted, inheritable = struct.unpack_from("<IIII", value, 4)
    permitted, inheritable = permitted << 32 | low_permitted, inheritable << 32 | low_inheritable
    effective = "e" if magic & _EFFECTIVE else ""
    found: dict[str, list[str]] = {}
    for number in range(64):
        bit = 1 << number
        flags = ("i" if inheritable & bit else "") + ("p" if permitted & bit else "")
        if flags:
            flags = (effective if permitted & bit else "") + flags
            found.setdefault(flags, []).append(f"cap_{_NAMES[number]}" if number < len(_NAMES) else str(number))
    return " ".join(f"{','.join(names)}={flags}" for flags, names in sorted(found.items())) or "none"
