"""What a service's process and its isolation need of the host, and what of it is missing. Pure.

`borrowed` is what no root can do without, since a path or a number of it goes into the bundle; `lacks` is about a host
that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from appbox import devices, owner, rlimits
from appbox.host.facts import Abilities, Facts
from appbox.locked import Asking
from appbox.oci import runtimes
from appbox.store import paths
from appbox.toml_source import Path

Need = tuple[Path, str, str]
"""A key, what is missing, and what mends it."""

SYSTEMD_OPEN_FILES: Final = 524_288
"""The hard limit of open files that systemd gives a unit (systemd-system.conf(5), DefaultLimitNOFILE=)."""


def borrowed(locked: Asking, facts: Facts) -> Iterator[Need]:
    """Yield what the service cannot be given because the host does not have it."""
    process, found = locked.manifest.process, locked.borrowed
    for index, device in enumerate(found.devices):
        if device.problem:
            yield ("security", "devices", index), device.problem, "ls -l /dev shows what there is"
        elif owner.current() and not {"r", "w"} <= {*devices.parse(locked.manifest.security.devices[index]).access}:
            message = "an ordinary user cannot take reading or writing from a service alone"
            yield ("security", "devices", index), message, "take its access out, and give the node itself another mode"
    if process.init and not found.reaper:
        message = "this host has no static init to start as process 1 (tini-static, catatonit or docker-init)"
        yield ("process", "init"), message, facts.distribution.hint("tini")
    if process.timezone and found.zone is None:
        what = "/etc/localtime" if process.timezone == "host" else f"time zone {process.timezone}"
        yield ("process", "timezone"), f"this host has no {what}", facts.distribution.hint("tzdata")


def lacks(locked: Asking, facts: Facts) -> Iterator[Need]:
    """Yield what a running host lacks for the service: runtime, profile, limits, kernel parameters."""
    able = facts.abilities
    if able is None:
        return
    yield from _runtime(facts, able)
    yield from _profile(locked, able)
    yield from _manager(facts, able)
    if able.noexec:
        hint = "mount it without noexec, or set XDG_DATA_HOME" if owner.current() else "mount it without noexec"
        yield (), f"{paths.CONTAINERS} is on a file system from which no program can be started (noexec)", hint
    yield from _limits(locked, facts, able)
    for name in locked.manifest.security.sysctl:
        if name in able.no_sysctls:
            message = "a container has no such kernel parameter on this host, or may not set it"
            yield ("security", "sysctl", name), message, "see /proc/sys, and load the module that it belongs to"


def _runtime(facts: Facts, able: Abilities) -> Iterator[Need]:
    if able.no_runtime:
        yield (
            (),
            "neither runc nor crun is installed, and services run through one of them",
            facts.distribution.hint("runc"),
        )
    if able.runtime is not None and (why := runtimes.unsafe(able.runtime)):
        yield (), f"{able.runtime} is too old to run anything safely: {why}", "install runc 1.1.12 or later"


def _manager(facts: Facts, able: Abilities) -> Iterator[Need]:
    own = owner.current()
    if own is not None and facts.init == "systemd" and able.manager == "missing":
        what = f"no systemd of {own.name or own.uid} runs, and it runs the user's services"
        yield (), what, f"let root do: loginctl enable-linger {own.name or own.uid}"


def notes(facts: Facts) -> Iterator[str]:
    """Yield what an ordinary user should know of the init system."""
    own = owner.current()
    if own is None or own.by_root or not facts.live:
        return
    if facts.init == "systemd" and facts.abilities is not None and facts.abilities.manager == "brief":
        yield f"services end with the last login, unless root does once: loginctl enable-linger {own.name}"
    if facts.init == "openrc" and facts.abilities is not None and facts.abilities.manager == "brief":
        link = f"ln -s user /etc/init.d/user.{own.name}; rc-update add user.{own.name}"
        yield f"nothing starts it at boot, unless root does once: {link} (appbox doctor does more)"
    if facts.init == "none" and own.name:
        yield f"nothing starts it at boot; where root's init system shall: appbox --user {own.name} apply, by root"


def _profile(locked: Asking, able: Abilities) -> Iterator[Need]:
    name = locked.manifest.security.apparmor
    if not name:
        return
    at: Path = ("security", "apparmor")
    if able.apparmor is None:
        yield (
            at,
            "this host has no AppArmor, or it is off",
            "take the key out, or boot with apparmor=1 security=apparmor",
        )
    elif name not in {"unconfined", *able.apparmor}:
        yield at, f"no AppArmor profile {name} is loaded", f"load it: apparmor_parser -r /etc/apparmor.d/{name}"


def _limits(locked: Asking, facts: Facts, able: Abilities) -> Iterator[Need]:
    """A runtime may raise a hard limit only with CAP_SYS_RESOURCE, which not even root has everywhere."""
    for name, value in rlimits.wanted(locked.manifest.resources).items():
        most = able.hard_limits.get(name)
        if name == "nofile":
            if able.raises_limits or most is None:
                most = able.open_files
            elif facts.init == "systemd":
                most = min(most, SYSTEMD_OPEN_FILES)
        elif able.raises_limits:
            continue
        if most is not None and value > most:
            hint = f"take at most {most}, or start the host's init with CAP_SYS_RESOURCE and higher limits"
            if owner.current() is not None:
                hint = f"take at most {most}, which is your own hard limit"
            yield ("resources", name), "is more than this host can give a service", hint
