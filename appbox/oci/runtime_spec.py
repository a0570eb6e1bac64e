"""`config.json`: what the OCI runtime is told of a service. Values in, a dictionary out; nothing is read or written.

Rules that live here, with their sources:
- the lowest `ociVersion` that suffices, so that other runtimes take the bundle (runtime-spec, config.md); `errnoRet` of
  seccomp is younger, but every runtime that reads 1.0.2 knows it or must pass over it;
- a process that is not root gets its capabilities in the bounding set only, and holds those that were asked for by name
  as ambient ones (capabilities(7)); nobody gets inheritable ones that are not ambient too (CVE-2022-24769);
- the primary group is also a supplementary one, lest a process escape a mode that denies that group (CVE-2022-36109);
- `/sys` cannot be mounted by a user namespace that does not own the network in it: the host's is bound, read-only;
- paths below `/proc` and `/sys` that tell or change the host's state are masked or read-only (as moby has them);
- limits that are not asked for are inherited: a runtime without CAP_SYS_RESOURCE may lower a limit, never raise it;
- annotations are never written: `org.systemd.property.*` would become properties of a unit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from appbox.errors import Refused
from appbox.json_text import indented
from appbox.oci import seccomp
from appbox.oci.capabilities import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from appbox.oci.users import User

OCI_VERSION: Final = "1.0.2"
OCI_VERSION_IDMAP: Final = "1.1.0"
"""The first that knows mounts with ids of their own."""

MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""Paths that tell of the host's hardware, keys or load."""

READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""Paths through which a process could change the host."""

_TTY: Final = 5
_PTS: Final = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", f"gid={_TTY}")

_PLACE: Final = "seccomp"
_FILTERS: Final[deque[tuple[dict[str, Any], str]]] = deque(maxlen=16)

MAX_STRING: Final = 131_071
"""Bytes in one argument or environment string: MAX_ARG_STRLEN of execve(2), less its NUL."""


@dataclass(frozen=True, slots=True)
class IdMap:
    """Container id N is host id `base` + N, for users and groups alike, below `size`."""

    base: int
    size: int = 65536

    def __post_init__(self) -> None:
        if self.base < 1 or self.size < 1 or self.base + self.size > 2**32 - 1:
            raise ValueError(f"no id range: {self.base}:{self.size}")


@dataclass(frozen=True, slots=True)
class IdExtent:
    """`size` ids that are on disk from `disk` on, and seen from `host` on, which is an id of the host's."""

    disk: int
    host: int
    size: int

    def as_dict(self) -> dict[str, int]:
        """Return the mapping as the specification writes it."""
        return {"containerID": self.disk, "hostID": self.host, "size": self.size}


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount inside the container: runtime-spec, config.md, Mounts. An empty `type` is left out (a bind mount).

    `users` and `groups` translate the ids of what is mounted; runtimes before specification 1.1 pass over them.
    """

    destination: str
    source: str
    type: str = ""
    options: tuple[str, ...] = ()
    users: tuple[IdExtent, ...] = ()
    groups: tuple[IdExtent, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the mount as the specification writes it."""
        data: dict[str, Any] = {"destination": self.destination}
        if self.type:
            data["type"] = self.type
        data["source"] = self.source
        if self.options:
            data["options"] = list(self.options)
        if self.users:
            data["uidMappings"] = [extent.as_dict() for extent in self.users]
            data["gidMappings"] = [extent.as_dict() for extent in self.groups]
        return data


@dataclass(frozen=True, slots=True)
class Device:
    """A device node `source` of the host at `target` of the container; `access` is of `rwm`. Owner and mode there."""

    source: str
    target: str
    type: Literal["b", "c"]
    major: int
    minor: int
    access: str = "rwm"
    mode: int = 0o666
    uid: int = 0
    gid: int = 0

    def node(self) -> dict[str, Any]:
        """Return the node for a runtime that makes it."""
        return {
            "path": self.target,
            "type": self.type,
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        }

    def rule(self) -> dict[str, Any]:
        """Return what the container's cgroup allows."""
        return {"allow": True, "type": self.type, "major": self.major, "minor": self.minor, "access": self.access}

    def mount(self) -> Mount:
        """Return the mount for a runtime that cannot make nodes: in a user namespace nobody can."""
        return Mount(self.target, self.source, "", ("bind", "nosuid", "noexec", "rw"))


@dataclass(frozen=True, slots=True)
class Rlimit:
    """A resource limit by its name in getrlimit(2), as `RLIMIT_NOFILE`."""

    type: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Container:
    """Everything that config.json says of a service.

    `env` holds `NAME=value` strings; `mounts` are the service's own, in the order in which they are to be made,
    after the standard ones; `cgroups_path` is relative (see `spec`); `architecture` is the platform of the image
    (`amd64`, `arm64`); `programs_32_bit` lets the seccomp filter know the platform's 32-bit programs, which makes the
    start slower. `network_path` is the network namespace of somebody else, instead of a new one. `hook` is the run
    script, if it is to be called once the namespaces and the cgroup are there.
    `rootless` is how many ids there are in the user namespace that an ordinary user's run script is in; 0 for root's.
    `resources` are the limits of the cgroup as the specification has them (config-linux.md, Control groups).
    `ambient` are the capabilities that a process which is not root holds too; `apparmor` is a profile of the host;
    `masked` are paths that this host should hide besides `MASKED_PATHS`.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = field(default_factory=lambda: User(0, 0))
    hostname: str = ""
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    no_new_privileges: bool = True
    userns: IdMap | None = None
    rootless: int = 0
    network: Literal["host", "none"] = "none"
    network_path: str = ""
    mounts: tuple[Mount, ...] = ()
    seccomp: Literal["default", "unconfined"] = "default"
    architecture: str = "amd64"
    cgroups_path: str = ""
    rlimits: tuple[Rlimit, ...] = ()
    read_only: bool = False
    programs_32_bit: bool = False
    hook: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)
    ambient: frozenset[str] = frozenset()
    apparmor: str = ""
    devices: tuple[Device, ...] = ()
    sysctl: Mapping[str, str] = field(default_factory=dict)
    masked: tuple[str, ...] = ()


def spec(container: Container) -> dict[str, Any]:
    """Return the OCI runtime configuration of `container`.

    A relative `cgroups_path` is taken by runc from the parent of its own cgroup, so that a run script which moved
    itself to `<unit>/supervisor` gets `<unit>/<cgroups_path>`, whatever the init system and slice.
    Raises `Refused` for a string that no process could be given exactly.
    """
    return {
        "ociVersion": OCI_VERSION_IDMAP if any(mount.users for mount in container.mounts) else OCI_VERSION,
        "process": _process(container),
        "root": {"path": "rootfs", "readonly": container.read_only},
        **({"hostname": container.hostname} if container.hostname else {}),
        "mounts": [mount.as_dict() for mount in _all_mounts(container)],
        **({"hooks": _hooks(container.hook)} if container.hook else {}),
        "linux": _linux(container),
    }


def command(container: Container, args: Iterable[str]) -> dict[str, Any]:
    """Return the process object with which `runc exec --process` runs `args` beside the service, as the service is.

    Raises `Refused` for a string that no process could be given exactly.
    """
    return _process(replace(container, args=tuple(args)))


def _hooks(script: str) -> dict[str, Any]:
    """The run script as a createRuntime hook: it runs in the host's namespaces, before anything of the image does."""
    return {"createRuntime": [{"path": script, "args": [script, "created"]}]}


def dumps(data: dict[str, Any]) -> str:
    """Return `data` as indented JSON that ends in a newline.

    It is pure ASCII: any character comes back exactly, and none can be taken for something else on the way.
    """
    linux = data.get("linux", {})
    if "seccomp" not in linux:
        return indented(data, 2) + "\n"
    # The filter is nine tenths of the text and the same for most services.
    text = indented({**data, "linux": {**linux, "seccomp": _PLACE}}, 2)
    # Whatever comes after the filter is constant, so that the last occurrence is the place, whatever arguments say.
    before, _, after = text.rpartition(f'"{_PLACE}"')
    return f"{before}{_filter(linux['seccomp'])}{after}\n"


def _filter(profile: dict[str, Any]) -> str:
    """Return a filter as it stands in the text, made once: comparing it with those before is ten times as quick."""
    for known, text in _FILTERS:
        if known == profile:
            return text
    text = indented(profile, 2).replace("\n", "\n    ")
    # Whoever has the profile may change it.
    _FILTERS.append((deepcopy(profile), text))
    return text


def _process(container: Container) -> dict[str, Any]:
    if not container.args:
        raise Refused("there is nothing to run", where="args", hint="name a program in [process] entrypoint or args")
    _exact("args", container.args)
    _exact("env", container.env)
    _exact("cwd", (container.cwd,))
    data: dict[str, Any] = {
        "terminal": False,
        "user": _user(container),
        "args": list(container.args),
        "env": list(container.env),
        "cwd": container.cwd,
        "capabilities": _capabilities(container),
        "noNewPrivileges": container.no_new_privileges,
    }
    if container.apparmor:
        data["apparmorProfile"] = container.apparmor
    if container.rlimits:
        data["rlimits"] = [{"type": r.type, "soft": r.soft, "hard": r.hard} for r in container.rlimits]
    return data


def _exact(where: str, strings: Iterable[str]) -> None:
    """Refuse what execve(2) cannot carry: NUL, half a surrogate pair, a string over MAX_ARG_STRLEN."""
    for index, text in enumerate(strings):
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise Refused("a lone surrogate is no character", where=f"{where}[{index}]") from None
        if "\0" in text:
            raise Refused("a NUL character cannot be passed to a process", where=f"{where}[{index}]")
        if size > MAX_STRING:
            why = f"{size} bytes, and the kernel takes {MAX_STRING} at most"
            raise Refused("the string is too long for a process", where=f"{where}[{index}]", why=why)


def _user(container: Container) -> dict[str, Any]:
    user = container.user
    if container.rootless == 1:  # who has only the own group may choose no others
        return {"uid": user.uid, "gid": user.gid, "umask": 0o022}
    groups = dict.fromkeys((user.gid, *user.groups))
    return {"uid": user.uid, "gid": user.gid, "umask": 0o022, "additionalGids": list(groups)}


def _capabilities(container: Container) -> dict[str, list[str]]:
    unknown = sorted(container.capabilities - ALL_CAPABILITIES)
    if unknown:
        raise Refused("no such capability", where=", ".join(unknown))
    names = sorted(container.capabilities)
    ambient = [] if container.user.uid == 0 else sorted(container.ambient & container.capabilities)
    held = names if container.user.uid == 0 else ambient
    return {"bounding": names, "effective": held, "permitted": held, "inheritable": ambient, "ambient": ambient}


def _all_mounts(container: Container) -> tuple[Mount, ...]:
    bound = tuple(device.mount() for device in container.devices) if _in_userns(container) else ()
    return (*_standard_mounts(container), *container.mounts, *bound)


def _in_userns(container: Container) -> bool:
    """Return whether the service is in another user namespace than the host, be it made by the runtime or before it."""
    return container.userns is not None or container.rootless > 0


def _standard_mounts(container: Container) -> tuple[Mount, ...]:
    return (
        Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount("/dev/pts", "devpts", "devpts", _pts(container)),
        Mount("/dev/shm", "shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),  # noqa: S108
        Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
        _sys(container),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
    )


def _pts(container: Container) -> tuple[str, ...]:
    size = container.userns.size if container.userns else container.rootless or _TTY + 1
    # The group tty of every distribution; a mount with an id that the namespace does not have fails.
    return _PTS if size > _TTY else tuple(option for option in _PTS if option != f"gid={_TTY}")


def _sys(container: Container) -> Mount:
    # sysfs shows the devices of one network namespace and may be mounted only by the user namespace that owns it.
    if _in_userns(container) and (container.network == "host" or container.network_path):
        return Mount("/sys", "/sys", "none", ("rbind", "rslave", "nosuid", "noexec", "nodev", "ro"))
    return Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro"))


def _linux(container: Container) -> dict[str, Any]:
    data: dict[str, Any] = {"namespaces": _namespaces(container)}
    if container.userns:
        mapping = {"containerID": 0, "hostID": container.userns.base, "size": container.userns.size}
        data |= {"uidMappings": [mapping], "gidMappings": [dict(mapping)]}
    if container.cgroups_path:
        data["cgroupsPath"] = container.cgroups_path
    # Everything is denied first; the runtime then allows the devices of runtime-spec, config-linux.md, Default Devices.
    rules = [{"allow": False, "access": "rwm"}, *(device.rule() for device in container.devices)]
    data["resources"] = {"devices": rules, **container.resources}
    if container.devices and not _in_userns(container):
        data["devices"] = [device.node() for device in container.devices]
    if container.sysctl:
        data["sysctl"] = dict(container.sysctl)
    if container.seccomp == "default":
        data["seccomp"] = seccomp.profile(
            container.architecture, container.capabilities, programs_32_bit=container.programs_32_bit
        )
    data |= {"maskedPaths": [*MASKED_PATHS, *container.masked], "readonlyPaths": list(READONLY_PATHS)}
    return data


def _namespaces(container: Container) -> list[dict[str, str]]:
    names = ["cgroup", "ipc", "mount", "pid", "uts"]
    # A new network namespace has a loopback interface of its own, which runtimes bring up, and no other.
    if container.network == "none":
        names.append("network")
    if container.userns:
        names.append("user")
    path = {"network": {"path": container.network_path}} if container.network_path else {}
    return [{"type": name, **path.get(name, {})} for name in sorted(names)]
