"""The names of the kernel's capabilities, and which of them a service gets. Constants only: a manifest is checked
against them without anything else being imported.

Names are those of capabilities(7) and the OCI runtime specification: upper case, with `CAP_`.
"""

from __future__ import annotations

from typing import Final

_ALL: Final = """
    AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER
    FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE
    NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE
    SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
"""
_DEFAULT: Final = """
    AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID
    SYS_CHROOT
"""

ALL_CAPABILITIES: Final = frozenset(f"CAP_{name}" for name in _ALL.split())
"""The 41 capabilities of Linux 5.9 and later."""

DEFAULT_CAPABILITIES: Final = frozenset(f"CAP_{name}" for name in _DEFAULT.split())
"""The 14 that images are made for: an entrypoint that starts as root may chown its data and drop to its user."""


def canonical(name: str) -> str | None:
    """Return the capability called `name`, with or without `CAP_` and in any case; None if there is none."""
    upper = name.upper()
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    return full if full in ALL_CAPABILITIES else None
