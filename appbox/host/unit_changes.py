"""Unit files written, removed and enabled: here, or by root where this process works for a user on root's behalf."""

from __future__ import annotations

from appbox.host import delegated
from appbox.host.facts import InitKind
from appbox.store import unitfiles
from appbox.store.root import Root
from appbox.units.files import Link, UnitFile


def write(root: Root, kind: InitKind, unit: UnitFile, declaring: str) -> None:
    """Write a unit file durably; `declaring` is the text of the service's own one, the first of its files."""
    if delegated.wanted():
        delegated.write(kind, unit, declaring)
    else:
        unitfiles.write(root, unit)


def remove_file(root: Root, kind: InitKind, name: str, path: str) -> None:
    """Delete one unit file of a service."""
    if delegated.wanted():
        delegated.remove(kind, name, path)
    else:
        unitfiles.remove_file(root, path)


def remove(root: Root, kind: InitKind, name: str) -> bool:
    """Delete all unit files of a service, its own one last; return whether there were any."""
    found = list(unitfiles.read(root, kind, name))
    for path in reversed(found):
        remove_file(root, kind, name, path)
    return bool(found)


def enable(root: Root, kind: InitKind, name: str, wanted: Link | None) -> None:
    """Make the link that starts a service at boot, and delete all others; None deletes every one."""
    if delegated.wanted():
        delegated.enable(kind, name, wanted)
    else:
        unitfiles.enable(root, kind, name, wanted)
