"""Containers as runc keeps them: its state files are read directly, which costs no process per service."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn

from appbox import owner
from appbox.errors import AppboxError
from appbox.host import process
from appbox.store import files, paths

_LIMIT: Final = 4 << 20


def states() -> str:
    """Return where runc keeps the states of containers: its own default place, for root and users alike."""
    return f"{paths.CONTAINER_STATES}/runc"


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs: the host's number of its first process, since when, and which bundle it was made from.

    `cgroups` maps controllers to directories; cgroup v2 is "".
    """

    pid: int
    since: datetime
    bundle: str
    cgroups: Mapping[str, str] = field(default_factory=dict)


def running(name: str) -> Running | None:
    """Return the running container of a service, or None: no state, another's, or its first process is gone."""
    state = _state(name)
    bundle = _bundle(state)
    if state is None or not _is_ours(name, bundle):
        return None
    try:
        pid, started = int(state["init_process_pid"]), int(state["init_process_start"])
        since = _time(str(state["created"]))
        cgroups = {str(name): str(path) for name, path in (state.get("cgroup_paths") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Running(pid, since, bundle, cgroups) if start_time(pid) == started else None


def foreign(name: str) -> str:
    """Return the bundle of the container that has a service's name and is not the service's, be it running or not.

    "" when there is none; `unknown` for one whose state cannot be read. The run script will not start beside it.
    """
    state = _state(name)
    bundle = _bundle(state)
    return "" if state is None or _is_ours(name, bundle) else bundle or "unknown"


def _is_ours(name: str, bundle: str) -> bool:
    return bundle.startswith(f"{paths.CONTAINERS}/{name}-")


def _state(name: str) -> dict[str, Any] | None:
    """Return runc's state of a container, {} for one that cannot be read, None when there is none, or an empty one."""
    try:
        data = files.read_if_present(f"{states()}/{name}/state.json", _LIMIT)
        state = json.loads(data) if data else None
    except PermissionError:
        raise
    except (OSError, AppboxError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) or state is None else {}


def _bundle(state: dict[str, Any] | None) -> str:
    config = state.get("config") if state else None
    labels = config.get("labels") if isinstance(config, dict) else None
    words = map(str, labels) if isinstance(labels, list) else ()
    return next((word[7:] for word in words if word.startswith("bundle=")), "")


def process_of(name: str) -> tuple[int, int] | None:
    """Return number and start time of the first process of a service's running container, None when there is none."""
    found = running(name)
    started = start_time(found.pid) if found else None
    return (found.pid, started) if found and started is not None else None


def _time(text: str) -> datetime:
    """Return an RFC 3339 time of runc's, which has nanoseconds; Python knows microseconds."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")


def start_time(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot (proc_pid_stat(5), field 22); None when it is dead."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def parent(pid: int) -> int | None:
    """Return the number of a process's parent (proc_pid_stat(5), field 4), None when it is dead."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read(4096).rpartition(b")")[2].split()[1])
    except OSError:
        return None


def enter(name: str, command: list[str], *, terminal: bool) -> NoReturn:
    """Replace this process by `runc exec` in a running service."""
    found = running(name)
    if found is None:
        raise AppboxError("is not running", where=name, hint=f"appbox start {name}")
    process.become([*program(name), "exec", *(["--tty"] if terminal else []), name, *command])


def program(name: str) -> list[str]:
    """Return the words that any command of runc for a service begins with.

    A command in a container of an ordinary user is started from the user namespace that the container is in.
    """
    words = [process.need("runc", f"{name} runs through it"), "--root", states()]
    own, found = owner.current(), running(name)
    if own is None or found is None:
        return words
    keep = ["--preserve-credentials"] if own.alone else []
    return [
        process.need("nsenter", "it enters a container's user namespace"),
        "-t",
        str(found.pid),
        "-U",
        *keep,
        *words,
    ]


def kill(name: str, signal: str) -> None:
    """Send a signal to a service's first process through runc; AppboxError when that fails."""
    result = process.run([*program(name), "kill", name, signal])
    if result.code != 0:
        raise AppboxError("cannot be signalled", where=name, why=result.message)


def pause(name: str, *, on: bool) -> None:
    """Freeze all processes of a service's container, or let them go on; AppboxError when that fails."""
    verb = "pause" if on else "resume"
    result = process.run([*program(name), verb, name])
    if result.code != 0:
        raise AppboxError(f"cannot be {verb}d", where=name, why=result.message)


def version() -> str | None:
    """Return the first line of `runc --version`, or None when the host has no runc."""
    path = process.find("runc")
    if path is None:
        return None
    lines = process.run([path, "--version"]).out.splitlines()
    return lines[0] if lines and os.path.exists(path) else None
