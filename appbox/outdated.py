"""`appbox outdated`: what newer versions registries offer than manifests name and their locks have. Writes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from appbox import constraints, sources
from appbox.constraints import is_constraint
from appbox.errors import Refused, Unavailable, printable
from appbox.lock_file import LockFile
from appbox.locking import Registries, connect
from appbox.resolve import short
from appbox.session import Options
from appbox.sources import Loaded


@dataclass(frozen=True, slots=True)
class Row:
    """One version of a service; `hosts` are those whose overlays want it, none for what all others have.

    `current` is the tag that the lock has, or the manifest's own, empty for a constraint that is not locked; `newest` a
    newer one that answers the manifest, `latest` a newer one that does not. `moved` is the digest that the current tag
    means now, where the lock has another one. `problem` is why nothing could be found out.
    """

    name: str
    hosts: tuple[str, ...]
    file: str
    image: str
    version: str
    current: str
    newest: str = ""
    latest: str = ""
    digest: str = ""
    moved: str = ""
    problem: str = ""

    @property
    def outdated(self) -> bool:
        """Whether there is anything newer."""
        return bool(self.newest or self.latest or self.moved)

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        return {**asdict(self), "hosts": list(self.hosts), "outdated": self.outdated}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        name = f"{self.name} ({', '.join(self.hosts)})" if self.hosts else self.name
        moved = f"{short(self.digest)} → {short(self.moved)}" if self.moved else ""
        return name, self.version, self.current or "-", self.newest or "-", self.latest or "-", moved


_TITLES = ("NAME", "VERSION", "CURRENT", "NEWEST", "BEYOND", "MOVED")


def outdated(options: Options, arguments: Sequence[str]) -> tuple[bool, int]:
    """Print what is newer; return whether anything is, and the exit code of what could not be found out, 0 for none."""
    registries = connect(options)
    locks: dict[str, LockFile] = {}
    rows: list[Row] = []
    failed = 0
    for hosts, one in _questions(sources.load_for_all_hosts(arguments)):
        lock = locks.get(one.folder) or locks.setdefault(one.folder, sources.read_lock(one))
        try:
            rows.append(_row(hosts, one, lock, registries))
        except (Unavailable, Refused) as error:
            rows.append(_start(hosts, one, lock, problem=str(error)))
            failed = failed or error.exit_code
            options.say(f"appbox: {one.manifest.name}: {error}\n", stream=sys.stderr)
    shown = [row.cells() for row in rows if row.outdated or (options.verbosity > 0 and not row.problem)]
    text = _table([_TITLES, *shown]) if shown else "" if failed else "nothing newer\n"
    options.result({"services": [row.as_dict() for row in rows]}, printable(text))
    return any(row.outdated for row in rows), failed


def _questions(pairs: Iterable[tuple[str, Loaded]]) -> list[tuple[tuple[str, ...], Loaded]]:
    """Return each version that is asked for once, with the hosts that alone want it."""
    found: dict[tuple[str, str, str, str], tuple[list[str], Loaded]] = {}
    for host, one in pairs:
        manifest = one.manifest
        if manifest.image:
            key = (one.folder, manifest.name, manifest.image, manifest.version)
            found.setdefault(key, ([], one))[0].append(host)
    return [(() if "" in hosts else tuple(hosts), one) for hosts, one in found.values()]


def _start(hosts: tuple[str, ...], loaded: Loaded, lock: LockFile, *, problem: str = "") -> Row:
    """Return what is known of a service without asking anybody."""
    manifest = loaded.manifest
    entry = lock.answer(manifest.name, manifest.image, manifest.version)
    current = entry.tag if entry else "" if is_constraint(manifest.version) else manifest.version
    digest = manifest.digest or (entry.digest if entry else "")
    file = loaded.document.file
    return Row(manifest.name, hosts, file, manifest.image, manifest.version, current, digest=digest, problem=problem)


def _row(hosts: tuple[str, ...], loaded: Loaded, lock: LockFile, registries: Registries) -> Row:
    start = _start(hosts, loaded, lock)
    tags = registries.tags(loaded)
    within = constraints.parse(start.version).newest(tags) if is_constraint(start.version) else None
    newest = within if within and _after(within, start.current) else ""
    latest = constraints.beyond(newest or start.current, tags) or ""
    now = registries.now(loaded, start.current) if start.digest and start.current in tags else ""
    registries.insist(loaded)
    moved = now if now not in {"", start.digest} else ""
    return Row(**{**_values(start), "newest": newest, "latest": latest, "moved": moved})


def _values(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}


def _after(tag: str, current: str) -> bool:
    """Return whether a tag is a later version than the current one, if there is one."""
    new, old = constraints.version(tag), constraints.version(current)
    return new is not None and (old is None or new.point > old.point)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as aligned columns; the last one only where it says anything."""
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)
