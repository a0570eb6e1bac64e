"""What is known of a host, as values. Gathering them is `host.gather`'s work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from appbox.distribution import UNKNOWN, Distribution
from appbox.oci.model import Platform
from appbox.oci.runtimes import Runtime

InitKind = Literal["systemd", "openrc", "none"]


@dataclass(frozen=True, slots=True)
class IdRange:
    """`size` consecutive user or group ids of the host, from `base` on."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first id after the range."""
        return self.base + self.size

    def overlaps(self, other: IdRange) -> bool:
        """Return whether both ranges share an id."""
        return self.base < other.end and other.base < self.end


@dataclass(frozen=True, slots=True)
class Taken(IdRange):
    """Ids that somebody of the host has; `whose` says so in words."""

    whose: str = ""


@dataclass(frozen=True, slots=True)
class Cgroups:
    """What the control groups of a host can limit: version 2 alone (`unified`), or version 1.

    `controllers` go by their names in version 2. `swap` and `io_weight` say whether the kernel has files for them.
    `given`: they are what an ordinary user was given of them; "nothing" where nobody gives a user any.
    """

    unified: bool = True
    controllers: frozenset[str] = frozenset()
    swap: bool = True
    io_weight: bool = True
    given: Literal["", "some", "nothing"] = ""


@dataclass(frozen=True, slots=True)
class Networking:
    """What a host has for bridges: CNI plugins and programs by name, IPv6, and whether it forwards packets already."""

    plugins: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()
    ipv6: bool = True
    forwards: bool = True
    forwards6: bool = True


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a live host can do, as far as the manifests at hand depend on it; `host.abilities` finds it out.

    Nothing is known of a root that does not run: None in `Facts`, and nothing is refused then.
    `runtime` is None when it did not say what it is; `kernel` is major and minor version. `apparmor` are the
    profiles that are loaded, None without AppArmor. `hard_limits` are the rlimits of process 1 by their names in a
    manifest; `raises_limits` says whether it may give more, `open_files` what the kernel has at most. `no_sysctls`
    are those of the asked-for kernel parameters that a container would not have. `cgroups` is None when no manifest
    asks for limits, and `programs`, which health checks need, when no manifest has one. `live_mounts`: the kernel
    can replace a file that a running container sees. `secrets` maps what manifests read secrets with, files of the
    host and "age", to what is wrong with it, "" if nothing. `manager` is what is wrong with the user's own init
    system: there is none, or nothing starts it without a login. `pasta` is what is wrong with pasta, "" if nothing.
    `first_port` is the lowest one on which an ordinary user may listen; 0 for root's services. `no_overlay` is why
    an ordinary user can mount none over the files of an image, "" if that can be done. `noexec`: programs cannot be
    started from where services are. `slirp`: slirp4netns is there, and pasta is not.
    """

    runtime: Runtime | None = None
    no_runtime: bool = False
    kernel: tuple[int, int] = (0, 0)
    apparmor: frozenset[str] | None = None
    hard_limits: Mapping[str, int] = field(default_factory=dict)
    raises_limits: bool = True
    open_files: int | None = None
    no_sysctls: frozenset[str] = frozenset()
    cgroups: Cgroups | None = None
    pasta: str = ""
    networking: Networking | None = None
    programs: frozenset[str] | None = None
    live_mounts: bool = True
    secrets: Mapping[str, str] = field(default_factory=dict)
    manager: Literal["", "missing", "brief"] = ""
    first_port: int = 0
    no_overlay: str = ""
    noexec: bool = False
    slirp: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """A host as the pure modules see it.

    `live` is false below `--root DIR`, where nothing is started. `taken` are the id ranges of /etc/subuid,
    /etc/subgid and of users; `ranges` maps services to the range that they were given.
    `cron` is what OpenRC's timed jobs go to: a directory of tables, the one table of busybox's crond, or there is none.
    `program` is where appbox itself is; "" when it was started in a way that no timer could repeat.
    `distribution` is who knows how something is installed.
    `memory` is in bytes. `masked` are paths of this host's hardware that containers should not see.
    """

    hostname: str
    platform: Platform
    init: InitKind
    live: bool
    cpus: int = 1
    memory: int = 1 << 30
    masked: tuple[str, ...] = ()
    taken: tuple[Taken, ...] = ()
    ranges: Mapping[str, IdRange] = field(default_factory=dict)
    cron: Literal["", "cron.d", "crontab"] = "cron.d"
    abilities: Abilities | None = None
    program: str = ""
    distribution: Distribution = UNKNOWN

    def for_templates(self) -> dict[str, str | int]:
        """Return what a template sees as `facts`."""
        return {
            "hostname": self.hostname,
            "architecture": self.platform.architecture,
            "init": self.init,
            "cpus": self.cpus,
            "memory": self.memory,
        }


EXAMPLE: Final = Facts(
    hostname="example",
    platform=Platform("linux", "amd64"),
    init="systemd",
    live=False,
    cpus=2,
    memory=4 << 30,
    program="/usr/bin/appbox",
)
"""A made-up host: `check` renders templates with it, because it may not look at the real one."""
