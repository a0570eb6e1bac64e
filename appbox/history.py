"""The generations of a service that are on the host, and which of them a rollback goes to. Reads only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

from appbox import old_data, remembered
from appbox.errors import AppboxError, UsageError, printable
from appbox.old_data import OldData
from appbox.status import unknown
from appbox.store import data, failed, files, paths, state
from appbox.store.root import Root

_IN_WORDS: Final = {"target": "rollback goes here", "lost": "no way back, it has no record"}


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation: `directory` is its version's below the containers, `created` is RFC 3339.

    `state` is current, target (of a rollback), failed, lost (it has no record, so that nothing leads back to it) or "".
    `data`: its version has data of its own.
    """

    number: int
    version: str
    directory: str
    digest: str
    index: str
    image: str
    created: str
    previous: int
    state: str
    data: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the generation as JSON data."""
        return asdict(self)


def of(root: Root, name: str) -> list[Generation]:
    """Return the generations of an installed service, the newest first; AppboxError when it is not installed."""
    current = state.load(root, name)
    if current is None:
        raise unknown(root, name)
    found = []
    with root.directory(paths.CONTAINERS) as containers:
        for directory, numbers in state.generations(containers, name):
            here = directory == current.directory
            own = _has_data(containers, (current.carry if here else "") or directory)
            for number in numbers:
                meta = _meta(containers, directory, number)
                one = _generation(number, directory, meta, current=here and number == current.generation, own=own)
                found.append(one if _is_recorded(containers, one) else replace(one, state=one.state or "lost"))
    found.sort(key=lambda one: one.number, reverse=True)
    target = _target(found)
    bad = {one.generation for one in failed.load(root, name)}
    return [_judged(one, target, bad) for one in found]


def _meta(containers: int, directory: str, number: int) -> dict[str, Any]:
    try:
        with files.directory(f"{directory}/{paths.GENERATIONS}/{number}", containers) as fd:
            return state.read_meta(fd)
    except (OSError, ValueError, AppboxError):
        return {}


def _is_recorded(containers: int, one: Generation) -> bool:
    """Return whether a generation says all that is needed to go back to it; an older appbox wrote none of that."""
    return files.exists(f"{one.directory}/{paths.GENERATIONS}/{one.number}/{remembered.NAME}", containers)


def _has_data(containers: int, directory: str) -> bool:
    """Return whether a version has volumes of its own; a copy that no service has seen is none."""
    try:
        with files.directory(f"{directory}/{paths.DATA}", containers) as fd:
            return bool(data.names(fd)) and not files.exists(paths.COPIED, fd)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _generation(number: int, directory: str, meta: dict[str, Any], *, current: bool, own: bool) -> Generation:
    image = meta.get("image", {})
    previous = meta.get("previous", 0)
    return Generation(
        number=number,
        version=str(meta.get("version", "?")),
        directory=directory,
        digest=str(image.get("digest", "")),
        index=str(image.get("index", "")),
        image=str(image.get("reference", "")),
        created=str(meta.get("created", "")).replace("+00:00", "Z").replace(" ", "T"),
        previous=previous if isinstance(previous, int) else 0,
        state="current" if current else "",
        data=own,
    )


def _target(found: list[Generation]) -> int:
    """Return the generation before the current one, 0 for none."""
    current = next((one for one in found if one.state == "current"), None)
    there = {one.number for one in found if one.state != "lost"}
    return current.previous if current is not None and current.previous in there else 0


def _judged(one: Generation, target: int, bad: set[int]) -> Generation:
    fallen = "failed" if one.number in bad else ""
    return Generation(**{**asdict(one), "state": one.state or ("target" if one.number == target else fallen)})


def choose(found: list[Generation], name: str, to: str) -> Generation:
    """Return the generation that `--to` means: a version, `@N`, or "" for the one before the current one.

    The current one is what its version means. Raises AppboxError when there is none.
    """
    listed = f"appbox history {name} lists what there is"
    if not to:
        target = next((one for one in found if one.state == "target"), None)
        if target is None:
            raise AppboxError("has no generation before the current one", where=name, hint=listed)
        return target
    if to.startswith("@") and not to[1:].isdecimal():
        raise UsageError(f"{to!r} is no generation", where="--to", hint=f"write @ and its number; {listed}")
    wanted = [one for one in found if (str(one.number) == to[1:] if to.startswith("@") else one.version == to)]
    if not wanted:
        raise AppboxError(f"has no {'generation' if to.startswith('@') else 'version'} {to}", where=name, hint=listed)
    if current := [one for one in wanted if one.state == "current"]:
        return current[0]
    return next((one for one in wanted if one.state not in {"failed", "lost"}), wanted[0])


def old(root: Root, name: str) -> list[OldData]:
    """Return the data of a service's versions that are not current, those included that were removed but for it."""
    current = state.load(root, name)
    if current is None:
        raise unknown(root, name)
    with root.directory(paths.CONTAINERS) as containers:
        # What waits to be moved to the current version is its own.
        return [one for one in old_data.of(containers, name, current.directory) if one.directory != current.carry]


def text(found: list[Generation], left: list[OldData], now: datetime) -> str:
    """Return the generations as aligned columns, and a line for the data of each version that is not current."""
    rows = [("GENERATION", "VERSION", "CREATED", "DIGEST", "DATA", "STATE")]
    rows += [
        (
            str(one.number),
            one.version,
            one.created or "-",
            one.digest.partition(":")[2][:12] or "-",
            "own" if one.data else "-",
            _IN_WORDS.get(one.state, one.state) or "-",
        )
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for one in left:
        what = ", of which only that is left" if one.only else ""
        lines.append(f"{paths.CONTAINERS}/{one.directory}/{paths.DATA}: {one.words(now)}{what}")
    return printable("".join(f"{line}\n" for line in lines))
