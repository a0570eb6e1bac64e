"""Where things are on disk, as values. Nothing here touches the disk.

All paths are absolute and as seen from inside the root (`--root DIR` puts them below DIR; `store.root` opens them).

Those that are not Final are the host's, or a user's own: a process works for one of them, and `use` says so before
anything else is done. Nobody may keep one of them in a constant of a module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CONTAINERS: str = "/opt/containers"
STATE: str = "/var/lib/appbox"
CACHE: str = "/var/cache/appbox"
RUN: str = "/run/appbox"
LOGS: str = "/var/log/appbox"
NETWORKS: str = "/etc/appbox/networks.toml"
JOBS: str = "/var/lib/appbox/jobs"
TIMERS: str = "/var/lib/systemd/timers"
"""Where systemd keeps when a timer was last due."""
CONTAINER_STATES: str = "/run"
"""The directory in which each runtime keeps the states of its containers, in a directory of its name."""
AGE_KEY: str = "/etc/appbox/age.key"
SYSTEMD_UNITS: str = "/etc/systemd/system"
OPENRC_SCRIPTS: str = "/etc/init.d"
RUNLEVEL: str = "/etc/runlevels/default"
OPENRC_SETTINGS: str = "/etc/conf.d"
OPENRC_STATE: str = "/run/openrc"
"""What OpenRC knows of the services that run or have failed, and of everybody's dependencies."""

POLICY: Final = "/etc/appbox/policy.toml"
"""What the host's administrators demand of images, of their users' too."""
LIMITS: Final = "/etc/appbox/limits.toml"

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
SNAPSHOTS: Final = ".snapshots"
"""What snapshots of data are in, below the containers."""
REPLACED: Final = ".replaced"

CRON: Final = "/etc/cron.d"
CRONTAB: Final = "/etc/crontabs/root"
"""The table of busybox's crond, which knows no directory of tables."""


_HOST: Final = {name: str(globals()[name]) for name, kind in list(__annotations__.items()) if kind == "str"}


def use(places: Mapping[str, str] | None = None) -> None:
    """Have this process work with a user's own places from now on; what is not named is the host's."""
    unknown = (places or {}).keys() - _HOST.keys()
    if unknown:
        raise ValueError(f"no such places: {sorted(unknown)}")
    globals().update({**_HOST, **(places or {})})


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
