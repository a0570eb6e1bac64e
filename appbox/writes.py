"""`appbox writes`: what a service wrote outside its volumes, and which volumes would let it do without. It only reads.

While a service runs, the upper layer of its root file system is in the mount namespace of its unit, which the kernel
shows at /proc/PID/root of the runtime there; which directory it is, the namespace's table of mounts tells. A persistent
one lies in the version's directory also when nothing runs.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from appbox.errors import AppboxError, printable
from appbox.host import ranges, runc
from appbox.host.opened import opened
from appbox.host.upper import Upper, Write
from appbox.sizes import megabytes
from appbox.store import data, files, paths, state
from appbox.store.installed import Installed
from appbox.store.root import Root
from appbox.suggestion import Suggestion

LISTED: Final = 10_000
"""Writes that are listed; the rest is counted."""

LOOKED_AT: Final = 1_000_000
"""Writes after which nothing more is looked for."""

_SPEC_LIMIT: Final = 16 << 20
_MOUNTS_LIMIT: Final = 4 << 20


@dataclass(slots=True)
class Report:
    """What a service wrote: `writes` are the first ones, `more` how many there are besides.

    `unseen` are directories that could not be looked into; `complete` is false when there was too much to look at.
    """

    name: str
    version: str
    rootfs: str
    running: bool
    suggestion: Suggestion
    has_security: bool
    writes: list[Write] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    more: int = 0
    complete: bool = True
    size: int = 0

    def add(self, write: Write) -> None:
        """Take a write into the lists and the sums."""
        if len(self.writes) < LISTED:
            self.writes.append(write)
        else:
            self.more += 1
        self.size += write.size if write.change != "deleted" else 0
        self.suggestion.add(write)

    def as_dict(self, *, suggest: bool) -> dict[str, Any]:
        """Return the report as JSON data."""
        found = {
            "name": self.name,
            "version": self.version,
            "rootfs": self.rootfs,
            "running": self.running,
            "writes": [_plain(write) for write in self.writes],
            "more": self.more,
            "size": self.size,
            "unseen": self.unseen,
            "complete": self.complete,
        }
        return {**found, "suggestion": self.suggestion.data()} if suggest else found


def _plain(write: Write) -> dict[str, Any]:
    return {key: value for key, value in asdict(write).items() if key != "place"}


def of(root: Root, name: str) -> Report:
    """Return what an installed service wrote.

    Raises AppboxError when there is no such service, or none of its writes are left because it does not run.
    """
    found = state.load(root, name)
    if found is None:
        raise AppboxError("is not installed", where=name, hint="appbox status lists what is")
    live = runc.running(name) if root.live else None
    with root.directory(paths.CONTAINERS) as containers:
        if live is not None:
            found = state.load_version(containers, name, os.path.basename(live.bundle))
        if found is None or (found.problem and not found.meta):
            raise AppboxError("cannot be read", where=name, why=found.problem if found else "its directory is gone")
        with files.directory(found.directory, containers) as bundle:
            report = _new(found, bundle, running=live is not None)
            with _upper(found, bundle, live) as upper, files.directory(paths.ROOTFS, bundle) as lower:
                _look(report, Upper(upper, lower, found.base, _hidden(bundle)))
    return report


def _look(report: Report, upper: Upper) -> None:
    for count, write in enumerate(upper.writes(), 1):
        report.add(write)
        if count >= LOOKED_AT:
            report.complete = False
            break
    report.unseen = upper.unseen


def _new(found: Installed, bundle: int, *, running: bool) -> Report:
    manifest = _table(found.meta.get("manifest"))
    security = _table(manifest.get("security"))
    taken = {*_table(manifest.get("volumes")), *_kept(bundle)}
    ids = ranges.SIZE if found.meta.get("userns") else ranges.ALL
    suggestion = Suggestion(str(found.meta.get("user", "")), frozenset(taken), ids)
    rootfs = str(security.get("rootfs", "overlay"))
    return Report(found.name, found.version, rootfs, running, suggestion, has_security=bool(security))


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _kept(bundle: int) -> frozenset[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), files.directory(paths.DATA, bundle) as fd:
        return data.names(fd)
    return frozenset()


def _hidden(bundle: int) -> frozenset[str]:
    """Return where the runtime mounts or makes something by itself: none of that was written by the service."""
    spec = json.loads(files.read(f"{paths.CURRENT}/config.json", _SPEC_LIMIT, bundle))
    found = {str(mount["destination"]) for mount in spec["mounts"]}
    return frozenset({*found, "/dev", "/proc", "/sys", str(spec["process"]["cwd"])} - {"/"})


@contextlib.contextmanager
def _upper(found: Installed, bundle: int, live: runc.Running | None) -> Iterator[int]:
    """Open the upper layer of the service."""
    with contextlib.ExitStack() as stack:
        if live is not None:
            yield stack.enter_context(_upper_of_running(found, live))
        elif files.exists(paths.UPPER, bundle):
            yield stack.enter_context(files.directory(paths.UPPER, bundle))
        elif _table(_table(found.meta.get("manifest")).get("security")).get("rootfs") == "persistent":
            raise AppboxError("has not run yet", where=found.name, hint=f"appbox start {found.name}")
        else:
            why = "what it writes outside its volumes is discarded when it stops"
            raise AppboxError("is not running", where=found.name, why=why, hint=f"appbox start {found.name}")


@contextlib.contextmanager
def _upper_of_running(found: Installed, live: runc.Running) -> Iterator[int]:
    """Open the upper layer in the mount namespace of the runtime that watches the container."""
    runtime, since = runc.parent(live.pid), runc.start_time(live.pid)
    where = f"{paths.CONTAINERS}/{found.directory}"
    if runtime is None:
        raise AppboxError("ended meanwhile", where=found.name)
    try:
        path = _mounted_upper(runtime, f"{where}/{paths.ROOTFS}")
        if path not in {f"{where}/{paths.LIVE}/upper", f"{where}/{paths.UPPER}"}:
            raise AppboxError("has no overlay", where=found.name, why="it was not started by its run script")
        with opened(f"/proc/{runtime}/root{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as fd:
            # The number may have become another process's; the container's own first process has not, while it lives.
            if runc.parent(live.pid) != runtime or runc.start_time(live.pid) != since:
                raise AppboxError("ended meanwhile", where=found.name)
            yield fd
    except (FileNotFoundError, ProcessLookupError) as error:
        raise AppboxError("ended meanwhile", where=found.name) from error


def _mounted_upper(pid: int, place: str) -> str:
    """Return the upper directory of the overlay on `place`, as a process sees it (proc(5), mountinfo); "" for none."""
    found = ""
    with opened(f"/proc/{pid}/mountinfo", os.O_RDONLY) as fd:
        lines = files.read_regular(fd, 0, _MOUNTS_LIMIT)[:_MOUNTS_LIMIT].decode("utf-8", "surrogateescape")
        for line in lines.splitlines():
            about, _, kind = line.partition(" - ")
            fields, filesystem = about.split(" "), kind.split(" ")
            if len(fields) > 4 and fields[4] == place and filesystem[0] == "overlay":
                options = filesystem[2].split(",") if len(filesystem) > 2 else []
                found = next((one.removeprefix("upperdir=") for one in options if one.startswith("upperdir=")), "")
    return found


def text(report: Report) -> str:
    """Return the report as lines, one for each write, with the sums at the end."""
    lines = [f"{write.change:7}  {write.path}  ({', '.join(_about(write))})" for write in report.writes]
    lines += [f"… and {report.more} more"] if report.more else []
    lines += [f"not looked into: {path}" for path in report.unseen]
    lines += [] if report.complete else ["there is more than is ever looked at"]
    many = len(report.writes) + report.more
    lines.append(f"{report.name} {report.version}: {many} writes outside its volumes, {megabytes(report.size)}")
    return "".join(printable(line).replace("\n", "\\n").replace("\t", "\\t") + "\n" for line in lines)


def _about(write: Write) -> Iterator[str]:
    yield write.kind
    if write.kind == "file" and write.change != "deleted":
        yield megabytes(write.size)
    if write.kind == "file" and write.change != "added":
        yield f"was {megabytes(write.was)}"
    yield from write.what
