"""Trying something at each step of an operation, and counting what came of it."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.crash import record
from tests.crash.ground import Ground
from tests.crash.operation import Operation, Words
from tests.ground import calls
from tests.ground.calls import Call, Ended

FULL: Final = os.environ.get("APPBOX_CRASH_FULL") == "1"
"""Whether every point is tried; otherwise a sample, the same one for the same seed."""
SEED: Final = int(os.environ.get("APPBOX_CRASH_SEED", "5"))
STRUCTURE: Final = ("rename", "renameat", "renameat2", "link", "linkat", "symlinkat", "unlinkat", "mkdirat", "syncfs")
"""Calls that make, name or remove something: a sample has more of them than of the others."""
SHOWN: Final = 20
"""Violations after which a sweep ends: there is something to mend first."""


@dataclass
class Figures:
    """A row of the table: an operation on a file system under a fault, the points that there are, and were tried."""

    operation: str
    kind: str
    fault: str
    points: int = 0
    tried: int = 0
    violations: list[str] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """Return it as plain data, which a test can report."""
        return {
            "operation": self.operation,
            "kind": self.kind,
            "fault": self.fault,
            "points": self.points,
            "tried": self.tried,
            "violations": len(self.violations),
        }

    def attempt(self, point: object, check: Callable[[], None]) -> None:
        """Try one point; a promise that was broken is noted with it. In a full run what was tried before counts."""
        known = record.of_this_tree() if FULL else None
        key = (self.operation, self.kind, self.fault, str(point))
        self.tried += 1
        if known is None:
            self._try(point, check)
        elif key not in known.passed:
            before = len(self.violations)
            try:
                self._try(point, check)
            finally:
                known.add(key, "".join(self.violations[before:]))

    def _try(self, point: object, check: Callable[[], None]) -> None:
        try:
            check()
        except (AssertionError, OSError, ValueError, KeyError) as error:
            where = error.__traceback__
            while (
                where is not None and where.tb_next is not None and "tests" in where.tb_next.tb_frame.f_code.co_filename
            ):
                where = where.tb_next
            line = f" ({where.tb_frame.f_code.co_name}, line {where.tb_lineno})" if where else ""
            self.violations.append(f"{point}: {type(error).__name__}{line}: {str(error)[:1500]}")
            assert len(self.violations) < SHOWN, self.text()  # there is something to mend first

    def text(self) -> str:
        """Return the violations, one a line."""
        head = f"{self.operation} on {self.kind}, {self.fault}, seed {SEED}:"
        return "\n".join([head, *self.violations])


@dataclass
class Table:
    """The rows of a test."""

    rows: list[Figures] = field(default_factory=list)

    def __call__(self, operation: str, kind: str, fault: str) -> Figures:
        """Begin a row."""
        self.rows.append(Figures(operation, kind, fault))
        return self.rows[-1]

    def judge(self) -> None:
        """See that something was tried in every row, and that no promise was broken."""
        assert self.rows
        assert all(row.tried for row in self.rows), "nothing was tried"
        violated = [row.text() for row in self.rows if row.violations]
        assert not violated, "\n".join(violated)


def sample(found: Sequence[Call], most: int, *salt: object) -> list[Call]:
    """Return at most `most` of the calls, in a full run all: of each kind as many, of `STRUCTURE` thrice that."""
    if FULL or len(found) <= most:
        return list(found)
    chance = random.Random(f"{SEED} {salt}")  # noqa: S311 - what is tried is no secret
    kinds: dict[str, list[Call]] = {}
    for call in chance.sample(list(found), len(found)):
        kinds.setdefault(call.name, []).append(call)
    chosen: list[Call] = []
    while len(chosen) < most:
        for name in sorted(kinds, key=lambda name: (name not in STRUCTURE, name)):
            taken = min(3 if name in STRUCTURE else 1, len(kinds[name]), most - len(chosen))
            chosen += [kinds[name].pop() for _ in range(taken)]
    return sorted(chosen, key=lambda call: call.number)


@dataclass
class Trial:
    """An operation that is tried again and again on the same ground."""

    ground: Ground
    operation: Operation
    words: Words = ()

    def __post_init__(self) -> None:
        box = self.ground.box
        box.init = self.operation.init
        self.operation.before(box)
        self.words = self.operation.command(box)
        self.ground.keep()

    def run(
        self,
        decide: Callable[[Call], int] = lambda _: 0,
        names: Sequence[str] = calls.CHANGING,
        prepare: Callable[[], None] | None = None,
    ) -> Ended:
        """Give the command, on the host as it is now, to a process of its own that asks before each call."""
        return calls.supervise(self.ground.box.work(*self.words), decide, names, prepare)

    def calls(self, names: Sequence[str] = calls.CHANGING) -> list[Call]:
        """Return the calls that the command makes when nothing is in its way; the host is then as after it."""
        self.ground.back()
        found: list[Call] = []

        def note(call: Call) -> int:
            found.append(call)
            return 0

        ended = self.run(note, names)
        assert ended.code == 0, ended
        return found

    def between(self) -> None:
        """See what must hold wherever the command was cut off."""
        self.operation.between(self.ground.box)

    def kept(self) -> None:
        """See that what was current is so still: the command has failed by itself and said so."""
        if self.operation.kept is not None:
            self.operation.kept(self.ground.box)

    def again(self) -> None:
        """Give the command again, to its end."""
        self.operation.again(self.ground.box, self.words)


def sweep(figures: Figures, points: Iterable[Call], attempt: Callable[[Call], None]) -> None:
    """Try every point."""
    for point in points:
        figures.attempt(point, functools.partial(attempt, point))


def at(wanted: Call, verdict: int, *, onward: bool = False) -> Callable[[Call], int]:
    """Return what decides on `verdict` at one call, or from there on."""
    return lambda call: verdict if call.number == wanted.number or (onward and call.number > wanted.number) else 0
