"""What a service needs of its init system, as values. Rendering is in `systemd`, `openrc` and `render`; no effects.

Only identifiers of a restricted character set, integers and paths made of them may enter a unit file, an init script or
a run script: every one of these languages gives a meaning to some character that another one takes for text. So the
values check themselves, and whatever else a service has to say travels as JSON or as a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from appbox.store import paths

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
"""A service: also the name of its unit, its container and its cgroup."""
VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
"""A version: an OCI tag (distribution-spec, Pulling manifests)."""
PATH: Final = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]*)+", re.ASCII)
"""An absolute path that needs no quoting anywhere and has no `.` or `..` in it."""
SIGNAL: Final = re.compile(r"SIG[A-Z][A-Z0-9]{1,7}([+-][0-9]{1,2})?", re.ASCII)
"""A signal by its name, as `SIGTERM` or `SIGRTMIN+3`."""

BUNDLES: Final = paths.CONTAINERS
SIGKILL: Final = 9
SIGTERM: Final = 15

_DAY: Final = 86_400
_YEAR: Final = 366 * _DAY
_MARKER: Final = re.compile(r"# Made by appbox for the service (\S+); appbox apply writes it anew\.", re.ASCII)


@dataclass(frozen=True, slots=True)
class StopSignal:
    """A signal by name and number, since OpenRC and systemd want the one and a shell the other."""

    name: str = "SIGTERM"
    number: int = SIGTERM

    def __post_init__(self) -> None:
        _matches(SIGNAL, "signal", self.name)
        _within("signal number", self.number, 1, 64)


@dataclass(frozen=True, slots=True)
class RestartLimit:
    """At most `count` restarts within `seconds`; one more and the service is failed and stays down."""

    count: int = 5
    seconds: int = 60

    def __post_init__(self) -> None:
        _within("restart limit", self.count, 1, 10_000)
        _within("restart period", self.seconds, 1, _YEAR)


@dataclass(frozen=True, slots=True)
class Unit:
    """A service as its init system sees it. Times are whole seconds.

    `requires`, `after` and `wants` name other services, or `net` for the network. `network` says that the service uses
    the host's. Paths in `mounts_for` have to be mounted first; those that cannot be written into a unit are left out,
    since a file system of the host's own fstab is mounted before services anyway.
    Raises ValueError for anything that may not stand in a unit.
    """

    name: str
    version: str
    restart: Literal["no", "on-failure", "always"] = "on-failure"
    restart_delay: int = 1
    restart_limit: RestartLimit = field(default_factory=RestartLimit)
    stop_signal: StopSignal = field(default_factory=StopSignal)
    stop_timeout: int = 10
    requires: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    network: bool = True
    mounts_for: tuple[str, ...] = ()
    bundles: str = BUNDLES

    def __post_init__(self) -> None:
        _matches(VERSION, "version", self.version)
        _matches(PATH, "path", self.bundles)
        for name in (self.name, *self.requires, *self.after, *self.wants):
            _matches(NAME, "name", name)
        if self.restart not in ("no", "on-failure", "always"):
            raise ValueError(f"no restart policy: {self.restart!r}")
        _within("restart delay", self.restart_delay, 0, _DAY)
        _within("stop timeout", self.stop_timeout, 0, _DAY)

    @property
    def run(self) -> str:
        """The run script, through the link to the current version: switching a version leaves the unit as it is."""
        return f"{self.bundles}/{self.name}/run"

    @property
    def stop_seconds(self) -> int:
        """How long a stop may take. Zero means forever to systemd, so the shortest time is one second."""
        return max(1, self.stop_timeout)

    @property
    def never_too_often(self) -> bool:
        """Whether the delay alone keeps the restarts below their limit."""
        return self.restart_delay * self.restart_limit.count > self.restart_limit.seconds

    @property
    def writable_mounts(self) -> tuple[str, ...]:
        """The paths of `mounts_for` that can be written into a unit, sorted."""
        return tuple(sorted({path for path in self.mounts_for if PATH.fullmatch(path)}))


@dataclass(frozen=True, slots=True)
class RunScript:
    """What the run script of one version of a service has to know; all of it is known before the image is unpacked.

    `base` is the host id of the container's root (0 without a user namespace). `resolver` says that the service gets
    the host's resolv.conf at each start. `runtime` is the program; its state is in /run/<runtime>.
    The script finds in `.live` of the version's directory what it copies at each start: `upper` (owner and mode of
    rootfs), `work` (0700) and `resolv.conf` (empty, 0644).
    Raises ValueError for anything that may not stand in a script.
    """

    name: str
    version: str
    base: int = 0
    resolver: bool = True
    stop_signal: StopSignal = field(default_factory=StopSignal)
    bundles: str = BUNDLES
    runtime: str = "runc"

    def __post_init__(self) -> None:
        _matches(NAME, "name", self.name)
        _matches(NAME, "runtime", self.runtime)
        _matches(VERSION, "version", self.version)
        _matches(PATH, "path", self.bundles)
        _within("id", self.base, 0, 2**32 - 2)

    @property
    def bundle(self) -> str:
        """The directory of this version."""
        return f"{self.bundles}/{self.name}-{self.version}"

    @property
    def created(self) -> bool:
        """Whether the runtime has to call the script when namespaces and cgroup are there; each part says so here."""
        return False


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file for an init system: absolute path, text, permission bits."""

    path: str
    text: str
    mode: int


@dataclass(frozen=True, slots=True)
class Link:
    """A symlink that lets the init system start something at boot: absolute path, and what it points to."""

    path: str
    target: str


def success_statuses(stop_signal: StopSignal) -> tuple[int, ...]:
    """Exit statuses of a runtime, besides 0, that mean the service ended as it was told to.

    A runtime reports a death by signal N as 128 + N. SIGKILL is never a success: it is what the kernel and impatient
    administrators end a service with.
    """
    return tuple(sorted({128 + SIGTERM, 128 + stop_signal.number} - {128 + SIGKILL}))


def marker(name: str) -> str:
    """Return the line that says whose file this is; it comes first, or right after `#!`."""
    _matches(NAME, "name", name)
    return f"# Made by appbox for the service {name}; appbox apply writes it anew."


def owner(text: str) -> str | None:
    """Return the service that appbox made this unit, init script or run script for; None if it is not appbox's."""
    lines = text[:1024].split("\n", 2)
    if lines[0].startswith("#!"):
        lines = lines[1:]
    found = _MARKER.fullmatch(lines[0]) if lines else None
    return found[1] if found and NAME.fullmatch(found[1]) else None


def _matches(pattern: re.Pattern[str], what: str, text: str) -> None:
    if not pattern.fullmatch(text):
        raise ValueError(f"not a {what} that a unit can carry: {text!r}")


def _within(what: str, number: int, low: int, high: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise ValueError(f"not a {what} from {low} to {high}: {number!r}")
