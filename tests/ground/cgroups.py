"""Cgroups of the unified hierarchy, seen from this machine: what is in them, and how they go away."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ground import cache


def hierarchy() -> Path:
    """Return where this machine has its cgroup v2 hierarchy."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(fields.split()[4])
    msg = "no cgroup v2 hierarchy is mounted; mount -t cgroup2 none /sys/fs/cgroup"
    raise RuntimeError(msg)


def pids(cgroup: Path) -> list[int]:
    """Return the processes of a cgroup and of those below it."""
    found: list[int] = []
    for directory, _, _ in os.walk(cgroup):
        with contextlib.suppress(FileNotFoundError):
            found += [int(pid) for pid in (Path(directory) / "cgroup.procs").read_text().split()]
    return found


def remove(cgroup: Path) -> None:
    """Kill what is in a cgroup and remove it with those below it; nothing happens when it is not there."""
    deadline = time.monotonic() + 10
    while cgroup.exists():
        for pid in pids(cgroup):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for directory in _deepest_first(cgroup):
            with contextlib.suppress(OSError):  # busy until the killed are reaped
                directory.rmdir()
        if time.monotonic() > deadline:
            msg = f"{cgroup} cannot be removed"
            raise RuntimeError(msg)
        time.sleep(0.02)


def sweep(prefix: str) -> None:
    """Remove the cgroups whose names are `prefix` and a name by `cache.scratch`, and whose makers were killed."""
    for cgroup in hierarchy().glob(f"{prefix}*"):
        if not cache.is_alive(cgroup.name.removeprefix(prefix)):
            remove(cgroup)


def _deepest_first(cgroup: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(cgroup, topdown=False):
        yield Path(directory)
