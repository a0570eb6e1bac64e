"""Control groups of the running host: what they can limit, and what a container uses. It only reads."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from appbox import owner
from appbox.host.facts import Cgroups
from appbox.store import files

ROOT: Final = "/sys/fs/cgroup"
"""Where every init mounts them: version 2 itself, or a directory for each controller of version 1."""

_LIMIT: Final = 64 << 10
_VERSION_1: Final = {"blkio": "io", "cpu": "cpu", "memory": "memory", "pids": "pids"}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses: bytes, processes and threads, seconds of processors; how many the kernel killed."""

    memory: int = 0
    processes: int = 0
    cpu_seconds: float = 0.0
    oom_kills: int = 0


def gather() -> Cgroups:
    """Return what the control groups of this host can limit, or what an ordinary user was given of them."""
    own = owner.current()
    if own is not None and not own.by_root:
        return _given(own.uid)
    if own is not None and not os.path.isdir("/run/systemd/system"):
        # OpenRC's script gives the user its own cgroup, in which there is what is on at the top (cgroups(7)).
        on = files.read_if_present(f"{ROOT}/cgroup.subtree_control", _LIMIT) or b""
        return replace(_unified(on), given="some")
    controllers = files.read_if_present(f"{ROOT}/cgroup.controllers", _LIMIT)
    if controllers is None:
        return _version_1()
    return _unified(controllers)


def _unified(controllers: bytes) -> Cgroups:
    return Cgroups(
        unified=True,
        controllers=frozenset(controllers.decode(errors="replace").split()),
        # Only a group that limits memory could have the file.
        swap=not _somewhere("memory.max") or _somewhere("memory.swap.max"),
        io_weight=_somewhere("io.weight", "io.bfq.weight", "io.cost.qos"),
    )


def _given(uid: int) -> Cgroups:
    """Return what the systemd of an ordinary user may use: it is in this cgroup, which root's systemd made for it.

    Without one nobody makes any for the user's services; and of version 1 nothing can be given away safely.
    """
    top = f"{ROOT}/user.slice/user-{uid}.slice/user@{uid}.service"
    controllers = files.read_if_present(f"{top}/cgroup.controllers", _LIMIT)
    if controllers is None:
        return Cgroups(given="nothing")
    limited = glob.glob(f"{top}/memory.max")
    return Cgroups(
        controllers=frozenset(controllers.decode(errors="replace").split()),
        swap=not limited or bool(glob.glob(f"{top}/memory.swap.max")),
        io_weight=any(glob.glob(f"{top}/{name}") for name in ("io.weight", "io.bfq.weight")),
        given="some",
    )


def _version_1() -> Cgroups:
    return Cgroups(
        unified=False,
        controllers=frozenset(name for old, name in _VERSION_1.items() if glob.glob(f"{ROOT}/{old}/cgroup.procs")),
        swap=bool(glob.glob(f"{ROOT}/memory/memory.memsw.limit_in_bytes")),
        io_weight=any(glob.glob(f"{ROOT}/blkio/{name}") for name in ("blkio.weight", "*/blkio.bfq.weight")),
    )


def _somewhere(*names: str) -> bool:
    """Return whether the top or a group below it has a file of such a name: many files are not at the top."""
    return any(glob.glob(f"{ROOT}/{name}") or glob.glob(f"{ROOT}/*/{name}") for name in names)


def usage(groups: Mapping[str, str]) -> Usage:
    """Return what the container in `groups` uses: controller -> directory as runc has it, "" being version 2."""
    if top := groups.get("", ""):
        return Usage(
            memory=_number(f"{top}/memory.current"),
            processes=_number(f"{top}/pids.current"),
            cpu_seconds=_field(f"{top}/cpu.stat", "usage_usec") / 1e6,
            oom_kills=_field(f"{top}/memory.events", "oom_kill"),
        )
    memory = groups.get("memory", "/nowhere")
    return Usage(
        memory=_number(f"{memory}/memory.usage_in_bytes"),
        processes=_number(f"{groups.get('pids', '/nowhere')}/pids.current"),
        cpu_seconds=_number(f"{groups.get('cpuacct', '/nowhere')}/cpuacct.usage") / 1e9,
        oom_kills=_field(f"{memory}/memory.oom_control", "oom_kill"),
    )


def _number(path: str) -> int:
    """Return the number that a file holds; 0 when there is no such file, or the container has just ended."""
    return _whole(_text(path).strip())


def _field(path: str, name: str) -> int:
    """Return the number after `name` in a file of such lines; 0 when there is none."""
    rows = (line.split() for line in _text(path).splitlines())
    return next((_whole(row[1]) for row in rows if len(row) == 2 and row[0] == name), 0)


def _text(path: str) -> str:
    try:
        return (files.read_if_present(path, _LIMIT) or b"").decode(errors="replace")
    except OSError:
        return ""


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
