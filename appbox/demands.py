"""What a manifest asks of its host, and what of it the host does not have. Pure.

A plan that cannot work is refused before anything is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from appbox import container, health, needs, owner, unprivileged
from appbox.addresses import by_pasta
from appbox.host.facts import Cgroups, Facts
from appbox.locked import Asking
from appbox.store import paths
from appbox.toml_source import Path


@dataclass(frozen=True, slots=True)
class Lack:
    """A key that the host cannot act on, why, and what mends it."""

    key: Path
    message: str
    hint: str = ""


def missing(locked: Asking, facts: Facts) -> Iterator[Lack]:
    """Yield what the host of `facts` lacks for a manifest; not much is known of one that does not run."""
    for key, what, hint in (
        *unprivileged.lacks(locked, facts),
        *needs.borrowed(locked, facts),
        *needs.lacks(locked, facts),
    ):
        yield Lack(key, what, hint)
    if facts.abilities is not None:
        for demand in _DEMANDS:
            yield from demand(locked, facts)


CONTROLLERS: Final = {
    "memory": "memory",
    "memory_swap": "memory",
    "cpus": "cpu",
    "cpu_weight": "cpu",
    "pids": "pids",
    "io_weight": "io",
}
"""The keys of [resources] that are a cgroup's, and the controller that each needs."""


def _limits(locked: Asking, facts: Facts) -> Iterator[Lack]:
    """A limit that the kernel does not know of would be silence, not a limit."""
    cgroups = facts.abilities.cgroups if facts.abilities else None
    if cgroups is None:
        return
    for key, controller in CONTROLLERS.items():
        if getattr(locked.manifest.resources, key) is None:
            continue
        at = ("resources", key)
        if cgroups.given and controller not in cgroups.controllers:
            yield Lack(at, *_not_given(cgroups, controller))
        elif controller not in cgroups.controllers:
            yield Lack(at, _no_controller(cgroups, controller), _all_controllers(facts))
        elif key == "memory_swap" and not cgroups.swap:
            yield Lack(at, "the kernel does not count swap", "boot it with swapaccount=1")
        elif key == "io_weight" and not cgroups.io_weight:
            yield Lack(at, "the kernel has no weights for disks", "modprobe bfq, or take the key out")


def _not_given(cgroups: Cgroups, controller: str) -> tuple[str, str]:
    """Return why a limit of an ordinary user's service would be none, and who can mend that."""
    own = owner.current()
    name = own.name if own else ""
    if cgroups.given == "nothing":
        hint = f"let root's init system run it: appbox --user {name} apply; or take the key out"
        return "no limit can be set: nobody has given you a cgroup of your own", hint
    if own and own.by_root:
        hint = 'set rc_cgroup_mode="unified" and rc_cgroup_controllers in /etc/rc.conf, and reboot; or take the key out'
        return f"no limit can be set: OpenRC has not turned the cgroup controller {controller} on", hint
    hint = f"let root do: appbox doctor --user {name} --fix; or take the key out"
    return f"no limit can be set: your systemd was not given the cgroup controller {controller}", hint


def _no_controller(cgroups: Cgroups, controller: str) -> str:
    if cgroups.unified:
        return f"this host has no cgroup controller {controller}: /sys/fs/cgroup/cgroup.controllers does not name it"
    return f"this host has no cgroup controller {controller}: none is mounted below /sys/fs/cgroup"


def _all_controllers(facts: Facts) -> str:
    """What inits and kernels have to be told so that cgroup v2 has every controller."""
    if facts.init == "openrc":
        return (
            'set rc_cgroup_mode="unified" in /etc/rc.conf, run rc-update add cgroups and reboot; some kernels want '
            "cgroup_enable=memory on their command line"
        )
    return (
        "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line; some kernels want "
        "cgroup_enable=memory there"
    )


def _health(locked: Asking, facts: Facts) -> Iterator[Lack]:
    """Health checks and readiness ask with programs of the host."""
    programs = facts.abilities.programs if facts.abilities else None
    if programs is not None:
        for key, what, hint in health.lacks(locked.manifest, facts.init, programs):
            yield Lack(key, what, hint)


def _bridge(locked: Asking, facts: Facts) -> Iterator[Lack]:
    """A bridge needs plugins, and rules of the host's firewall unless it is a user's, which leads nowhere."""
    found, attachment = facts.abilities.networking if facts.abilities else None, locked.attachment
    if found is None or attachment is None:
        return
    at: Path = ("network", "mode")
    user = owner.current() is not None
    plugins = ["bridge", "static", *(["portmap"] if locked.manifest.network.ports and not user else [])]
    if lacking := [name for name in plugins if name not in found.plugins]:
        message = f"this host has no CNI plugin {' and no '.join(lacking)} in /opt/cni/bin or /usr/lib/cni"
        yield Lack(at, message, facts.distribution.hint("cni"))
    with_ipv6 = attachment.network.subnet6 is not None
    for name in () if user else ("iptables", *(["ip6tables"] if with_ipv6 else [])):
        if name not in found.programs:
            yield Lack(at, f"a bridge needs {name}, which is not installed", facts.distribution.hint("iptables"))
    if "flock" not in found.programs:
        yield Lack(at, "a bridge needs flock, which is not installed", facts.distribution.hint("flock"))
    if with_ipv6 and not found.ipv6:
        yield Lack(at, "the kernel has no IPv6", f"take subnet6 out of {paths.NETWORKS}")


def _secrets(locked: Asking, facts: Facts) -> Iterator[Lack]:
    """A secret that cannot be read keeps the service from starting."""
    wrong = facts.abilities.secrets if facts.abilities else {}
    for name, secret in locked.manifest.secrets.items():
        if secret.file is not None and (why := wrong.get(secret.file)):
            mend = f"chmod 0400 {secret.file}" if owner.current() else f"chown root and chmod 0400 {secret.file}"
            hint = "put it there" if why == "is missing" else mend
            yield Lack(("secrets", name, "file"), f"{secret.file} {why}", hint)
        if secret.age is not None and (why := wrong.get("age")):
            hint = facts.distribution.hint("age") if "installed" in why else "age-keygen -o makes one; chmod 0400 it"
            yield Lack(("secrets", name, "age"), why, hint)


def _pasta(locked: Asking, facts: Facts) -> Iterator[Lack]:
    problem = facts.abilities.pasta if facts.abilities else ""
    mode, user = locked.manifest.network.mode, owner.current() is not None
    if problem and by_pasta(mode, user=user):
        hint = "modprobe tun" if "tun" in problem else "install the package passt"
        if "may not" in problem:
            hint = "let root do: chmod 0666 /dev/net/tun; and at each boot by a udev rule: see appbox doctor"
        other = '"host"' if user else '"bridge"'
        yield Lack(("network", "mode"), problem, f"{hint}; or take mode = {other}")


def _cron(locked: Asking, facts: Facts) -> Iterator[Lack]:
    """OpenRC has no timers."""
    timed = locked.manifest.service.schedule or locked.manifest.snapshots.schedule
    if timed and facts.init == "openrc" and not facts.cron:
        message = "this host has no cron daemon, which starts timed jobs under OpenRC"
        table = "service" if locked.manifest.service.schedule else "snapshots"
        yield Lack((table, "schedule"), message, facts.distribution.hint("cron"))


def _enter(locked: Asking, facts: Facts) -> Iterator[Lack]:
    """A runtime that joins the user namespace first may then not join the network of another one."""
    runtime = facts.abilities.runtime if facts.abilities else None
    manifest = locked.manifest
    if runtime is None or runtime.joins_foreign_networks or not container.is_mapped(manifest):
        return
    if manifest.network.mode.startswith("service:"):
        message = f"{runtime} cannot enter a service with user ids of its own in the network of another one"
        hint = 'install runc 1.2.2 or later, or set security.userns = "host"'
        if manifest.health is not None and manifest.health.exec is not None:
            yield Lack(("health", "exec"), message, f"{hint}, or take tcp or http instead")
        if isinstance(manifest.service.reload, tuple):
            yield Lack(("service", "reload"), message, f"{hint}, or name a signal instead")


_RECURSIVE: Final = (5, 12)
"""The kernel that can make a mount read-only with all that is mounted below it (mount_setattr(2))."""


def _read_only(locked: Asking, facts: Facts) -> Iterator[Lack]:
    """A volume that is partly writable is no read-only one."""
    kernel = facts.abilities.kernel if facts.abilities else (0, 0)
    if (0, 0) < kernel < _RECURSIVE:
        for name, volume in locked.manifest.volumes.items():
            if volume.read_only:
                message = "this kernel cannot make everything below a volume read-only"
                yield Lack(("volumes", name, "read_only"), message, "Linux 5.12 or later is needed")


_DEMANDS: tuple[Callable[[Asking, Facts], Iterator[Lack]], ...] = (
    _limits,
    _health,
    _bridge,
    _secrets,
    _pasta,
    _enter,
    _read_only,
    _cron,
)
