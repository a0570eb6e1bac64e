"""The lock that keeps a service from being started half-way: whose it is, and when it is nobody's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import AppboxError
from appbox.host import runc
from appbox.host.start_lock import StartLock
from appbox.store import paths
from appbox.store.root import Root


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "RUN", str(tmp_path / "run"))
    return tmp_path / "run/web"


@pytest.fixture
def lock(place: Path) -> Iterator[StartLock]:
    with Root() as root:
        yield StartLock(root, "web")


def locks(place: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in place.iterdir()}


def test_it_is_taken_once_and_given_back(lock: StartLock, place: Path) -> None:
    lock.give_back()
    lock.take()
    lock.take()
    me = os.getpid()
    assert locks(place) == {"lock.1": f"{me} {runc.start_time(me)} change\n"}
    lock.give_back()
    assert locks(place) == {}


def test_only_a_process_that_lives_holds_it(lock: StartLock, place: Path) -> None:
    place.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as process:
        (place / "lock.9").write_text(f"{process.pid} {runc.start_time(process.pid)} unit\n")
        (place / "lock.10x").write_text("")
        with pytest.raises(AppboxError, match="web: was started while its change was prepared: process"):
            lock.take()
        assert set(locks(place)) == {"lock.9", "lock.10x"}
        # A number that another process has by now is not that process.
        (place / "lock.9").write_text(f"{process.pid} 1 unit\n")
        lock.take()
        assert "lock.10" in locks(place)
        lock.give_back()
        process.kill()
    for text in ("", "x y z\n", "0 0\n", "99999999 5 unit\n"):
        (place / "lock.9").write_text(text)
        lock.take()
        lock.give_back()


def test_below_another_root_nobody_starts_anything(place: Path, tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        StartLock(root, "web").take()
    assert not place.exists()
