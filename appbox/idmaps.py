"""Whose the files of a host directory are in a service: mounts with ids of their own. Pure.

A service with a user namespace has ids that own nothing on the host. A mount may translate: what belongs on disk to the
directory's owner belongs in the service to the volume's `owner`, and what that one makes belongs on disk to the
directory's owner. Every other id of the service stays what it is on disk, one of its own range, so that nothing of the
service ever is another user's there. Root's own directories are not translated: a service would make files of root.
Nothing on disk is changed. It takes runc 1.2 and Linux 5.12, and a file system that can (mount_setattr(2)).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from appbox.host.facts import Facts, IdRange
from appbox.locked import HostSource, Locked
from appbox.oci.runtime_spec import IdExtent
from appbox.volumes import VolumeSpec

_KERNELS: Final = {
    "ext4": (5, 12),
    "vfat": (5, 12),
    "xfs": (5, 12),
    "btrfs": (5, 15),
    "f2fs": (5, 18),
    "erofs": (5, 19),
    "squashfs": (6, 2),
    "tmpfs": (6, 3),
    "bcachefs": (6, 7),
}
"""Since which kernel a file system can be mounted with other ids."""

Extents = tuple[IdExtent, ...]


def mapping(there: HostSource, owner: tuple[int, int] | None, ids: IdRange, facts: Facts) -> tuple[Extents, Extents]:
    """Return the mappings of users and of groups for a host path; both empty when there is nothing to translate."""
    if owner is None or not _wanted(there, ids) or why_not(there, facts):
        return (), ()
    return _extents(there.uid, owner[0], ids), _extents(there.gid, owner[1], ids)


def _wanted(there: HostSource, ids: IdRange) -> bool:
    """Return whether what is there is somebody else's: an empty directory is given to the service anyway."""
    return not (there.directory and there.empty) and not ids.base <= there.uid < ids.end


def why_not(there: HostSource, facts: Facts) -> str:
    """Return why the ids of what is there cannot be translated; empty when they can."""
    able = facts.abilities
    if able is None or able.runtime is None:
        return "what the host can do is not known"
    if not able.runtime.idmapped_mounts:
        return f"the host has {able.runtime}, and mounts with ids of their own need runc 1.2"
    least = _KERNELS.get(there.file_system)
    if least is None or able.kernel < least:
        since = f", and Linux {least[0]}.{least[1]} is needed" if least else ""
        return f"the file system, {there.file_system or 'an unknown one'}, cannot be mounted with other ids{since}"
    return "it belongs to root" if 0 in {there.uid, there.gid} else ""


def _extents(disk: int, inside: int, ids: IdRange) -> Extents:
    """The owner's id changes places; those below and above it stay what they are."""
    here = ids.base + inside
    found = (
        IdExtent(disk, here, 1),
        IdExtent(ids.base, ids.base, inside),
        IdExtent(here + 1, here + 1, ids.end - here - 1),
    )
    return tuple(one for one in found if one.size)


def notes(locked: Locked, volumes: tuple[VolumeSpec, ...], ids: IdRange, facts: Facts) -> Iterator[str]:
    """Yield, for each host path with somebody else's files, what becomes of them, or what there is to choose."""
    for volume in volumes:
        there = locked.sources.get(volume.source) if volume.kind == "host" else None
        if there is None or not _wanted(there, ids):
            continue
        theirs = f"{there.uid}:{there.gid}"
        why = why_not(there, facts)
        if not why:
            inside = f"{volume.owner[0]}:{volume.owner[1]}" if volume.owner else "the volume's owner"
            yield f"in {volume.source}, what is {theirs} on disk is {inside} in the service; nothing is changed there"
            continue
        numbers = f"{ids.base + volume.owner[0]}:{ids.base + volume.owner[1]}" if volume.owner else ""
        give = f"with chown -R {numbers} {volume.source}" if numbers else "to numbers that are known after unpack"
        yield (
            f"{volume.source} keeps its owner, {theirs}, who is nobody in the service: it may do "
            f"there only what everybody may ({why}). Choose: give it away {give}, set "
            'security.userns = "host", or let everybody read it; appbox changes nothing there'
        )
