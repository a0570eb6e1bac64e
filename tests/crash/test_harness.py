"""The tools of this group see what they are there for: a call that did not happen, bytes that nobody made durable."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from tests.crash import ground
from tests.crash.ground import LOG_FLUSHED, NOTHING_FLUSHED
from tests.crash.operations import OPERATIONS
from tests.crash.record import Record
from tests.crash.sweep import Trial
from tests.ground import calls
from tests.ground.calls import KILL, SKIP, Call

pytestmark = pytest.mark.root

UPGRADE = next(one for one in OPERATIONS if one.name == "upgrade, data moved")


def test_a_record_knows_what_was_tried_and_not_what_failed(tmp_path: Path) -> None:
    points = [("upgrade", "ext4", "power loss", f"call {number}, fsync") for number in range(3)]
    first = Record.load(tmp_path / "below/record")
    for point, violation in zip(points, ("", "it was lost", ""), strict=True):
        first.add(point, violation)
    with first.path.open("a") as file:
        file.write('["cut of')
    assert Record.load(first.path).passed == {points[0], points[2]}


def make_two(top: Path) -> int:
    (top / "one").mkdir()
    thread = threading.Thread(target=(top / "two").mkdir)
    thread.start()
    thread.join()
    return 7


def test_a_killed_process_has_not_made_the_call(tmp_path: Path) -> None:
    seen: list[Call] = []

    def decide(call: Call) -> int:
        seen.append(call)
        return KILL if call.number == 2 else 0

    assert calls.supervise(lambda: make_two(tmp_path), decide).code == -9
    assert [str(call) for call in seen] == ["call 1, mkdir", "call 2, mkdir of thread 1"]
    assert os.listdir(tmp_path) == ["one"]


def test_a_call_fails_and_one_is_left_out(tmp_path: Path) -> None:
    def work() -> int:
        (tmp_path / "one").mkdir()
        try:
            (tmp_path / "two").mkdir()
        except OSError as error:
            return error.errno or 0
        return 0

    ended = calls.supervise(work, lambda call: errno.ENOSPC if call.number == 2 else SKIP)
    assert (ended.code, os.listdir(tmp_path)) == (errno.ENOSPC, [])


def test_reading_and_what_is_written_to_the_terminal_do_not_count(tmp_path: Path) -> None:
    def work() -> int:
        os.write(1, b"said")
        return len((tmp_path / "file").read_bytes())

    (tmp_path / "file").write_bytes(b"123")
    ended = calls.supervise(work, lambda _: KILL)
    assert (ended.code, ended.out) == (3, "said")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_what_was_not_made_durable_is_lost_with_the_power(kind: str, tmp_path: Path) -> None:
    with ground.disk(tmp_path, kind) as place:
        durable, other = place.box.root / "durable", place.box.root / "other"
        durable.write_text("x")
        with durable.open() as file:
            os.fsync(file.fileno())
        fd = os.open(place.box.root, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        other.write_text("x" * 10000)
        place.cut(NOTHING_FLUSHED)
        place.return_of_power()
        assert durable.read_text() == "x"
        assert not other.exists() or not other.read_text()


def test_a_flushed_journal_has_names_of_files_without_their_bytes(tmp_path: Path) -> None:
    with ground.disk(tmp_path, "xfs") as place:
        (place.box.root / "file").write_text("x" * 10000)
        place.cut(LOG_FLUSHED)
        place.return_of_power()
        assert (place.box.root / "file").read_bytes().strip(b"\0") == b""


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_an_upgrade_that_made_nothing_durable_is_found_out(kind: str, tmp_path: Path) -> None:
    with ground.disk(tmp_path, kind) as place:
        trial = Trial(place, UPGRADE)
        place.back()
        assert trial.run(lambda call: SKIP if call.name in calls.SYNCING else 0).code == 0
        place.cut(NOTHING_FLUSHED)
        place.return_of_power()
        with pytest.raises((AssertionError, OSError)):
            UPGRADE.done(place.box)
