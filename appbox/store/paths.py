"""Where things are on disk, as values. Nothing here touches the disk.

All paths are absolute and as seen from inside the root (`--root DIR` puts them below DIR; `store.root` opens them).
"""

from __future__ import annotations

from typing import Final

CONTAINERS: Final = "/opt/containers"
STATE: Final = "/var/lib/appbox"
CACHE: Final = "/var/cache/appbox"
RUN: Final = "/run/appbox"
LOGS: Final = "/var/log/appbox"
POLICY: Final = "/etc/appbox/policy.toml"
LIMITS: Final = "/etc/appbox/limits.toml"

LOCK: Final = "lock"
RANGES: Final = "uid-ranges.toml"

# Inside a version directory.
GENERATIONS: Final = ".generations"
CURRENT: Final = ".current"
CARRY: Final = ".carry"
LIVE: Final = ".live"
IMAGE: Final = ".image"
ROOTFS: Final = "rootfs"
MTREE: Final = "rootfs.mtree"
DATA: Final = "data"
GENERATION_LINKS: Final = ("bundle.toml", "config", "config.json", "run")
"""What belongs to a generation; the names in the version directory are fixed links through `.current`."""

# Inside the containers directory. Service names never begin with a dot, so these cannot clash with one.
STAGING: Final = ".staging"
REPLACED: Final = ".replaced"

SYSTEMD_UNITS: Final = "/etc/systemd/system"
OPENRC_SCRIPTS: Final = "/etc/init.d"
RUNLEVEL: Final = "/etc/runlevels/default"
CRON: Final = "/etc/cron.d"


def version_directory(name: str, version: str) -> str:
    """Return the directory name of one version of a service, relative to `CONTAINERS`."""
    return f"{name}-{version}"


def bundle(name: str, version: str) -> str:
    """Return the absolute path of one version's bundle."""
    return f"{CONTAINERS}/{version_directory(name, version)}"


def log_file(name: str) -> str:
    """Return the log file of a service under OpenRC; systemd keeps logs in its journal."""
    return f"{LOGS}/{name}.log"
