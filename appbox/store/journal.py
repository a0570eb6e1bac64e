"""What a run is about to change, written down first: `/var/lib/appbox/journal.json`.

A service stands in it from before the first change that a plan makes until after the last one. Whoever finds it there
later, with the lock, knows that the run was killed, from where to where it was going, and whether the service ran.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from appbox.errors import AppboxError
from appbox.store import files, paths
from appbox.store.root import Root
from appbox.units.files import NAME as NAME_OF_A_SERVICE

NAME: Final = "journal.json"
_LIMIT: Final = 1 << 20
_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Place:
    """A generation of a version: the version's directory below the containers, the generation's number; 0 for none."""

    directory: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One service that is being changed.

    `made`: the version's directory was not there before; `running`: the service ran; `back`: it was a rollback.
    `starts`: it was to be started, or armed; `upgrade`: to another version or image, so that hooks and the removal of
    old versions come last. `others` are services that stop along with it, and are started again. A target without a
    directory is the removal of the service.
    """

    service: str
    origin: Place
    target: Place
    running: bool
    made: bool
    back: bool = False
    starts: bool = False
    upgrade: bool = False
    others: tuple[str, ...] = ()


def write(root: Root, entry: Entry) -> None:
    """Note that a service is about to be changed; durable when this returns."""
    _save(root, {**{one.service: one for one in load(root)}, entry.service: entry})


def remove(root: Root, service: str) -> None:
    """Note that a service's change is complete, or was undone."""
    left = {one.service: one for one in load(root) if one.service != service}
    if left:
        _save(root, left)
    elif root.is_directory(paths.STATE):
        with root.directory(paths.STATE) as fd:
            if files.exists(NAME, fd):
                files.remove(NAME, dir_fd=fd)


def load(root: Root) -> list[Entry]:
    """Return the services that a killed run was about to change, by name; none of a file that is no journal.

    Everything in it can be found out from the bundles, but for whether a service ran.
    """
    if not root.is_directory(paths.STATE):
        return []
    try:
        with root.directory(paths.STATE) as fd:
            data = files.read_if_present(NAME, _LIMIT, fd)
        found = json.loads(data) if data else {}
        if not found or found["schema"] != _SCHEMA:
            return []
        return sorted((_entry(row) for row in found["services"]), key=lambda entry: entry.service)
    except (PermissionError, FileNotFoundError, AppboxError):
        return []
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _entry(row: dict[str, Any]) -> Entry:
    origin, target = (Place(str(row[key]["directory"]), int(row[key]["generation"])) for key in ("origin", "target"))
    for place in (origin, target):
        if place.directory.startswith("/") or ".." in place.directory.split("/"):
            raise ValueError(place.directory)
    names = [str(name) for name in (row["service"], *row.get("others", ()))]
    if not all(NAME_OF_A_SERVICE.fullmatch(name) for name in names):
        raise ValueError(names)
    return Entry(
        names[0],
        origin,
        target,
        running=bool(row["running"]),
        made=bool(row["made"]),
        back=bool(row.get("back")),
        starts=bool(row.get("starts")),
        upgrade=bool(row.get("upgrade")),
        others=tuple(names[1:]),
    )


def _save(root: Root, entries: dict[str, Entry]) -> None:
    rows = [asdict(entries[name]) for name in sorted(entries)]
    text = json.dumps({"schema": _SCHEMA, "services": rows}, indent=1)
    root.make(paths.STATE, 0o755)
    with root.directory(paths.STATE) as fd:
        files.replace(NAME, f"{text}\n".encode(), mode=0o600, dir_fd=fd)
