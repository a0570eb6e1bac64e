"""Trying something at each step of an operation, and counting what came of it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from appbox import cli
from tests.crash.ground import Ground
from tests.crash.operation import Operation, Words
from tests.ground import calls
from tests.ground.calls import Call, Ended

FULL: Final = os.environ.get("APPBOX_CRASH_FULL") == "1"
"""Whether every point is tried; otherwise a sample, the same one for the same seed."""
SEED: Final = int(os.environ.get("APPBOX_CRASH_SEED", "5"))
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
        """Try one point; a promise that was broken is noted with it."""
        self.tried += 1
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
            assert len(self.violations) < SHOWN, self.text()

    def end(self) -> None:
        """See that nothing was violated."""
        assert self.tried, f"{self.operation}: nothing was tried"
        assert not self.violations, self.text()

    def text(self) -> str:
        """Return the violations, one a line."""
        head = f"{self.operation} on {self.kind}, {self.fault}, seed {SEED}:"
        return "\n".join([head, *self.violations])


def sample(found: Sequence[Call], most: int, *salt: object) -> list[Call]:
    """Return at most `most` of the calls, all of them in a full run: of each kind as many, as far as there are."""
    if FULL or len(found) <= most:
        return list(found)
    chance = random.Random(f"{SEED} {salt}")  # noqa: S311 - what is tried is no secret
    kinds: dict[str, list[Call]] = {}
    for call in chance.sample(list(found), len(found)):
        kinds.setdefault(call.name, []).append(call)
    chosen: list[Call] = []
    while len(chosen) < most:
        for name in sorted(kinds):
            if kinds[name] and len(chosen) < most:
                chosen.append(kinds[name].pop())
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
        box = self.ground.box
        line = ["--root", str(box.root), "--init", box.init, *map(str, self.words)]
        return calls.supervise(lambda: cli.run(line), decide, names, prepare)

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
    """Try every point, and see at the end that none was violated."""
    for point in points:
        figures.attempt(point, lambda point=point: attempt(point))  # type: ignore[misc]
    figures.end()


def at(wanted: Call, verdict: int, *, onward: bool = False) -> Callable[[Call], int]:
    """Return what decides on `verdict` at one call, or from there on."""
    return lambda call: verdict if call.number == wanted.number or (onward and call.number > wanted.number) else 0
