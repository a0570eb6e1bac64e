"""Containers of services and the runtime that has them, runc or crun: what it keeps of them, and commands to it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NoReturn

from appbox import owner
from appbox.errors import AppboxError
from appbox.host import container_state, os_release, process
from appbox.store import paths

_DYING: Final = 5.0
"""Seconds within which a process that was killed has to be gone."""


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs: the host's number of its first process, since when, and which bundle it was made from.

    `cgroups` maps controllers to directories; cgroup v2 is "". `runtime` is the program that runs it.
    """

    pid: int
    since: datetime
    bundle: str
    cgroups: Mapping[str, str] = field(default_factory=dict)
    runtime: str = "runc"


def running(name: str) -> Running | None:
    """Return the running container of a service, or None: no state, another's, or its first process is gone."""
    for state in container_state.read(name):
        if state.since is not None and _is_ours(name, state.bundle) and start_time(state.pid) == state.started:
            return Running(state.pid, state.since, state.bundle, state.cgroups, state.runtime)
    return None


def foreign(name: str) -> str:
    """Return the bundle of the container that has a service's name and is not the service's, be it running or not.

    "" when there is none; `unknown` for one whose state cannot be read. The run script will not start beside it.
    """
    bundles = (state.bundle for state in container_state.read(name))
    return next((bundle or "unknown" for bundle in bundles if not _is_ours(name, bundle)), "")


def _is_ours(name: str, bundle: str) -> bool:
    return bundle.startswith(f"{paths.CONTAINERS}/{name}-")


def there() -> dict[str, str]:
    """Return the paths of the runtimes that this host has by their names, the preferred one first."""
    found = ((name, process.find(name)) for name in container_state.RUNTIMES)
    return {name: path for name, path in found if path is not None}


def need(why: str) -> tuple[str, str]:
    """Return name and path of the first runtime that this host has; HostLacks with `why` when there is none."""
    found = next(iter(there().items()), None)
    return found or ("runc", process.need("runc", why, hint=os_release.hint("runc")))


def process_of(name: str) -> tuple[int, int] | None:
    """Return number and start time of the first process of a service's running container, None when there is none."""
    found = running(name)
    started = start_time(found.pid) if found else None
    return (found.pid, started) if found and started is not None else None


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
    """Replace this process by the runtime's `exec` in a running service."""
    found = running(name)
    if found is None:
        raise AppboxError("is not running", where=name, hint=f"appbox start {name}")
    process.become([*beside(name), "exec", *(["--tty"] if terminal else []), name, *command])


def beside(name: str) -> list[str]:
    """Return the words that `exec` in a service's container begins with, which joins the container's cgroup.

    The kernel lets an ordinary user move a process only below a common cgroup of the user's own (cgroups(7)); a login
    session is outside of it, and the runtime passes over that. So the user's systemd starts it, in a scope of its own.
    """
    return [*scope(), *program(name)]


def scope() -> list[str]:
    """Return the words that start a program where it may join a container's cgroup, if that takes any."""
    own = owner.current()
    run = process.find("systemd-run") if own is not None and not own.by_root else None
    if own is None or run is None or not os.path.exists(f"{own.runtime}/systemd/private"):
        return []
    return [run, "--user", "--scope", "--quiet", "--collect", "--"]


def program(name: str) -> list[str]:
    """Return the words that any command of the runtime for a service begins with.

    A command in a container of an ordinary user is started from the user namespace that the container is in.
    """
    own, found = owner.current(), running(name)
    why = f"{name} runs through it"
    runtime, path = need(why) if found is None else (found.runtime, process.need(found.runtime, why))
    words = [path, "--root", container_state.directory(runtime)]
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
    """Send a signal to a service's first process through its runtime; AppboxError when that fails."""
    result = process.run([*program(name), "kill", name, signal])
    if result.code != 0:
        raise AppboxError("cannot be signalled", where=name, why=result.message)


def end(name: str) -> None:
    """Kill everything in a service's own container and remove it; nothing happens when none runs.

    Raises AppboxError when that fails.
    """
    found = running(name)
    if found is None:
        return
    since = start_time(found.pid)
    result = process.run([*program(name), "delete", "--force", name])
    # crun cannot remove what another crun removes at the same time; its processes are dying by then.
    deadline = time.monotonic() + _DYING
    while result.code != 0 and since is not None and start_time(found.pid) == since:
        if time.monotonic() > deadline:
            raise AppboxError("cannot be ended", where=name, why=result.message)
        time.sleep(0.02)


def can_pause(name: str) -> bool:
    """Return whether a service's container has a cgroup of its own to freeze: not every ordinary user can give one."""
    found = running(name)
    return found is not None and any(os.path.isdir(path) for path in found.cgroups.values())


def pause(name: str, *, on: bool) -> None:
    """Freeze all processes of a service's container, or let them go on; AppboxError when that fails."""
    verb = "pause" if on else "resume"
    result = process.run([*program(name), verb, name])
    if result.code != 0:
        raise AppboxError(f"cannot be {verb}d", where=name, why=result.message)
