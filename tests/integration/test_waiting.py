"""Who changes something waits for whoever does so already, or is told who that is: with real processes on one root."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ground.sandbox import Sandbox

pytestmark = pytest.mark.root

WRITERS = (
    ("apply", "{services}"),
    ("remove", "web"),
    ("rollback", "web"),
    ("prune",),
    ("snapshot", "web"),
    ("snapshot", "--purge", "20260101T000000Z", "web"),
    ("restore", "web", "20260101T000000Z"),
    ("import", "/dev/null"),
    ("export", "--data", "-o", "{services}/out.tar", "web"),
)


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    found = Sandbox(tmp_path)
    found.apply()
    return found


@contextmanager
def somebody(box: Sandbox) -> Iterator[subprocess.Popen[bytes]]:
    """An import that has the lock and waits for the rest of its file."""
    process = subprocess.Popen(
        box.command("import", "-"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while f" {process.pid} " not in Path("/proc/locks").read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


def words(box: Sandbox, line: tuple[str, ...]) -> list[str]:
    return [word.format(services=box.services) for word in line]


def test_every_writer_is_told_who_is_at_work_and_since_when(box: Sandbox) -> None:
    with somebody(box) as process:
        began = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
        for line in WRITERS:
            command, *rest = words(box, line)
            error = box.appbox(command, *rest, code=7).err
            told = re.fullmatch(
                r"appbox: /var/lib/appbox/lock: another appbox is at work: process (\d+) \(appbox (.+) import -\) "
                r"since (\S+Z) holds the lock; --wait waits for it, --wait=SECONDS no longer than that\n",
                error,
            )
            assert told is not None, error
            assert int(told[1]) == process.pid
            assert str(box.root) in told[2]
            assert abs(_minutes(told[3]) - _minutes(f"{began}:00Z")) <= 2
            assert "also after 0.1 s: process" in box.appbox(command, "--wait=0.1", *rest, code=7).err
        assert box.appbox("plan", box.services).out == "nothing to do\n"


def _minutes(when: str) -> float:
    return time.mktime(time.strptime(when, "%Y-%m-%dT%H:%M:%SZ")) / 60


def test_who_waits_says_for_whom_and_goes_on_when_the_other_one_is_dead(box: Sandbox) -> None:
    with somebody(box) as process:
        waiting = [
            subprocess.Popen(box.command("snapshot", wait, "web"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for wait in ("--wait", "--wait=60")
        ]
        assert all(one.stderr and b"waiting for process %d (" % process.pid in one.stderr.readline() for one in waiting)
        assert all(one.poll() is None for one in waiting)
        process.kill()
        for one in waiting:
            out, _ = one.communicate(timeout=60)
            assert one.returncode == 0
            assert b": snapshot " in out


def test_the_lock_of_manifests_is_waited_for_too(box: Sandbox) -> None:
    fd = os.open(box.services, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        error = box.appbox("lock", "--wait=0.1", box.services, code=7).err
        assert f"another appbox is writing it, also after 0.1 s: process {os.getpid()} (" in error
        waiting = subprocess.Popen(box.command("lock", "--wait", box.services), stderr=subprocess.PIPE)
        assert waiting.stderr is not None
        assert b"waiting for process" in waiting.stderr.readline()
    finally:
        os.close(fd)
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0


@pytest.mark.parametrize("wait", ["--wait=soon", "--wait=-1", "--wait=1e9", "--wait=inf", "--wait=٣"])
def test_a_time_that_is_none(box: Sandbox, wait: str) -> None:
    error = box.appbox("remove", wait, "web", code=2).err
    assert "is no number of seconds; write --wait or --wait=SECONDS" in error
    assert error.startswith("appbox: --wait: ")
    assert (box.containers / "web").is_symlink()
