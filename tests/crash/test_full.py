"""File systems that are really full, of bytes or of inodes, with every amount of room from none to enough.

Every one of them ends either done or in one sentence that says that there is no room, with what was there untouched.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.crash import checks, ground
from tests.crash.ground import Ground
from tests.crash.operation import Operation
from tests.crash.operations import OPERATIONS
from tests.crash.sweep import FULL, Figures, Table, Trial

pytestmark = pytest.mark.root

GROWING: Final = ("first install", "configuration change", "upgrade, data moved", "moved tag")
"""Operations that need room."""
PAGE: Final = 4096
STEPS: Final = 64 if FULL else 4
"""Sizes that are tried between none and what the command takes."""
OF_BYTES: Final = {"tmpfs": ["size=24m"], "ext4": ["-m", "0"], "xfs": [], "btrfs": ["--mixed"]}
"""File system to what it is made with, for running out of bytes."""
OF_INODES: Final = {"tmpfs": ["size=24m,nr_inodes=2000"], "ext4": ["-N", "512"]}
"""The same for running out of inodes; xfs and btrfs make theirs out of bytes."""


def cases(kinds: dict[str, list[str]]) -> list[tuple[Operation, str]]:
    return [(one, kind) for one in OPERATIONS if one.name in GROWING for kind in kinds]


def identify(value: object) -> str:
    return value.name if isinstance(value, Operation) else str(value)


@dataclass(frozen=True, slots=True)
class Resource:
    """What a file system can run out of: how much is free, and how to take it but for `room` pieces."""

    free: Callable[[Path], int]
    take: Callable[[Path, int], None]


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def free_inodes(path: Path) -> int:
    return os.statvfs(path).f_favail


def fill(filler: Path, room: int) -> None:
    """Make a file that leaves `room` bytes, or as near to that as the file system comes."""
    with filler.open("wb") as file:
        step = 1 << 24
        while step >= PAGE:
            wanted = free_bytes(filler) - room
            if wanted <= 0:
                break
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), min(step, -(-wanted // PAGE) * PAGE))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2
        os.fsync(file.fileno())


def crowd(filler: Path, room: int) -> None:
    """Make files until `room` inodes are left."""
    filler.mkdir()
    for number in range(max(0, free_inodes(filler) - room)):
        (filler / str(number)).touch()


def empty(filler: Path) -> None:
    if filler.is_dir():
        shutil.rmtree(filler)
    else:
        filler.unlink(missing_ok=True)


BYTES: Final = Resource(free_bytes, fill)
INODES: Final = Resource(free_inodes, crowd)

CASES: Final = [
    (one, kind, resource)
    for one in OPERATIONS
    if one.name in GROWING
    for resource, kinds in (("bytes", OF_BYTES), ("inodes", OF_INODES))
    for kind in kinds
]


@contextlib.contextmanager
def place_of(path: Path, kind: str, options: list[str]) -> Iterator[Ground]:
    if kind == "tmpfs":
        with ground.memory(path, *options) as place:
            yield place
    else:
        with ground.disk(path, kind, *options) as place:
            yield place


@pytest.mark.parametrize(("operation", "kind", "resource"), CASES, ids=[f"{c[0].name}-{c[1]}-{c[2]}" for c in CASES])
def test_full(operation: Operation, kind: str, resource: str, tmp_path: Path, figures: Table) -> None:
    amount, options = (BYTES, OF_BYTES) if resource == "bytes" else (INODES, OF_INODES)
    with place_of(tmp_path, kind, options[kind]) as place:
        row = figures(operation.name, kind, f"no {resource} left")
        exhaust(Trial(place, operation), amount, row)
        figures.judge()


def exhaust(trial: Trial, resource: Resource, row: Figures) -> None:
    """Try with no room, with what the command leaves behind, with steps between, and with more until it is enough."""
    place = trial.ground
    place.back()
    before = resource.free(place.box.root)
    trial.calls()
    need = max(before - resource.free(place.box.root), STEPS)
    ended: list[int] = []

    def attempt(room: int) -> None:
        place.back()
        resource.take(place.filler, room)
        try:
            done = trial.run()
            ended.append(done.code)
            if done.code:
                checks.said(done)
                assert os.strerror(errno.ENOSPC).lower() in done.err.lower(), done.err
                trial.between()
                trial.kept()
        finally:
            empty(place.filler)
        if done.code:
            trial.again()
        else:
            trial.operation.done(place.box)

    rooms = [need * step // STEPS for step in range(STEPS + 1)]
    for room in itertools.chain(rooms, (need << doubled for doubled in itertools.count(1))):
        row.points += 1
        row.attempt(f"room for {room}", lambda room=room: attempt(room))  # type: ignore[misc]
        if room > need and ended[-1:] == [0]:
            break
    assert any(ended), "there was room in every case"
