"""What an ordinary user's services cannot have, and what they have otherwise than root's: each in words. Pure.

Nothing that a manifest asks for is silently dropped: what the kernel leaves to root alone is refused before anything is
touched, with what to write instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from appbox import owner, rules
from appbox.host.facts import Facts
from appbox.locked import Asking, Locked
from appbox.owner import Owner
from appbox.store import paths
from appbox.toml_source import Path
from appbox.volumes import VolumeSpec

PORTS = "net.ipv4.ip_unprivileged_port_start"
"""The sysctl with the first port on which an ordinary user may listen (ip-sysctl.rst)."""

STOP_LIMIT = 120
"""Seconds for which a host waits at its shutdown for what root's init runs for a user, as it does for the user's own
manager (user@.service, TimeoutStopSec=)."""

Need = tuple[Path, str, str]
"""A key, what is missing, and what mends it."""


def lacks(locked: Asking, facts: Facts) -> Iterator[Need]:
    """Yield what of a manifest an ordinary user cannot have; nothing for root's services."""
    own = owner.current()
    if own is None:
        return
    security, service = locked.manifest.security, locked.manifest.service
    if facts.init == "openrc" and not own.by_root and (service.schedule or locked.manifest.snapshots.schedule):
        message = "OpenRC has no timers, and the tables of cron are root's"
        hint = f"let root's init system run it: appbox --user {own.name} apply; or take the key out"
        yield ("service" if service.schedule else "snapshots", "schedule"), message, hint
    if own.by_root and locked.manifest.process.stop_timeout > STOP_LIMIT:
        message = f"a shutdown of the host would wait so long for a service of {own.name}"
        yield ("process", "stop_timeout"), message, f"take at most {STOP_LIMIT} seconds"
    yield from _bridge(locked)
    if not isinstance(security.userns, str):
        message = f"names ids of the host, and {_name(own)} has only those of /etc/subuid and /etc/subgid"
        yield ("security", "userns"), message, "take the key out: the services of a user have the user's ids"
    if security.apparmor not in {"", "unconfined"}:
        message = "only root sees which AppArmor profiles are loaded, and only root's services are put under one"
        yield ("security", "apparmor"), message, "take the key out"
    if security.rootfs == "persistent" and (why := _no_overlay(facts)):
        message = f"there is no overlay, which keeps what is written apart: {why}"
        yield ("security", "rootfs"), message, _NOT_KEPT
    first = facts.abilities.first_port if facts.abilities else 0
    for index, port in enumerate(locked.manifest.network.ports):
        if port.host_port < first:
            message = f"port {port.host_port} is root's: an ordinary user may listen from {first} on"
            yield ("network", "ports", index), message, f"take another port, or {_lower(port.host_port)}"
    if locked.manifest.network.ports and facts.abilities is not None and facts.abilities.slirp:
        message = "slirp4netns publishes no ports, and pasta is not installed"
        yield ("network", "ports"), message, "install the package passt"


_NOT_KEPT = 'take rootfs = "overlay", or another file system for XDG_DATA_HOME'


def _no_overlay(facts: Facts) -> str:
    return facts.abilities.no_overlay if facts.abilities else ""


def _bridge(locked: Asking) -> Iterator[Need]:
    """Bridges of a user are connected with nothing, so that nothing can be said of packets from one to another."""
    if locked.attachment is None:
        return
    network = locked.attachment.network
    out = f"take the key out of {paths.NETWORKS}"
    for key, hint in (("isolate", f"put the services on one bridge, and {out}"), ("masquerade", out)):
        if not getattr(network, key):
            message = f"{key} = false of the network {network.name} is for root's: a user's bridge leads to no other"
            yield ("network", "mode"), message, hint
    for finding in rules.ports_of_pasta(locked.manifest.network.ports):
        yield finding.path, finding.message, "take another port, or all addresses"


def _lower(port: int) -> str:
    return f"let root do: echo {PORTS}={port} > /etc/sysctl.d/50-appbox.conf; sysctl -p /etc/sysctl.d/50-appbox.conf"


def _name(own: Owner) -> str:
    return own.name or f"the user {own.uid}"


def refuse_owners(locked: Locked, volumes: tuple[VolumeSpec, ...]) -> None:
    """Raise ManifestError for a host path that is to appear as another's: only root can mount it like that."""
    for volume in volumes if owner.current() else ():
        there = locked.sources.get(volume.source) if volume.kind == "host" else None
        table = locked.manifest.volumes.get(volume.name)
        if there is None or table is None or table.owner == "image" or volume.owner is None or volume.take:
            continue
        if (there.uid, there.gid) != volume.owner:
            message = f"{volume.source} is there already and belongs to {there.whose}, not to {table.owner}"
            hint = _give(volume) if there.own else "leave the key out, or take a place of your own"
            raise locked.refuse(("volumes", volume.name, "owner"), message, hint)


def _give(volume: VolumeSpec) -> str:
    """Return the command that gives the user's own files to one of the service's ids."""
    owner_ = ":".join(map(str, volume.owner or (0, 0)))
    return f"give it away: unshare --map-root-user --map-auto chown -R {owner_} {volume.source}"


def notes(locked: Locked, facts: Facts, volumes: tuple[VolumeSpec, ...]) -> Iterator[str]:
    """Yield what an ordinary user should know of what the services have otherwise than root's."""
    own = owner.current()
    if own is None:
        return
    if locked.manifest.security.userns == "host":
        yield f'security.userns = "host" changes nothing: root in the service is {_name(own)} on the host'
    if own.alone:
        yield f"there are no ids but {_name(own)}'s own in the service, and no users but root: see appbox doctor"
    if why := _no_overlay(facts):
        yield f"each start copies all files of the image, which takes time and as much disk again: {why}"
    yield from _ports(locked, facts)
    for volume in volumes:
        yield from _source(locked, volume)


def _ports(locked: Locked, facts: Facts) -> Iterator[str]:
    first = facts.abilities.first_port if facts.abilities else 0
    numbers = [port.partition("/")[0].partition("-")[0] for port in locked.image.config.exposed_ports]
    low = sorted({int(n) for n in numbers if n.isascii() and n.isdigit() and len(n) < 6 and int(n) < first})
    if low and locked.manifest.network.mode == "host":
        listed = ", ".join(map(str, low))
        yield (
            f"the image listens on port {listed}, and on the host's network an ordinary user may listen from {first} "
            f"on: configure another port, or {_lower(low[0])}"
        )


def _source(locked: Locked, volume: VolumeSpec) -> Iterator[str]:
    there = locked.sources.get(volume.source) if volume.kind == "host" else None
    if there is None or volume.take or volume.owner is None or (there.own and there.uid == volume.owner[0]):
        return
    what = f"{volume.source} keeps its owner, {there.whose}: in the service {volume.owner[0]}:{volume.owner[1]}"
    how = f"; {_give(volume)}" if there.own else ""
    yield f"{what} may do there only what everybody may{how}"
