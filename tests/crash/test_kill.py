"""kill -9 at every system call that changes something: whole is what is current, and the same command again converges.

The process dies before the call takes effect, whichever of its threads makes it.
"""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Final

import pytest

from tests.crash import checks, ground
from tests.crash.operation import Operation
from tests.crash.operations import on
from tests.crash.sweep import FULL, SEED, Table, Trial, at, sample, sweep
from tests.ground.calls import KILL, Call

pytestmark = pytest.mark.root

MOST: Final = 15
"""Calls of a sample for each operation."""
MOST_OF_USER: Final = 2
"""The same where an ordinary user does it: each command forks and has a namespace made."""

PARAMETERS = pytest.mark.parametrize("operation", on("tmpfs"), ids=lambda operation: operation.name)


def kill_at_each(operation: Operation, place: ground.Ground, most: int, figures: Table) -> None:
    """Kill a command at each of its calls, in a sample at most so many, and see what it leaves and what comes next."""
    row = figures(operation.name, place.kind, "kill -9")
    trial = Trial(place, operation)
    found = trial.calls()
    row.points = len(found)

    def attempt(call: Call) -> None:
        place.back()
        assert trial.run(at(call, KILL)).code in (-9, 0)
        trial.between()
        trial.again()

    sweep(row, sample(found, most, operation.name), attempt)
    figures.judge()


@PARAMETERS
def test_killed_at_each_call(operation: Operation, tmp_path: Path, figures: Table) -> None:
    with ground.memory(tmp_path) as place:
        kill_at_each(operation, place, MOST, figures)


@pytest.mark.parametrize("operation", [one for one in on("tmpfs") if one.for_users], ids=lambda one: one.name)
def test_killed_as_an_ordinary_user(operation: Operation, figures: Table) -> None:
    """Two processes are appbox then: one in the user's namespace, one outside; either dies at the call, and both do."""
    with ground.memory_of_user() as place:
        kill_at_each(operation, place, MOST_OF_USER, figures)


@PARAMETERS
def test_killed_and_killed_again_while_it_is_mended(operation: Operation, tmp_path: Path, figures: Table) -> None:
    with ground.memory(tmp_path) as place:
        row = figures(operation.name, place.kind, "kill -9, and again in the next run")
        trial = Trial(place, operation)
        found = trial.calls()
        row.points = len(found) ** 2
        chance = random.Random(f"{SEED} {operation.name}")  # noqa: S311 - what is tried is no secret
        points = [chance.choices(found, k=2) for _ in range(150 if FULL else 2)]
        for first, second in points:

            def attempt(first: Call = first, second: Call = second) -> None:
                place.back()
                trial.run(at(first, KILL))
                trial.run(at(second, KILL))
                trial.between()
                trial.again()

            row.attempt(f"{first}; then {second}", attempt)
        if operation.by_any:
            row = figures(operation.name, place.kind, "kill -9, and another command next")
            row.points = len(found)
            sweep(row, sample(found, 3, operation.name, "other"), functools.partial(clean_up_by_another, trial))
        figures.judge()


def clean_up_by_another(trial: Trial, killed_at: Call) -> None:
    """Kill the command, and see that one about something else leaves nothing lying around, and the service whole."""
    box = trial.ground.box
    trial.ground.back()
    trial.run(at(killed_at, KILL))
    assert "is not installed" in box.appbox("remove", "nobody", code=1).err
    trial.between()
    checks.tidy(box)
    trial.again()
