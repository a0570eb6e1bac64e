"""The smallest container that there is: one program that ends at once, without an image. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from appbox.host.facts import IdRange

_EXIT: Final = {
    # mov $60, %eax; xor %edi, %edi; syscall
    "x86_64": (62, bytes.fromhex("b83c000000 31ff 0f05")),
    # mov x8, #93; mov x0, #0; svc #0
    "aarch64": (183, bytes.fromhex("a80b80d2 000080d2 010000d4")),
}
"""For each machine its number in ELF and the code of exit(0)."""
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56

PROGRAM: Final = "exit"
FOLDERS: Final = ("proc", "dev")


def program(machine: str) -> bytes | None:
    """Return a static ELF program that ends with 0; None for a machine whose code is not known here."""
    if machine not in _EXIT:
        return None
    number, code = _EXIT[machine]
    size = _HEADERS + len(code)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\x02\x01\x01", 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000) + code


def spec(uids: Sequence[tuple[int, IdRange]], gids: Sequence[tuple[int, IdRange]]) -> dict[str, Any]:
    """Return the config.json of it; the ids are pairs of the first id inside and those of the host."""
    quiet = ["nosuid", "noexec"]
    return {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": [f"/{PROGRAM}"], "cwd": "/", "noNewPrivileges": True},
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": [*quiet, "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": [*quiet, "mode=755", "size=65536k"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "user")],
            "uidMappings": _mappings(uids),
            "gidMappings": _mappings(gids),
        },
    }


def _mappings(ids: Sequence[tuple[int, IdRange]]) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": one.base, "size": one.size} for inside, one in ids]
