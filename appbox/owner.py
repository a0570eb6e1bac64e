"""Whose services a process works for: the host's, or those of an ordinary user, who has no privilege.

A process works for one of them from its first step to its last. `use` says so once, at the command line; everything
else asks `current`. What is a user's own is in places of the user's own (`store.paths`), and all files of containers
belong to ids that are the user's: the own one, which is root to the services, and the subordinate ones (subuid(5)).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from appbox.store import paths

if TYPE_CHECKING:
    from appbox.host.facts import IdRange


@dataclass(frozen=True, slots=True)
class Extent:
    """`size` ids, from `inside` on in the services' user namespace, from `outside` on for the host."""

    inside: int
    outside: int
    size: int

    def __str__(self) -> str:
        return f"{self.inside} {self.outside} {self.size}"


@dataclass(frozen=True, slots=True)
class Owner:
    """An ordinary user: numbers, name ("" without a password entry), home, and the directories of the XDG rules.

    `data`, `config` and `cache` are XDG_DATA_HOME, XDG_CONFIG_HOME and XDG_CACHE_HOME, `runtime` is XDG_RUNTIME_DIR.
    `uids` and `gids` are how the ids of containers are the host's (user_namespaces(7)), the user's own first.
    `by_root`: root works for the user, and units of the system run the services as the user.
    """

    name: str
    uid: int
    gid: int
    home: str
    data: str
    config: str
    cache: str
    runtime: str
    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]
    by_root: bool = False

    @property
    def count(self) -> int:
        """How many user and group ids containers have, from 0 on."""
        return min(sum(one.size for one in ids) for ids in (self.uids, self.gids))

    @property
    def alone(self) -> bool:
        """Whether there are no ids but the user's own: only files of root can be unpacked, nobody else can run."""
        return self.count == 1

    def places(self) -> dict[str, str]:
        """Return where the user's services are, by the names of `store.paths`."""
        own, config = f"{self.data}/appbox", f"{self.config}/appbox"
        state = f"{own}/state"
        return {
            "CONTAINERS": f"{own}/containers",
            "STATE": state,
            "CACHE": f"{self.cache}/appbox",
            "RUN": f"{self.runtime}/appbox",
            "LOGS": f"{own}/log",
            "NETWORKS": f"{config}/networks.toml",
            "JOBS": f"{state}/jobs",
            "TIMERS": f"{self.data}/systemd/timers",
            "CONTAINER_STATES": self.runtime,
            "AGE_KEY": f"{config}/age.key",
            **({} if self.by_root else self._units()),
        }

    def _units(self) -> dict[str, str]:
        """Return where the user's own init system looks for units."""
        return {
            "SYSTEMD_UNITS": f"{self.config}/systemd/user",
            "OPENRC_SCRIPTS": f"{self.config}/rc/init.d",
            "RUNLEVEL": f"{self.config}/rc/runlevels/default",
            "OPENRC_SETTINGS": f"{self.config}/rc/conf.d",
            "OPENRC_STATE": f"{self.runtime}/openrc",
        }


HOST_COUNT: Final = 2**32 - 1
"""How many ids a host has; the last number is none (chown(2))."""

_owner: Owner | None = None


def use(owner: Owner | None) -> None:
    """Have this process work for a user from now on, or for the host."""
    global _owner  # noqa: PLW0603 - one process works for one owner
    _owner = owner
    paths.use(None if owner is None else owner.places())


def current() -> Owner | None:
    """Return the user whose services this process works for; None for the host's."""
    return _owner


def extents(own: int, given: tuple[IdRange, ...], most: int = 340) -> tuple[Extent, ...]:
    """Return the mapping of an own id and subordinate ones: containers have them in this order, from 0 on.

    `most` is how many lines the kernel takes (user_namespaces(7), since Linux 4.15).
    """
    ranges = [one for one in given[: most - 1] if one.size > 0]
    starts = accumulate((one.size for one in ranges), initial=1)
    rest = (Extent(inside, one.base, one.size) for inside, one in zip(starts, ranges, strict=False))
    return (Extent(0, own, 1), *rest)
