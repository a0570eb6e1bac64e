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
from appbox.units.files import NAME
from appbox.units.limits import Limits

VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
"""A version: an OCI tag (distribution-spec, Pulling manifests)."""
PATH: Final = re.compile(r"(/\.?[A-Za-z0-9_][A-Za-z0-9._-]*)+", re.ASCII)
"""An absolute path that needs no quoting anywhere and has no `.` or `..` in it."""
SIGNAL: Final = re.compile(r"SIG[A-Z][A-Z0-9]{1,7}([+-][0-9]{1,2})?", re.ASCII)
"""A signal by its name, as `SIGTERM` or `SIGRTMIN+3`."""

_MAPPING: Final = re.compile(r"[0-9]{1,10}( [0-9]{1,10}){2}( [0-9]{1,10}( [0-9]{1,10}){2})*", re.ASCII)

USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
"""A user by name, as useradd(8) takes it."""

INTERFACE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,14}", re.ASCII)
"""A network interface; the kernel takes 15 characters."""

WHEN: Final = re.compile(r"[A-Za-z0-9*,./:~-]+( [A-Za-z0-9*,./:~-]+){0,4}", re.ASCII)
"""When a job runs, for a timer or a crontab: both take it as it is."""
ASK_RESTART: Final = 10
ASK_STOP: Final = 11
SIGKILL: Final = 9
SIGTERM: Final = 15

NOTIFY_PATIENCE: Final = 90
"""Seconds within which a service has to say that it is ready, if it does: as long as systemd waits by default."""

_ADDRESS: Final = re.compile(r"[0-9a-f.:]{2,45}", re.ASCII)
_FORWARD: Final = re.compile(r"([0-9a-f.:]{2,45}/)?[0-9]{1,5}:[0-9]{1,5}", re.ASCII)

_DAY: Final = 86_400
_YEAR: Final = 366 * _DAY


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
class When:
    """When a timed job runs, as text: the only one that may hold `*` and `~`, where neither means anything else."""

    text: str

    def __post_init__(self) -> None:
        _matches(WHEN, "time", self.text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The log files of a service under OpenRC: `keep` of them, each of `max_size` bytes, or one longer line."""

    max_size: int = 10 * 2**20
    keep: int = 3

    def __post_init__(self) -> None:
        _within("size of a log", self.max_size, 1, 2**53)
        _within("number of logs", self.keep, 1, 1000)


@dataclass(frozen=True, slots=True)
class Check:
    """A health check as init system and run script see it. Times are whole seconds; what is asked is in files.

    A service is unhealthy after `retries` failures in a row; in the first `start_period` none counts before a success.
    `action` is then taken, but no restart beyond `limit`. `port` is that of `tcp`.
    """

    kind: Literal["exec", "tcp", "http", "https"]
    interval: int = 30
    timeout: int = 5
    retries: int = 3
    start_period: int = 20
    action: Literal["restart", "stop", "none"] = "restart"
    limit: RestartLimit = field(default_factory=lambda: RestartLimit(5, 600))
    port: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("exec", "tcp", "http", "https") or self.action not in ("restart", "stop", "none"):
            raise ValueError(f"no health check: {self.kind!r}, {self.action!r}")
        for what, number, low in (
            ("interval", self.interval, 1),
            ("timeout", self.timeout, 1),
            ("start period", self.start_period, 0),
        ):
            _within(what, number, low, _DAY)
        _within("number of retries", self.retries, 1, 1000)
        _within("port", self.port, 1 if self.kind == "tcp" else 0, 65535)

    @property
    def order(self) -> str:
        """The word of systemctl(1) for what is done about an unhealthy service; "" for nothing."""
        return {"restart": "try-restart", "stop": "stop"}.get(self.action, "")

    @property
    def status(self) -> int:
        """The exit status by which a user's check asks root for that."""
        return ASK_RESTART if self.action == "restart" else ASK_STOP

    @property
    def patience(self) -> int:
        """Seconds after the start within which a service has to have been healthy once."""
        return self.start_period + self.retries * self.interval + self.timeout


@dataclass(frozen=True, slots=True)
class Unit:
    """A service as its init system sees it. Times are whole seconds.

    `requires`, `after` and `wants` name other services, or `net` for the network. `network` says that the service uses
    the host's. Paths in `mounts_for` have to be mounted first; those that cannot be written into a unit are left out,
    since a file system of the host's own fstab is mounted before services anyway. With a `check` or `notify` the start
    is complete when the service is healthy, or says that it is ready. `schedule` makes it a timed job, as systemd says
    when; `cron` is the same for cron, whose table is `crontab`, or one of its own. `reload`: the script knows how to.
    `snapshots` and `snapshots_cron` say in the same ways when `program`, appbox itself, takes snapshots of its data.
    `rootless`: an ordinary user's own, who has no privilege; `runs` is where what a start needs in memory is.
    `user` and `uid`: it is a unit of the system that runs as this user; "" for one of the user's own init system.
    `pids`: the container has a limit of processes of its own, and a lower one of the unit would be in its way.
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
    check: Check | None = None
    notify: bool = False
    schedule: When | None = None
    cron: When | None = None
    crontab: bool = False
    enable: bool = True
    reload: bool = False
    pids: bool = False
    snapshots: When | None = None
    snapshots_cron: When | None = None
    program: str = ""
    bundles: str = field(default_factory=lambda: paths.CONTAINERS)
    runs: str = field(default_factory=lambda: paths.RUN)
    rootless: bool = False
    user: str = ""
    uid: int = 0

    def __post_init__(self) -> None:
        if self.user:
            _matches(USER, "user", self.user)
            _within("user id", self.uid, 1, 2**32 - 2)
        _matches(VERSION, "version", self.version)
        _matches(PATH, "path", self.bundles)
        _matches(PATH, "path", self.runs)
        if self.program or self.snapshots is not None:
            _matches(PATH, "path", self.program)
        if self.schedule is not None and self.restart == "always":
            raise ValueError("a timed job that always restarts")
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
    def patience(self) -> int:
        """Seconds that a start may take until the service is ready; 0 if nobody waits for it."""
        return patience(self.check, notify=self.notify)

    @property
    def never_too_often(self) -> bool:
        """Whether the delay alone keeps the restarts below their limit."""
        return self.restart_delay * self.restart_limit.count > self.restart_limit.seconds

    @property
    def writable_mounts(self) -> tuple[str, ...]:
        """The paths of `mounts_for` that can be written into a unit, sorted."""
        return tuple(sorted({path for path in self.mounts_for if PATH.fullmatch(path)}))


@dataclass(frozen=True, slots=True)
class Scratch:
    """A directory of the root file system that is filled anew at each start: `.live/NAME`, as the image has `path`."""

    name: str
    path: str

    def __post_init__(self) -> None:
        _matches(NAME, "name", self.name)
        _matches(PATH, "path", self.path)


@dataclass(frozen=True, slots=True)
class Bridge:
    """The bridge that a service is attached to: its network, and the interface of that."""

    network: str
    interface: str

    def __post_init__(self) -> None:
        _matches(NAME, "network", self.network)
        _matches(INTERFACE, "interface", self.interface)


@dataclass(frozen=True, slots=True)
class Pasta:
    """What pasta(1) forwards from the host: `ADDRESS/PORT:PORT` or `PORT:PORT` each, and where it answers for names.

    What comes for `resolver` goes to the host's own resolver; "" where the service has others. `slirp`: slirp4netns(1)
    takes its place, which forwards none. `interface` is the service's own, which leads there.
    """

    tcp: tuple[str, ...] = ()
    udp: tuple[str, ...] = ()
    resolver: str = ""
    slirp: bool = False
    interface: str = "eth0"

    def __post_init__(self) -> None:
        _matches(INTERFACE, "interface", self.interface)
        for forward in (*self.tcp, *self.udp):
            _matches(_FORWARD, "forwarded port", forward)
        if self.resolver:
            _matches(_ADDRESS, "address", self.resolver)

    @property
    def options(self) -> str:
        """The words of the command line; what is not said here, pasta would guess."""
        words = [f"--tcp-ports {forward}" for forward in self.tcp or ("none",)]
        words += [f"--udp-ports {forward}" for forward in self.udp or ("none",)]
        return " ".join([*words, f"--dns-forward {self.resolver}"] if self.resolver else words)


@dataclass(frozen=True, slots=True)
class Rootless:
    """How the ids of an ordinary user's container are the host's: the words of newuidmap(1) and newgidmap(1).

    `alone`: it has only the user's own id, which needs neither. `by_root`: root's init system runs it.
    """

    uids: str
    gids: str
    alone: bool = False
    by_root: bool = False

    def __post_init__(self) -> None:
        for ids in (self.uids, self.gids):
            _matches(_MAPPING, "mapping of ids", ids)


@dataclass(frozen=True, slots=True)
class RunScript:
    """What the run script of one version of a service has to know; all of it is known before the image is unpacked.

    `base` is the host id of the container's root (0 without a user namespace). `runtime` is the program; its state is
    in /run/<runtime>.
    `resolver` says which resolv.conf a start makes: the host's as it is, the one of its resolvers that another network
    reaches (`outside`), its own of the generation, or none; `hosts` is the same for /etc/hosts. `shares` is the service
    whose network namespace this one has; `sharable` says that it has one that others may have, too.
    The script finds in `.live` of the version's directory what it copies at each start: `upper` (owner and mode of
    rootfs), `work` (0700) and `resolv.conf` (empty, 0644). `persistent`: upper and work are the version's own, on disk.
    `timezone`: /etc/localtime is mounted, and must be no symlink.
    `scratch` are the directories that can be written to although the rest cannot. `host_network` says that the
    service's network is the host's, so that its `check` asks there. `notify`: it says by itself when it is ready, to
    systemd, or at a socket from which nothing else is passed on. `secrets` is how many secrets are read at each start.
    `log` are the files that a supervisor's service writes to. `job`: it is a timed one, whose last result is kept.
    `rootless`: an ordinary user starts it, and the script makes a user namespace first. `runs` and `states` are where
    what a start needs in memory is, and each runtime's states of containers.
    `reload` is "command" for the one beside the configuration, a signal's name, or "" if there is no way.
    Raises ValueError for anything that may not stand in a script.
    """

    name: str
    version: str
    base: int = 0
    resolver: Literal["", "host", "outside", "own"] = "host"
    hosts: Literal["", "host", "bridge", "own"] = ""
    pasta: Pasta | None = None
    shares: str = ""
    sharable: bool = False
    stop_signal: StopSignal = field(default_factory=StopSignal)
    persistent: bool = False
    timezone: bool = False
    scratch: tuple[Scratch, ...] = ()
    check: Check | None = None
    host_network: bool = False
    notify: Literal["", "direct", "relay"] = ""
    limits: Limits = field(default_factory=Limits)
    bridge: Bridge | None = None
    secrets: int = 0
    log: LogFiles = field(default_factory=LogFiles)
    job: bool = False
    reload: str = ""
    rootless: Rootless | None = None
    bundles: str = field(default_factory=lambda: paths.CONTAINERS)
    runs: str = field(default_factory=lambda: paths.RUN)
    states: str = field(default_factory=lambda: paths.CONTAINER_STATES)
    age_key: str = field(default_factory=lambda: paths.AGE_KEY)
    home: str = "/root"
    runtime: str = "runc"

    def __post_init__(self) -> None:
        _matches(NAME, "name", self.name)
        _matches(NAME, "runtime", self.runtime)
        _matches(VERSION, "version", self.version)
        for path in (self.bundles, self.runs, self.states, self.age_key, self.home):
            _matches(PATH, "path", path)
        if self.shares:
            _matches(NAME, "name", self.shares)
        _within("id", self.base, 0, 2**32 - 2)
        _within("number of secrets", self.secrets, 0, 100_000)
        if self.reload not in {"", "command"}:
            _matches(SIGNAL, "signal", self.reload)

    @property
    def bundle(self) -> str:
        """The directory of this version."""
        return f"{self.bundles}/{self.name}-{self.version}"

    @property
    def logs(self) -> str:
        """The directory of the log files."""
        return paths.LOGS

    @property
    def jobs(self) -> str:
        """The directory of what became of the last run of each job."""
        return paths.JOBS

    @property
    def asks_container(self) -> bool:
        """Whether the script has to know the container's first process: to check it, or to enter it as a user."""
        return self.check is not None or (self.rootless is not None and bool(self.reload))

    @property
    def waits(self) -> bool:
        """Whether the script is asked to wait until the service is ready."""
        return self.notify == "relay" or (self.check is not None and not self.notify)

    @property
    def patience(self) -> int:
        """Seconds that a start may take until the service is ready."""
        return patience(self.check, notify=bool(self.notify))

    @property
    def secrets_size(self) -> int:
        """MiB that secrets may take: each is 1 MiB at most, and one is for what directories need."""
        return self.secrets + 1

    @property
    def common(self) -> bool:
        """Whether its bridge is in the namespaces that all services of an ordinary user have in common."""
        return self.rootless is not None and self.bridge is not None

    @property
    def created(self) -> bool:
        """Whether the runtime has to call the script when namespaces and cgroup are there; each part says so here."""
        return self.bridge is not None or self.pasta is not None or bool(self.limits)


def patience(check: Check | None, *, notify: bool) -> int:
    """Return how many seconds the start of a service may take until it is ready, 0 if nobody waits for it."""
    return max(NOTIFY_PATIENCE if notify else 0, check.patience if check else 0)


def success_statuses(stop_signal: StopSignal) -> tuple[int, ...]:
    """Exit statuses of a runtime, besides 0, that mean the service ended as it was told to.

    A runtime reports a death by signal N as 128 + N. SIGKILL is never a success: it is what the kernel and impatient
    administrators end a service with.
    """
    return tuple(sorted({128 + SIGTERM, 128 + stop_signal.number} - {128 + SIGKILL}))


def _matches(pattern: re.Pattern[str], what: str, text: str) -> None:
    if not pattern.fullmatch(text):
        raise ValueError(f"not a {what} that a unit can carry: {text!r}")


def _within(what: str, number: int, low: int, high: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise ValueError(f"not a {what} from {low} to {high}: {number!r}")
