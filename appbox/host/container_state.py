"""What the runtimes keep of containers: their state files are read directly, which costs no process per service.

runc has `state.json` (libcontainer's State), crun `status` (libcrun/status.c), each below a directory of its own. Which
of them a service's container was started by is seen by where its state is: a host may have changed from one to another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from appbox.errors import AppboxError
from appbox.store import files, paths

_LIMIT: Final = 4 << 20
_CGROUPS: Final = "/sys/fs/cgroup"
_CONTROLLERS: Final = ("memory", "pids", "cpu", "cpuacct", "blkio")
"""Those of cgroup version 1 that have directories of their own, and are asked for what a container uses."""


@dataclass(frozen=True, slots=True)
class State:
    """A container as its runtime has it: the host's number and start time of its first process, since when, of what.

    `since` is None for one whose state cannot be read; its `bundle` may be known nevertheless, else it is "".
    `cgroups` maps controllers to directories; cgroup v2 is "".
    """

    runtime: str
    bundle: str = ""
    pid: int = 0
    started: int = 0
    since: datetime | None = None
    cgroups: Mapping[str, str] = field(default_factory=dict)


def directory(runtime: str) -> str:
    """Return where a runtime keeps the states of containers: its own default place, for root and users alike."""
    return f"{paths.CONTAINER_STATES}/{runtime}"


def read(name: str) -> Iterator[State]:
    """Yield what the runtimes keep of containers of that name, be they running or not."""
    for runtime, (file, parse) in RUNTIMES.items():
        data = _data(f"{directory(runtime)}/{name}/{file}")
        if data is None:
            continue
        try:
            yield parse(runtime, data)
        except (ValueError, KeyError, TypeError, AttributeError):
            yield State(runtime, _said(data))


def _data(path: str) -> dict[str, Any] | None:
    """Return a state, {} for one that cannot be read, None when there is none, or an empty file."""
    try:
        data = files.read_if_present(path, _LIMIT)
        state = json.loads(data) if data else None
    except PermissionError:
        raise
    except (OSError, AppboxError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) or state is None else {}


def _of_runc(runtime: str, data: dict[str, Any]) -> State:
    cgroups = {str(name): str(path) for name, path in (data.get("cgroup_paths") or {}).items()}
    pid, started = int(data["init_process_pid"]), int(data["init_process_start"])
    return State(runtime, _said(data), pid, started, _time(str(data["created"])), cgroups)


def _of_crun(runtime: str, data: dict[str, Any]) -> State:
    pid, started = int(data["pid"]), int(data["process-start-time"])
    return State(runtime, _said(data), pid, started, _time(str(data["created"])), _groups(str(data["cgroup-path"])))


def _said(data: dict[str, Any]) -> str:
    """Return the bundle that a state names: runc has it as a label, crun by itself; "" for none."""
    config = data.get("config")
    labels = config.get("labels") if isinstance(config, dict) else None
    words = map(str, labels) if isinstance(labels, list) else ()
    return next((word[7:] for word in words if word.startswith("bundle=")), "") or str(data.get("bundle") or "")


def _groups(path: str) -> dict[str, str]:
    """Return the directories of a cgroup that crun names by its path from the top, "" for none."""
    if not path:
        return {}
    if files.exists(f"{_CGROUPS}/cgroup.controllers"):
        return {"": f"{_CGROUPS}{path}"}
    return {name: f"{_CGROUPS}/{name}{path}" for name in _CONTROLLERS}


def _time(text: str) -> datetime:
    """Return an RFC 3339 time of a runtime's, which may have nanoseconds; Python knows microseconds."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")


RUNTIMES: Final[Mapping[str, tuple[str, Callable[[str, dict[str, Any]], State]]]] = {
    "runc": ("state.json", _of_runc),
    "crun": ("status", _of_crun),
}
"""The runtimes that appbox knows, the preferred one first: the file that each keeps, and how it is read."""
