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
NETWORKS: Final = "/etc/appbox/networks.toml"

JOBS: Final = "/var/lib/appbox/jobs"
TIMERS: Final = "/var/lib/systemd/timers"
"""Where systemd keeps when a timer was last due."""

LOCK: Final = "lock"
RANGES: Final = "uid-ranges.toml"
ADDRESSES: Final = "addresses.toml"

# Inside a version directory.
GENERATIONS: Final = ".generations"
CURRENT: Final = ".current"
CARRY: Final = ".carry"
SOURCE: Final = ".source"
"""A link to where the manifest is, if it was moved since the current generation was made."""
LIVE: Final = ".live"
IMAGE: Final = ".image"
ROOTFS: Final = "rootfs"
MTREE: Final = "rootfs.mtree"
UPPER: Final = "upper"
WRITES: Final = ".writes"
FORMAT: Final = ".format"
"""In a data directory: what it is written in. No volume has a name with a dot."""
COPIED: Final = ".copied"
"""In a data directory: a copy that no service has seen yet, and that may be thrown away."""
MIGRATING: Final = ".migrating"
"""In a data directory: a migration was begun, and nobody may start with it."""
LAST: Final = ".last"
"""In a data directory: a removed service had this data. Other versions may have kept what they once had."""
DATA: Final = "data"
GENERATION_LINKS: Final = ("bundle.toml", "config", "config.json", "run")
"""What belongs to a generation; the names in the version directory are fixed links through `.current`."""

# Inside the containers directory. Service names never begin with a dot, so these cannot clash with one.
STAGING: Final = ".staging"
"""What a version directory's name begins with before it has its own; see `staging`."""
REPLACED: Final = ".replaced"

SYSTEMD_UNITS: Final = "/etc/systemd/system"
OPENRC_SCRIPTS: Final = "/etc/init.d"
RUNLEVEL: Final = "/etc/runlevels/default"
OPENRC_SETTINGS: Final = "/etc/conf.d"
CRON: Final = "/etc/cron.d"
CRONTAB: Final = "/etc/crontabs/root"
"""The table of busybox's crond, which knows no directory of tables."""


def version_directory(name: str, version: str) -> str:
    """Return the directory name of one version of a service, relative to `CONTAINERS`."""
    return f"{name}-{version}"


def staging(name: str) -> str:
    """Return where a service's version is made before it is published, relative to `CONTAINERS`."""
    return f"{STAGING}.{name}"


def bundle(name: str, version: str) -> str:
    """Return the absolute path of one version's bundle."""
    return f"{CONTAINERS}/{version_directory(name, version)}"


def log_file(name: str) -> str:
    """Return the log file of a service under OpenRC; systemd keeps logs in its journal."""
    return f"{LOGS}/{name}.log"


def hook_log(name: str) -> str:
    """Return where the output of the commands of a service's upgrades is kept; no service's name has a colon in it."""
    return f"{LOGS}/{name}:hooks.log"
