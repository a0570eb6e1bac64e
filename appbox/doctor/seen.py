"""A host as the doctor saw it, as values; `probing` looks. Pure. None and "" stand for what could not be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appbox.distribution import UNKNOWN, Distribution
from appbox.host.facts import Cgroups, IdRange, InitKind
from appbox.oci.runtimes import Runtime
from appbox.subids import Table


@dataclass(frozen=True, slots=True)
class Tried:
    """How an attempt ended: `problem` is empty when it worked. `stage` names the step that failed."""

    problem: str = ""
    stage: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the kernel has. `switches` are the parameters that forbid user namespaces, as far as they exist.

    `overlay` is None when only mounting one would tell. `nested` is the attempt to mount an overlay with `userxattr` in
    a new user namespace, made as whoever is to run services; its stages are "namespace", "tmpfs", "overlay", "use".
    """

    release: str = ""
    openat2: bool = True
    overlay: bool = True
    seccomp: bool = True
    namespaces: bool = True
    switches: Mapping[str, str] = field(default_factory=dict)
    nested: Tried | None = None
    port_start: int = 1024


@dataclass(frozen=True, slots=True)
class Found:
    """A runtime on the host; `version` is None when it did not say."""

    path: str
    version: Runtime | None = None


@dataclass(frozen=True, slots=True)
class Helper:
    """newuidmap or newgidmap: whether it may do what it is for, by the setuid bit or by file capabilities.

    `nosuid`: its file system is mounted so that neither counts.
    """

    path: str = ""
    setuid: bool = False
    capable: bool = False
    owner: int = 0
    nosuid: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A device node: `mode` is None when there is none."""

    mode: int | None = None
    owner: int = 0
    module: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where bundles go. `path` is where they will be, `existing` its nearest directory that is there.

    `path` is "" for a user without a home. `free` is in bytes, `files` the inodes left (-1: not counted). `problem` is
    why nothing can be written there, `full` tells that it is for want of room. `xattrs` and `reflink` are None when
    nothing could be written.
    """

    path: str
    existing: str = "/"
    file_system: str = ""
    free: int = 0
    files: int = -1
    options: frozenset[str] = frozenset()
    xattrs: bool | None = None
    reflink: bool | None = None
    problem: str = ""
    full: bool = False


@dataclass(frozen=True, slots=True)
class Clock:
    """`now` and `built` (when this appbox was) in seconds since 1970; `synchronised` as the kernel says."""

    now: float = 0.0
    built: float = 0.0
    synchronised: bool | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry that was asked; `wanted_by` are images, `problem` is why it does not answer, `hint` what to do."""

    name: str
    wanted_by: tuple[str, ...] = ()
    problem: str = ""
    hint: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class OpenRC:
    """What OpenRC is, and what /etc/rc.conf says of cgroups; `in_runlevel`: its service "cgroups" starts at boot.

    `users`: it can start services of users at boot.
    """

    version: tuple[int, int] = (0, 0)
    mode: str = ""
    controllers: str = ""
    in_runlevel: bool = False
    users: bool = False

    def __str__(self) -> str:
        return f"OpenRC {'.'.join(map(str, self.version))}" if any(self.version) else "OpenRC"


@dataclass(frozen=True, slots=True)
class RuntimeDirectory:
    """$XDG_RUNTIME_DIR: `said` tells whether the login said it, `fault` why it cannot be used.

    `instead` is what appbox takes then, "" when it ends with an error; `instead_fault` is why that cannot be used.
    """

    path: str = ""
    said: bool = False
    there: bool = False
    fault: str = ""
    file_system: str = ""
    instead: str = ""
    instead_fault: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """An ordinary user. `name` and `home` are empty for a number without a password entry.

    `subids` are the tables of /etc/subuid and /etc/subgid, `source` where the ranges really come from. `delegated` are
    the controllers that his systemd may use, None when it does not run, `promised` those that it gets when it is
    started; `linger` tells whether it, or his OpenRC, runs without a login, `settings` whether somebody has said how
    root's OpenRC starts his (/etc/conf.d).
    """

    name: str
    uid: int
    gid: int
    home: str = ""
    home_exists: bool = False
    home_owner: int = 0
    uids: tuple[IdRange, ...] = ()
    gids: tuple[IdRange, ...] = ()
    tables: tuple[Table, Table] = (Table("/etc/subuid"), Table("/etc/subgid"))
    source: str = "files"
    names: Mapping[str, int] = field(default_factory=dict)
    uidmap: Helper = Helper()
    gidmap: Helper = Helper()
    runtime: RuntimeDirectory = RuntimeDirectory()
    linger: bool | None = None
    settings: bool = False
    delegated: frozenset[str] | None = None
    promised: frozenset[str] | None = None

    def __str__(self) -> str:
        return self.name or f"the user id {self.uid}"


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that was looked at. `root`: the doctor runs as root; `login` is None when root's services are meant.

    `programs` maps the names of programs to their paths; `plugins` maps CNI plugins to where they are. `no_lists`: apt
    does not know yet which packages there are.
    """

    distribution: Distribution = UNKNOWN
    init: InitKind = "none"
    live: bool = True
    root: bool = True
    kernel: Kernel = Kernel()
    cgroups: Cgroups | None = None
    groups_mounted: str = "unified"
    runtimes: Mapping[str, Found] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)
    tun: Node = Node()
    store: Place = Place("/opt/containers")
    clock: Clock = Clock()
    registries: tuple[Registry, ...] = ()
    openrc: OpenRC | None = None
    login: Login | None = None
    age_key: str = ""
    no_lists: bool = False
    cron: bool = True
    reaper: bool = False
    first: Tried | None = None
