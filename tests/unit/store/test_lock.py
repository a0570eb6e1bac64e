"""One appbox at a time."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from appbox.errors import Locked
from appbox.store import lock
from appbox.store.root import Root


def test_the_second_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root, lock.exclusive(root):
        with pytest.raises(Locked) as caught, lock.exclusive(root):
            pass
        told = str(caught.value)
        assert told.startswith(f"/var/lib/appbox/lock: another appbox is at work: process {os.getpid()} (")
        assert told.endswith(" holds the lock; --wait waits for it, --wait=SECONDS no longer than that")
    with Root(str(tmp_path)) as root, lock.exclusive(root):
        pass


def test_waiting_gets_it_in_the_end(tmp_path: Path) -> None:
    held, seen = threading.Event(), []

    def hold() -> None:
        with Root(str(tmp_path)) as root, lock.exclusive(root):
            held.set()
            time.sleep(0.15)
            seen.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with Root(str(tmp_path)) as root:
        with pytest.raises(Locked), lock.exclusive(root, 0.01):
            pass
        with lock.exclusive(root, None):
            seen.append("second")
    thread.join()
    assert seen == ["first", "second"]


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        (lock.Holder(), "a process that cannot be seen from here"),
        (lock.Holder(7), "process 7"),
        (lock.Holder(7, "appbox apply x"), "process 7 (appbox apply x)"),
        (lock.Holder(7, "x", "2026-01-02T03:04:05Z"), "process 7 (x) since 2026-01-02T03:04:05Z"),
    ],
)
def test_who_holds_it_in_words(holder: lock.Holder, words: str) -> None:
    assert str(holder) == words


def test_who_waits_is_told_once_for_whom(tmp_path: Path) -> None:
    told: list[lock.Holder] = []
    with Root(str(tmp_path)) as root, lock.exclusive(root):
        with pytest.raises(Locked, match=r"also after 0\.3 s"), lock.exclusive(root, 0.3, told.append):
            pass
        with pytest.raises(Locked), lock.exclusive(root, 0.0, told.append):
            pass
    assert [one.pid for one in told] == [os.getpid()]


def test_taking_the_lock_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "var/lib/appbox/lock"
    with Root(str(tmp_path)) as root:
        with lock.exclusive(root):
            before = path.stat()
        with lock.exclusive(root):
            assert path.stat() == before
