"""What is installed and how it does, for `appbox status`. Reads the bundles and runc's state; starts no process."""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass
from typing import Any, Final

from appbox.errors import AppboxError, printable
from appbox.host import runc
from appbox.store import files, paths, state
from appbox.store.root import Root

_META_LIMIT: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Status:
    """One service. `state` is running, stopped or broken; `since` is RFC 3339, "" when it does not run."""

    name: str
    version: str
    state: str
    since: str
    pid: int
    digest: str
    image: str
    generation: int
    description: str
    problem: str

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON data."""
        return asdict(self)


def of(root: Root, name: str) -> Status:
    """Return the status of an installed service; AppboxError when there is none of that name."""
    with _containers(root, name) as containers:
        if not state.is_current_link(name, containers):
            raise unknown(name)
        directory = files.link_target(name, containers) or ""
        version = directory[len(name) + 1 :]
        try:
            with files.directory(directory, containers) as bundle:
                generation = state.current_generation(bundle)
                path = f"{paths.GENERATIONS}/{generation}/bundle.toml"
                meta = tomllib.loads(files.read(path, _META_LIMIT, bundle).decode())
        except PermissionError:
            raise
        except (OSError, ValueError, AppboxError) as error:
            why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            return Status(name, version, "broken", "", 0, "", "", 0, "", f"{directory} cannot be read: {why}")
    return _described(root, name, version, generation, meta)


def _containers(root: Root, name: str) -> Any:
    if not root.is_directory(paths.CONTAINERS):
        raise unknown(name)
    return root.directory(paths.CONTAINERS)


def _described(root: Root, name: str, version: str, generation: int, meta: dict[str, Any]) -> Status:
    found = runc.running(name) if root.live else None
    image, manifest = (_table(meta.get(key)) for key in ("image", "manifest"))
    return Status(
        name=name,
        version=version,
        state="running" if found else "stopped",
        since=found.since.strftime("%Y-%m-%dT%H:%M:%SZ") if found else "",
        pid=found.pid if found else 0,
        digest=str(image.get("digest", "")),
        image=str(image.get("reference", "")),
        generation=generation,
        description=str(manifest.get("description", "")),
        problem="",
    )


def _table(value: object) -> dict[str, Any]:
    """Return a table of bundle.toml, empty where somebody made something else of it."""
    return value if isinstance(value, dict) else {}


def every(root: Root) -> list[Status]:
    """Return the status of every installed service, sorted by name."""
    return [of(root, name) for name in state.names(root)]


def unknown(name: str) -> AppboxError:
    """Return the error for a service that is not installed."""
    return AppboxError("is not installed", where=name, hint="appbox status lists what is")


def table(statuses: list[Status]) -> str:
    """Return the statuses as aligned columns with a heading; a line for each problem and description."""
    rows = [("NAME", "VERSION", "STATE", "SINCE", "PID", "DIGEST")]
    rows += [
        (s.name, s.version, s.state, s.since or "-", str(s.pid or "-"), s.digest.partition(":")[2][:12] or "-")
        for s in statuses
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{s.name}: {s.problem}" for s in statuses if s.problem]
    return printable("".join(f"{line}\n" for line in lines))


def details(status: Status) -> str:
    """Return one service's status as `key: value` lines."""
    shown = {key: value for key, value in status.as_dict().items() if value not in {"", 0}}
    return printable("".join(f"{key}: {value}\n" for key, value in shown.items()))
