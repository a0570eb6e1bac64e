"""Reads the facts of a host. It only reads."""

from __future__ import annotations

import os
import sys
from typing import Final, Literal

from appbox import owner
from appbox.host import os_release, ranges
from appbox.host.facts import Facts, IdRange, InitKind, Taken
from appbox.oci.model import Platform
from appbox.store import files
from appbox.store.root import Root

_TABLE_LIMIT = 4 << 20
"""Bytes read of /etc/passwd and the like; a larger one is refused."""


def gather(root: Root, init: str = "auto", allocated: dict[str, IdRange] | None = None) -> Facts:
    """Return the facts of the host whose file system is `root`; `init` overrides what is found."""
    from appbox.host import kernel  # noqa: PLC0415 - it knows manifests, and who asks for the init system does not

    return Facts(
        hostname=hostname(root),
        platform=Platform.host(os.uname().machine),
        init=detect_init(root) if init == "auto" else known_init(init),
        live=root.live,
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        masked=kernel.throttles() if root.live else (),
        taken=taken_ids(root),
        ranges=allocated or {},
        cron=cron(root),
        program=program(),
        distribution=os_release.read(root),
    )


def program() -> str:
    """Return the absolute path of the appbox that runs, or of the host's one; "" when there is neither."""
    from appbox.host import process  # noqa: PLC0415 - `status` starts none

    own = sys.argv[0]
    if os.path.basename(own) == "appbox" and os.path.isabs(own) and os.access(own, os.X_OK):
        return own
    return process.find("appbox") or ""


def detect_init(root: Root) -> InitKind:
    """Return the init system: of a live host the one that runs (sd_booted(3)), below `--root` the installed one."""
    if root.live:
        if os.path.isdir("/run/systemd/system"):
            return "systemd"
        return "openrc" if os.path.exists("/run/openrc/softlevel") and _is_ours(root) else "none"
    if root.exists("/usr/lib/systemd/systemd") or root.exists("/lib/systemd/systemd"):
        return "systemd"
    return "openrc" if root.exists("/sbin/openrc-run") or root.exists("/usr/sbin/openrc-run") else "none"


def _is_ours(root: Root) -> bool:
    """Return whether OpenRC runs services for this process: before 0.60 it did so for root alone (`--user NAME`)."""
    own = owner.current()
    if own is None or own.by_root:
        return True
    from appbox.host import openrc  # noqa: PLC0415 - it starts programs, and who asks for root's init system does not

    return openrc.has_users(root)


_CRONS: Final = ("/usr/sbin/cron", "/usr/sbin/crond", "/usr/bin/crond", "/sbin/crond", "/bin/crond")


def cron(root: Root) -> Literal["", "cron.d", "crontab"]:
    """Return what timed jobs can be told to: vixie's cron and cronie read a directory, busybox's crond one table."""
    found = [path for path in _CRONS if root.exists(path)]
    if any(not _is_busybox(root, path) for path in found):
        return "cron.d"
    return "crontab" if found else "" if root.live else "cron.d"


def _is_busybox(root: Root, path: str) -> bool:
    folder, _, leaf = path.rpartition("/")
    with root.directory(folder) as fd:
        return (files.link_target(leaf, fd) or "").rpartition("/")[2].startswith("busybox")


def known_init(init: str) -> InitKind:
    """Return the kind of init system that `--init` names."""
    kinds: dict[str, InitKind] = {"systemd": "systemd", "openrc": "openrc", "none": "none"}
    return kinds[init]


def hostname(root: Root) -> str:
    """Return the name of the host: of a live one what the kernel says, below `--root` what /etc/hostname does."""
    if root.live:
        return os.uname().nodename
    text = root.read("/etc/hostname", 4096)
    return (text or b"localhost").decode("utf-8", "replace").strip() or "localhost"


def taken_ids(root: Root) -> tuple[Taken, ...]:
    """Return the id ranges that users of the host have: sub-ids, and their own numbers."""
    found: list[Taken] = []
    for path, parse in (
        ("/etc/subuid", ranges.parse_subids),
        ("/etc/subgid", ranges.parse_subids),
        ("/etc/passwd", ranges.parse_users),
        ("/etc/group", ranges.parse_users),
    ):
        found += parse((root.read(path, _TABLE_LIMIT) or b"").decode("utf-8", "replace"), path)
    return tuple(found)
