"""Every system call that changes something fails, once or from there on: the command says so in one sentence and ends.

What was current is whole, and the same command without the fault does the rest and leaves nothing lying around.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.crash import checks, ground
from tests.crash.operation import Operation
from tests.crash.operations import OPERATIONS, on
from tests.crash.sweep import FULL, Table, Trial, at, sample, sweep
from tests.ground import calls
from tests.ground.calls import Call, Ended

pytestmark = pytest.mark.root

FAULTS: Final[dict[str, Sequence[str]]] = {
    "ENOSPC": calls.CHANGING,
    "EDQUOT": calls.CHANGING,
    "EIO": calls.CHANGING,
    "EROFS": calls.CHANGING,
    "EMFILE": calls.OPENING,
    "EIO in reading": calls.READING,
}
"""Fault to the calls that may fail with it."""
MOST: Final = 1
"""Calls that are tried in a sample, of each operation, with each fault, once and onward."""

MAY_FAIL: Final = ("sync_file_range",)
"""Calls that only make something faster."""

GROUPS: Final = [(fault,) for fault in FAULTS] if FULL else [tuple(FAULTS)]
"""Faults that are tried one after the other; in a full run, which takes long, each by itself."""
CASES: Final = [(one, faults) for faults in GROUPS for one in on("tmpfs")]
IDS: Final = ["-".join([one.name, *(faults if FULL else ())]) for one, faults in CASES]


def judge(trial: Trial, call: Call, ended: Ended, *, onward: bool) -> None:
    """See that a command during which `call` failed ended as it has to, and so does the next one."""
    if ended.code == 0:
        if "the journal does not say so yet" in ended.out:
            trial.again()
            return
        assert call.name not in calls.SYNCING, "it ended with 0 although nothing says that its work is durable"
        trial.operation.done(trial.ground.box)
        return
    checks.said(ended, len(list(trial.ground.box.services.glob("*.toml"))) or 1)
    trial.between()
    if not onward:  # nobody can go back either when nothing works any more
        trial.kept()
    trial.again()


UNDONE: Final = ("upgrade, data shared, format noted", "moved tag")
"""Operations that are undone when anything fails after the switch."""


@pytest.mark.parametrize("name", UNDONE)
def test_what_fails_once_after_the_switch_is_undone(name: str, tmp_path: Path, figures: Table) -> None:
    operation = next(one for one in OPERATIONS if one.name == name)
    with ground.memory(tmp_path) as place:
        trial = Trial(place, operation)
        found = trial.calls()
        names = [call.name for call in found]
        last = found[len(names) - names[::-1].index("renameat2") :]
        row = figures(name, place.kind, "ENOSPC after publication")
        row.points = len(last)

        def attempt(call: Call) -> None:
            place.back()
            judge(trial, call, trial.run(at(call, errno.ENOSPC)), onward=False)

        sweep(row, last, attempt)
        figures.judge()


@pytest.mark.parametrize(("operation", "faults"), CASES, ids=IDS)
def test_failing_calls(operation: Operation, faults: Collection[str], tmp_path: Path, figures: Table) -> None:
    with ground.memory(tmp_path) as place:
        trial = Trial(place, operation)
        found = {
            names: [one for one in trial.calls(names) if one.name not in MAY_FAIL]
            for names in {FAULTS[fault] for fault in faults}
        }
        for fault, onward in itertools.product(faults, (False, True)):
            names = FAULTS[fault]
            number = getattr(errno, fault.partition(" ")[0])
            row = figures(operation.name, place.kind, f"{fault}, {'and all after it' if onward else 'one call'}")
            row.points = len(found[names])

            def attempt(call: Call, number: int = number, names: Sequence[str] = names, onward: bool = onward) -> None:
                place.back()
                ended = trial.run(at(call, number, onward=onward), names)
                judge(trial, call, ended, onward=onward)

            sweep(row, sample(found[names], MOST, operation.name, fault, onward), attempt)
        figures.judge()
