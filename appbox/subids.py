"""Subordinate ids: the lines of /etc/subuid and /etc/subgid, and whose they are (subuid(5)). Pure.

A line is `owner:base:count`; the owner is a user's name or number. What newuidmap(1) would not read is no range here
either, but a finding with its line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from appbox.host.facts import IdRange

FILES: Final = ("/etc/subuid", "/etc/subgid")
LEAST: Final = 65536
"""Ids that a user needs for images as they come: those of a container go from 0 to 65,535."""
FIRST: Final = 100_000
"""Where useradd begins (SUB_UID_MIN of login.defs(5)); below are the host's own users."""
LAST: Final = 600_100_000
"""Where useradd ends (SUB_UID_MAX of login.defs(5)); far below the ranges that services of root get."""
_END: Final = 2**32 - 1
"""The first number that is no id: -1 means "leave it" to chown(2)."""
_DIGITS: Final = 10
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Entry(IdRange):
    """One line: `owner` is the name or the number that stands there, `line` counts from 1."""

    owner: str = ""
    line: int = 0

    def belongs_to(self, name: str, uid: int) -> bool:
        """Return whether the range is that of a user; `name` is empty for one without a password entry."""
        return (bool(name) and self.owner == name) or (_is_number(self.owner) and int(self.owner) == uid)


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that gives nobody anything, or takes what is another's: where it is, and why in words."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why}"


@dataclass(frozen=True, slots=True)
class Table:
    """What a file says: its ranges in their order, and the lines that are none."""

    file: str
    entries: tuple[Entry, ...] = ()
    faults: tuple[Fault, ...] = ()


def parse(text: str, name: str, uid: int) -> tuple[IdRange, ...]:
    """Return the ranges of one user in the order of the file; what is malformed or empty is left out."""
    return tuple(IdRange(one.base, one.size) for one in table(text).entries if one.belongs_to(name, uid))


def table(text: str, file: str = FILES[0]) -> Table:
    """Return every range of a file, and a fault for each line that is neither a range nor blank nor a comment."""
    entries: list[Entry] = []
    faults: list[Fault] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _entry(line, number)
        if isinstance(found, str):
            faults.append(Fault(file, number, found))
            continue
        entries.append(found)
        if found.owner != found.owner.strip():
            faults.append(Fault(file, number, f"the blanks around {found.owner!r} make it another user's name"))
    return Table(file, tuple(entries), tuple(faults))


def _entry(line: str, number: int) -> Entry | str:
    """Return the range of a line, or why it is none."""
    parts = line.split(":")
    if len(parts) != 3 or not parts[0].strip():
        shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
        return f"{shown!r} is not of the form user:first id:count"
    owner, base, count = parts[0], parts[1].strip(), parts[2].strip()
    if not _is_number(base) or not _is_number(count):
        return f"the range of {owner} does not consist of two numbers"
    entry = Entry(int(base), int(count), owner, number)
    if not entry.size:
        return f"the range of {owner} is empty"
    if entry.end > _END:
        return f"the range of {owner} ends beyond the last id, {_END - 1}"
    return entry


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def overlaps(found: Table) -> Iterator[tuple[Entry, Entry]]:
    """Yield each two ranges of different owners that share ids: what one writes, the other may change.

    The first of a pair begins first. `owner` is compared as it is written: the caller knows which number is whose name.
    """
    widest: Entry | None = None
    for entry in sorted(found.entries, key=lambda one: (one.base, one.line)):
        if widest is not None and widest.overlaps(entry) and widest.owner != entry.owner:
            yield widest, entry
        if widest is None or entry.end > widest.end:
            widest = entry


def free(taken: Iterable[IdRange], size: int = LEAST) -> IdRange | None:
    """Return the lowest range that useradd could hand out and that nobody in `taken` has; None when there is none."""
    base = FIRST
    for other in sorted(taken, key=lambda one: one.base):
        if other.end <= base:
            continue
        if other.base >= base + size:
            break
        base = other.end
    return IdRange(base, size) if base + size - 1 <= LAST else None


def apart(ranges: Iterable[IdRange]) -> tuple[IdRange, ...]:
    """Return ranges without what an earlier one of them has: the kernel maps no id twice (user_namespaces(7))."""
    kept: list[IdRange] = []
    for one in ranges:
        rest = [IdRange(one.base, one.size)] if one.size else []
        for other in kept:
            rest = [part for piece in rest for part in _without(piece, other)]
        kept += rest
    return tuple(kept)


def _without(one: IdRange, other: IdRange) -> Iterator[IdRange]:
    """Yield what is left of a range below and above another."""
    for base, end in ((one.base, min(one.end, other.base)), (max(one.base, other.end), one.end)):
        if base < end:
            yield IdRange(base, end - base)


def together(ranges: Iterable[IdRange]) -> int:
    """Return how many ids ranges have together."""
    return sum(one.size for one in apart(ranges))
