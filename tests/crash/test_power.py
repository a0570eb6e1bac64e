"""The power fails at every system call that changes something, on a real ext4, xfs and btrfs.

ext4 and xfs are shut down by ioctl, with the journal flushed or without; of btrfs, the image is copied at that instant.
Then they are checked and mounted: whole is what is current, and the same command again converges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.crash import ground
from tests.crash.ground import LOG_FLUSHED, NOTHING_FLUSHED
from tests.crash.operation import Operation
from tests.crash.operations import on
from tests.crash.sweep import Table, Trial, sample, sweep
from tests.ground.calls import KILL, Call

pytestmark = pytest.mark.root

FLAGS: Final = {"power loss": NOTHING_FLUSHED, "power loss, journal flushed": LOG_FLUSHED}
MOST: Final = 1
"""Points of a sample for each operation, file system and fault."""

CASES: Final = [(one, kind) for kind in ("ext4", "xfs", "btrfs") for one in on(kind)]
PARAMETERS = pytest.mark.parametrize(("operation", "kind"), CASES, ids=[f"{one.name}-{kind}" for one, kind in CASES])


@PARAMETERS
def test_power_fails_at_each_call_and_after_the_last(
    operation: Operation, kind: str, tmp_path: Path, figures: Table
) -> None:
    with ground.disk(tmp_path, kind) as place:
        trial = Trial(place, operation)
        found = trial.calls()
        after = figures(operation.name, kind, "power loss after exit 0")
        after.points = 1

        def lasting() -> None:
            place.cut(NOTHING_FLUSHED)
            place.return_of_power()
            if kind == "btrfs" and place.box.debris():
                # Linux 6.18 brings back the first name of a file that was renamed and then removed, all of it synced:
                # it goes with the next command that may change something, whatever that is about.
                place.box.appbox("remove", "nobody", code=1)
            operation.done(place.box)

        after.attempt("the last call", lasting)
        for fault, flag in FLAGS.items():
            if kind == "btrfs" and flag == LOG_FLUSHED:
                continue
            row = figures(operation.name, kind, fault)
            row.points = len(found)

            def attempt(call: Call, flag: int = flag) -> None:
                lose_power_at(trial, place, call, flag)
                trial.between()
                trial.again()

            sweep(row, sample(found, MOST, operation.name, kind, fault), attempt)
        figures.judge()


def lose_power_at(trial: Trial, place: ground.Disk, wanted: Call, flag: int) -> None:
    """Have the power fail right before a call, and come back."""
    cut = False

    def decide(call: Call) -> int:
        nonlocal cut
        if call.number < wanted.number:
            return 0
        place.cut(flag)
        cut = True
        return KILL

    place.back()
    trial.run(decide)
    if not cut:
        place.cut(flag)
    place.return_of_power()
