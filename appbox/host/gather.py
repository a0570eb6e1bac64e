"""Reads the facts of a host. It only reads."""

from __future__ import annotations

import os

from appbox.host import ranges
from appbox.host.facts import Facts, IdRange, InitKind
from appbox.oci.model import Platform
from appbox.store.root import Root

_TABLE_LIMIT = 4 << 20
"""Bytes read of /etc/passwd and the like; a larger one is refused."""


def gather(root: Root, init: str = "auto", allocated: dict[str, int] | None = None) -> Facts:
    """Return the facts of the host whose file system is `root`; `init` overrides what is found."""
    return Facts(
        hostname=_hostname(root),
        platform=Platform.host(os.uname().machine),
        init=detect_init(root) if init == "auto" else known_init(init),
        live=root.live,
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        taken=taken_ids(root),
        ranges=allocated or {},
    )


def detect_init(root: Root) -> InitKind:
    """Return the init system: of a live host the one that runs (sd_booted(3)), below `--root` the installed one."""
    if root.live:
        if os.path.isdir("/run/systemd/system"):
            return "systemd"
        return "openrc" if os.path.exists("/run/openrc/softlevel") else "none"
    if root.exists("/usr/lib/systemd/systemd") or root.exists("/lib/systemd/systemd"):
        return "systemd"
    return "openrc" if root.exists("/sbin/openrc-run") or root.exists("/usr/sbin/openrc-run") else "none"


def known_init(init: str) -> InitKind:
    """Return the kind of init system that `--init` names."""
    kinds: dict[str, InitKind] = {"systemd": "systemd", "openrc": "openrc", "none": "none"}
    return kinds[init]


def _hostname(root: Root) -> str:
    if root.live:
        return os.uname().nodename
    text = root.read("/etc/hostname", 4096)
    return (text or b"localhost").decode("utf-8", "replace").strip() or "localhost"


def taken_ids(root: Root) -> tuple[IdRange, ...]:
    """Return the id ranges that users of the host have: sub-ids, and their own numbers."""
    found: list[IdRange] = []
    for path, parse in (
        ("/etc/subuid", ranges.parse_subids),
        ("/etc/subgid", ranges.parse_subids),
        ("/etc/passwd", ranges.parse_users),
        ("/etc/group", ranges.parse_users),
    ):
        found += parse((root.read(path, _TABLE_LIMIT) or b"").decode("utf-8", "replace"))
    return tuple(r for r in found if r.end > ranges.FIRST)
