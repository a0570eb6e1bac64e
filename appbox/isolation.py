"""What keeps a service apart from its host, and what it has of it, put into its container. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from appbox import container, devices, idmaps, reaper, rlimits, timezone, unprivileged
from appbox.host.facts import Facts, IdRange
from appbox.locked import Locked
from appbox.oci.rootfs import RootfsFacts
from appbox.oci.runtime_spec import Container, Device, Mount
from appbox.store import paths
from appbox.volumes import VolumeSpec


def complete(  # noqa: PLR0917
    contained: Container,
    locked: Locked,
    facts: Facts,
    volumes: tuple[VolumeSpec, ...],
    ids: IdRange,
    rootfs: RootfsFacts | None,
) -> Container:
    """Return a container with the rlimits, devices, kernel parameters and profile of the manifest.

    `ids` are the service's ids of the host. Raises Refused for an image that has something impossible in the way.
    """
    security = locked.manifest.security
    return replace(
        contained,
        rlimits=rlimits.of(locked.manifest.resources),
        ambient=container.ambient(locked),
        apparmor=security.apparmor,
        devices=_devices(locked),
        sysctl=container.sysctl(locked),
        masked=facts.masked,
        mounts=(*_translated(contained.mounts, locked, facts, volumes, ids), *_borrowed(locked, rootfs)),
    )


def files(locked: Locked) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a generation that come from the host, by their paths in it."""
    if locked.borrowed.zone is not None:
        yield timezone.FILE, locked.borrowed.zone


def wanted_nodes(locked: Locked) -> tuple[str, ...]:
    """Return the paths of the rootfs whose nodes `complete` asks for."""
    return ("/etc",) if locked.manifest.process.timezone else ()


def notes(locked: Locked, facts: Facts, volumes: tuple[VolumeSpec, ...], ids: IdRange) -> Iterator[str]:
    """Yield what the operator should know of host paths and devices, whose owners are the host's."""
    mapped = container.is_mapped(locked.manifest)
    if mapped:
        yield from idmaps.notes(locked, volumes, ids, facts)
    yield from devices.notes(_devices(locked), mapped=mapped)
    yield from unprivileged.notes(locked, facts, volumes)


def _devices(locked: Locked) -> tuple[Device, ...]:
    return devices.given(locked.manifest.security.devices, locked.borrowed.devices)


def _translated(
    mounts: tuple[Mount, ...], locked: Locked, facts: Facts, volumes: tuple[VolumeSpec, ...], ids: IdRange
) -> Iterator[Mount]:
    """Yield the mounts, those of host paths with somebody else's files with ids of their own where that can be done."""
    mapped = container.is_mapped(locked.manifest)
    found = {}
    for volume in volumes:
        there = locked.sources.get(volume.source) if volume.kind == "host" and mapped else None
        if there is not None:
            found[volume.target] = idmaps.mapping(there, volume.owner, ids, facts)
    for mount in mounts:
        users, groups = found.get(mount.destination, ((), ()))
        yield replace(mount, users=users, groups=groups) if users else mount


def _borrowed(locked: Locked, rootfs: RootfsFacts | None) -> Iterator[Mount]:
    manifest = locked.manifest
    if locked.borrowed.zone is not None:
        bundle = paths.bundle(manifest.name, manifest.version)
        place = timezone.place(rootfs, locked.image.reference)
        options = ("bind", "ro", "nosuid", "nodev", "noexec")
        yield Mount(place, f"{bundle}/{paths.CURRENT}/{timezone.FILE}", "", options)
    if manifest.process.init and locked.borrowed.reaper:
        yield reaper.mount(locked.borrowed.reaper)
