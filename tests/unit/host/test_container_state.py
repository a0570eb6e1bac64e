"""What runc and crun keep of containers, as both write it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appbox.host import container_state, runc
from appbox.store import paths

BUNDLE = "/opt/containers/web-1.0"
RUNC: dict[str, Any] = {
    "id": "web",
    "init_process_pid": 77,
    "init_process_start": 4711,
    "created": "2026-11-22T11:42:52.636697123Z",
    "config": {"labels": ["a=b", f"bundle={BUNDLE}"]},
    "cgroup_paths": {"": "/sys/fs/cgroup/system.slice/web.service/web"},
}
CRUN: dict[str, Any] = {
    "pid": 78,
    "process-start-time": 4712,
    "cgroup-path": "",
    "scope": "",
    "rootfs": "rootfs",
    "bundle": BUNDLE,
    "created": "2026-11-22T11:42:52.636697Z",
}


@pytest.fixture(autouse=True)
def states(tmp_path: Path) -> Iterator[Path]:
    paths.use({"CONTAINER_STATES": str(tmp_path)})
    yield tmp_path
    paths.use(None)


def keep(states: Path, runtime: str, data: object, name: str = "web") -> None:
    """Write a state as the runtime does."""
    folder = states / runtime / name
    folder.mkdir(parents=True)
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / ("state.json" if runtime == "runc" else "status")).write_text(text)


def test_both_say_the_same(states: Path) -> None:
    keep(states, "runc", RUNC)
    keep(states, "crun", CRUN)
    first, second = container_state.read("web")
    assert (first.runtime, first.bundle, first.pid, first.started) == ("runc", BUNDLE, 77, 4711)
    assert (second.runtime, second.bundle, second.pid, second.started) == ("crun", BUNDLE, 78, 4712)
    assert first.since == second.since == datetime(2026, 11, 22, 11, 42, 52, 636697, tzinfo=UTC)
    assert first.cgroups == {"": "/sys/fs/cgroup/system.slice/web.service/web"}
    assert second.cgroups == {}
    assert not list(container_state.read("other"))


@pytest.mark.parametrize("data", ["{", "[]", "7", "\0", "[" * 100_000])
@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_what_cannot_be_read_is_a_foreign_container(states: Path, runtime: str, data: str) -> None:
    keep(states, runtime, data)
    assert [state.since for state in container_state.read("web")] == [None]
    assert runc.running("web") is None
    assert runc.foreign("web") == "unknown"


@pytest.mark.parametrize(("runtime", "data", "key"), [("runc", RUNC, "init_process_pid"), ("crun", CRUN, "pid")])
@pytest.mark.parametrize("value", [None, "x", {}, []])
def test_a_state_without_a_process_has_a_bundle(states: Path, runtime: str, data: Any, key: str, value: object) -> None:
    keep(states, runtime, {**data, key: value})
    assert [state.bundle for state in container_state.read("web")] == [BUNDLE]
    assert runc.running("web") is None
    assert runc.foreign("web") == ""


def test_an_empty_file_is_none(states: Path) -> None:
    keep(states, "runc", "")
    keep(states, "crun", "")
    assert not list(container_state.read("web"))


@pytest.mark.parametrize(("group", "can"), [("there", True), ("gone", False)])
def test_only_a_cgroup_that_is_there_can_be_frozen(states: Path, group: str, *, can: bool) -> None:
    (states / "there").mkdir()
    own = {"init_process_pid": os.getpid(), "init_process_start": runc.start_time(os.getpid())}
    keep(states, "runc", {**RUNC, **own, "cgroup_paths": {"": str(states / group)}})
    assert runc.can_pause("web") == can
    assert not runc.can_pause("other")
