"""Every system call that changes something fails, once or from there on: the command says so in one sentence and ends.

What was current is whole, and the same command without the fault does the rest and leaves nothing lying around.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.crash import checks, ground
from tests.crash.operation import Operation
from tests.crash.operations import on
from tests.crash.sweep import Figures, Trial, at, sample, sweep
from tests.ground import calls
from tests.ground.calls import Call, Ended

pytestmark = pytest.mark.root

Begin = Callable[[str, str, str], Figures]

PARAMETERS = pytest.mark.parametrize("operation", on("tmpfs"), ids=lambda operation: operation.name)

FAULTS: Final[dict[str, tuple[Sequence[str], int]]] = {
    "ENOSPC": (calls.CHANGING, 7),
    "EDQUOT": (calls.CHANGING, 4),
    "EIO": (calls.CHANGING, 7),
    "EROFS": (calls.CHANGING, 4),
    "EMFILE": (calls.OPENING, 8),
    "EIO in reading": (calls.READING, 6),
}
"""Fault to the calls that may fail with it, and how many of them are tried of each operation in a sample."""

MAY_FAIL: Final = ("sync_file_range",)
"""Calls that only make something faster."""


def judge(trial: Trial, call: Call, ended: Ended, *, onward: bool) -> None:
    """See that a command during which `call` failed ended as it has to, and so does the next one."""
    if ended.code == 0:
        assert call.name not in calls.SYNCING, "it ended with 0 although nothing says that its work is durable"
        trial.operation.done(trial.ground.box)
        return
    checks.said(ended)
    trial.between()
    if not onward:  # nobody can go back either when nothing works any more
        trial.kept()
    trial.again()


@pytest.mark.parametrize("onward", [False, True], ids=["once", "onward"])
@pytest.mark.parametrize("fault", FAULTS)
@PARAMETERS
def test_failing_calls(operation: Operation, fault: str, onward: bool, tmp_path: Path, figures: Begin) -> None:
    names, most = FAULTS[fault]
    number = getattr(errno, fault.partition(" ")[0])
    with ground.memory(tmp_path) as place:
        row = figures(operation.name, place.kind, f"{fault}, {'and all after it' if onward else 'one call'}")
        trial = Trial(place, operation)
        found = [call for call in trial.calls(names) if call.name not in MAY_FAIL]
        row.points = len(found)

        def attempt(call: Call) -> None:
            place.back()
            ended = trial.run(at(call, number, onward=onward), names)
            judge(trial, call, ended, onward=onward)

        sweep(row, sample(found, most, operation.name, fault, onward), attempt)
