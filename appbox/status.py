"""What is installed and how it does, for `appbox status`. Reads the bundles and runc's state; starts no process."""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from appbox import drift, sizes
from appbox.drift import Books, Subject
from appbox.errors import AppboxError, printable
from appbox.health_line import sentence
from appbox.host import health_state, openrc, runc
from appbox.store import failed, files, paths, state
from appbox.store.root import Root

if TYPE_CHECKING:
    from appbox.host.cgroups import Usage
    from appbox.host.runc import Running

_COUNTED: Final = 20_000
"""Files of a service's data up to which they are counted: that takes a tenth of a second."""
_NAME: Final = re.compile(rb'^name = "([a-z0-9][a-z0-9._-]{0,62})"$', re.MULTILINE)
_HEAD: Final = 4096
"""Bytes of bundle.toml in which the service's name stands."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was tried after the current generation, did not get well, and is not tried again; `when` is RFC 3339."""

    version: str
    digest: str
    generation: int
    when: str
    why: str

    def __str__(self) -> str:
        why = self.why.partition(" | ")[0].replace("\n", "; ")  # one line of the log; `logs` has the others
        return f"{self.version} failed on {self.when} and is not tried again ({why}); apply --retry tries it"


@dataclass(frozen=True, slots=True)
class Status:
    """One service. `state` is running, stopped, failed or broken; `since` is RFC 3339, "" when it does not run.

    A service that is down because it ended badly, or did not start, has failed; it may be about to be tried again.

    `usage` is what it uses now; None when it does not run, or nobody asked. `data_bytes` and `data_files` are -1 while
    nobody has counted. `health` is starting, healthy or
    unhealthy, since when, and what is wrong; "" without a check. A service that is down has it if it is down for it.
    `addresses` are those on a bridge, `ports` what is published of it.
    A timed job that does not run is waiting; `last_status` is the exit status of its last run, or a signal.
    `drift` says in a few words each what is not as it was applied, `notes` what somebody added beside its units.
    `refused` is what failed since the current generation, the oldest first.
    """

    name: str
    version: str
    state: str
    since: str
    pid: int
    digest: str
    image: str
    generation: int
    description: str
    problem: str
    health: str = ""
    health_since: str = ""
    health_problem: str = ""
    usage: Usage | None = None
    data_bytes: int = -1
    data_files: int = -1
    schedule: str = ""
    next_run: str = ""
    last_started: str = ""
    last_ended: str = ""
    last_seconds: float = 0
    last_status: str = ""
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON data."""
        return asdict(self)


def of(root: Root, name: str, *, usage: bool = False, verify: bool = False) -> Status:
    """Return the status of an installed service; AppboxError when there is none of that name.

    `usage` asks for what it uses, too, which is in some more files of the kernel. Its root file system is looked at;
    with `verify` every file of it is compared.
    """
    if name not in state.names(root):
        lost = next((one for one in _lost(root) if one.name == name), None)
        if lost is None:
            raise unknown(root, name)
        return lost
    return _refused(root, _of(root, name, drift.books(root), usage=usage, rootfs=True, verify=verify))


def _refused(root: Root, status: Status) -> Status:
    """Return a status with what failed since the current generation."""
    found = [one for one in failed.load(root, status.name) if one.generation > status.generation]
    refusals = (Refusal(one.version, one.digest, one.generation, one.when, one.why) for one in found)
    return replace(status, refused=tuple(refusals))


def _lost(root: Root) -> list[Status]:
    """Return the services whose bundles are there without a link that says which is current: apply makes it anew.

    What a removal left of a service, its data, has no generation, and is no service.
    """
    linked = set(state.names(root))
    found: dict[str, tuple[int, str]] = {}
    try:
        with root.directory(paths.CONTAINERS) as containers:
            targets = {files.link_target(name, containers) for name in linked}
            for entry in sorted(set(os.listdir(containers)) - linked - targets):
                name, generation = "", 0
                if not entry.startswith("."):
                    name, generation = _whose(containers, entry)
                if name and name not in linked and generation > found.get(name, (0, ""))[0]:
                    found[name] = (generation, entry)
    except FileNotFoundError:
        return []
    return [_without_link(name, *there) for name, there in sorted(found.items())]


def _whose(containers: int, entry: str) -> tuple[str, int]:
    """Return the service of a version directory and its current generation; ("", 0) if it is none.

    Only the name is looked for, in a file that is longer: old versions are passed over on each `status`.
    """
    try:
        with files.directory(entry, containers) as bundle:
            generation = state.current_generation(bundle)
            path = f"{paths.GENERATIONS}/{generation}/bundle.toml"
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=bundle)
            try:
                name = _NAME.search(os.read(fd, _HEAD))
            finally:
                os.close(fd)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "", 0
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "", 0
        raise
    return (name[1].decode(), generation) if name and entry.startswith(f"{name[1].decode()}-") else ("", 0)


def _without_link(name: str, generation: int, directory: str) -> Status:
    why = f"{paths.CONTAINERS}/{name} is gone, which says that {directory} is current; apply its manifest"
    return Status(name, directory[len(name) + 1 :], "broken", "", 0, "", "", generation, "", why)


def _of(root: Root, name: str, books: Books, *, usage: bool = False, rootfs: bool, verify: bool) -> Status:
    with _containers(root, name) as containers:
        if not state.is_current_link(name, containers):
            raise unknown(root, name)
        directory = files.link_target(name, containers) or ""
        version = directory[len(name) + 1 :]
        try:
            with files.directory(directory, containers) as bundle:
                generation = state.current_generation(bundle)
                with files.directory(f"{paths.GENERATIONS}/{generation}", bundle) as record:
                    meta = state.read_meta(record)
                found = runc.running(name) if root.live else None
                subject = drift.Subject(name, directory, generation, meta, found)
                drifted = drift.of(root, subject, bundle, books)
        except PermissionError:
            raise
        except (OSError, ValueError, AppboxError) as error:
            why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            return Status(name, version, "broken", "", 0, "", "", 0, "", f"{directory} cannot be read: {why}")
    shown = _described(root, subject, version, usage=usage)
    if rootfs:
        from appbox import touched  # noqa: PLC0415 - the list of all services does without

        drifted = (*drifted, *touched.words(root, subject, full=verify))
    return replace(shown, drift=drifted, notes=drift.notes(root, name))


def _containers(root: Root, name: str) -> Any:
    if not root.is_directory(paths.CONTAINERS):
        raise unknown(root, name)
    return root.directory(paths.CONTAINERS)


def _described(root: Root, subject: Subject, version: str, *, usage: bool) -> Status:
    name, meta, found = subject.name, subject.meta, subject.running
    image, manifest = (_table(meta.get(key)) for key in ("image", "manifest"))
    job = _job(root, name, _table(manifest.get("service")), running=found is not None)
    return Status(
        name=name,
        version=version,
        state="running" if found else str(job.pop("state", "failed" if root.live and _failed(name) else "stopped")),
        since=found.since.strftime("%Y-%m-%dT%H:%M:%SZ") if found else "",
        pid=found.pid if found else 0,
        digest=str(image.get("digest", "")),
        image=str(image.get("reference", "")),
        generation=subject.generation,
        description=str(manifest.get("description", "")),
        problem="",
        addresses=_addresses(_table(meta.get("network"))),
        ports=tuple(map(str, _table(manifest.get("network")).get("ports", ()))),
        usage=_usage(found) if found and usage else None,
        **(_data(root, name) if usage else {}),
        **{**(_health(name, running=found is not None) if root.live else {}), **job},
    )


def _failed(name: str) -> bool:
    """Return whether a service is down for a reason: as its run script heard from systemd, or as OpenRC keeps it."""
    if os.path.exists(f"{paths.RUN}/{name}/failed") or os.path.lexists(f"{paths.OPENRC_STATE}/failed/{name}"):
        return True
    return openrc.respawns(name) > 0  # it is about to be tried again, or begins to be


def _addresses(network: dict[str, Any]) -> tuple[str, ...]:
    """Return the addresses that a service has in the network of its bridge."""
    return tuple(str(network[key]) for key in ("address", "address6") if key in network)


def _job(root: Root, name: str, service: dict[str, Any], *, running: bool) -> dict[str, Any]:
    """Return what is known of a timed job; the record of its last run is a file."""
    expression = str(service.get("schedule", ""))
    if not expression:
        return {}
    from appbox import jobs  # noqa: PLC0415  # few services are jobs

    waits = root.live and service.get("enable", True) is True
    shown: dict[str, Any] = {"schedule": expression}
    if waits:
        shown["next_run"] = jobs.next_time(expression, datetime.now(UTC))
    if waits and not running:
        shown["state"] = "waiting"
    last = jobs.result(_last_run(root, name, jobs.LIMIT))
    if last is not None:
        shown |= {
            "last_started": last.started,
            "last_ended": last.ended,
            "last_seconds": last.seconds,
            "last_status": last.status,
        }
    return shown


def _last_run(root: Root, name: str, limit: int) -> bytes:
    """Return the record of a job's last run; nothing where there is something else in its place."""
    try:
        return root.read(f"{paths.JOBS}/{name}", limit) or b""
    except PermissionError:
        raise
    except (OSError, AppboxError):
        return b""


def _health(name: str, *, running: bool) -> dict[str, str]:
    found = health_state.load(name)
    if found is None or not (running or found.action in {"stopped", "failed"}):
        return {}
    since = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + found.since
    shown = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"health": found.state, "health_since": shown, "health_problem": sentence(found)}


def _table(value: object) -> dict[str, Any]:
    """Return a table of bundle.toml, empty where somebody made something else of it."""
    return value if isinstance(value, dict) else {}


def _data(root: Root, name: str) -> dict[str, Any]:
    """Return how much a service has in its volumes; nothing where counting it would take long, or nobody may."""
    from appbox.store.walk import measure  # noqa: PLC0415 - the list of all services does without

    try:
        with root.directory(f"{paths.CONTAINERS}/{name}/{paths.DATA}") as fd:
            size = measure(fd, limit=_COUNTED)
    except OSError:
        return {}
    return {} if size is None else {"data_bytes": size.apparent, "data_files": size.entries}


def _usage(found: Running) -> Usage:
    from appbox.host import cgroups  # noqa: PLC0415 - the list of all services does without

    return cgroups.usage(found.cgroups)


def every(root: Root, *, verify: bool = False) -> list[Status]:
    """Return the status of every installed service, sorted by name; root file systems only with `verify`."""
    books = drift.books(root)
    found = [_of(root, name, books, rootfs=verify, verify=verify) for name in state.names(root)]
    bad = failed.names(root)
    found = [_refused(root, one) if one.name in bad else one for one in found]
    return sorted([*found, *_lost(root)], key=lambda one: one.name)


def unknown(root: Root, name: str) -> AppboxError:
    """Return the error for a service that is not installed: with the name that may be meant, or what is left of it."""
    from difflib import get_close_matches  # noqa: PLC0415 - whoever names a service that is there does without

    meant = get_close_matches(name, state.names(root), n=1, cutoff=0.6)
    hint = f"did you mean {meant[0]}?" if meant else "appbox status lists what is"
    left = _left(root, name)
    return AppboxError("is not installed", where=name, why=left, hint="apply its manifest" if left else hint)


def _left(root: Root, name: str) -> str:
    """Say where the data of a service is that was removed, "" when there is none."""
    if not name or "/" in name or not root.is_directory(paths.CONTAINERS):
        return ""
    with root.directory(paths.CONTAINERS) as containers:
        found = [path for path, meta in state.version_directories(containers, name) if meta.get("name") == name]
    return f"it was removed, and its data is kept in {paths.CONTAINERS}/{found[0]}" if found else ""


def table(statuses: list[Status]) -> str:
    """Return the statuses as aligned columns with a heading; a line for each problem."""
    if not statuses:
        return "nothing is installed\n"
    rows = [("NAME", "VERSION", "STATE", "HEALTH", "SINCE", "PID", "DIGEST", "DRIFT")]
    rows += [
        (
            s.name,
            s.version,
            s.state,
            s.health or "-",
            s.since or "-",
            str(s.pid or "-"),
            s.digest.partition(":")[2][:12] or "-",
            ", ".join(s.drift) or "-",
        )
        for s in statuses
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{s.name}: {text}" for s in statuses for text in (s.problem, s.health_problem, *_newest(s)) if text]
    return printable("".join(f"{line}\n" for line in lines))


def _newest(status: Status) -> list[str]:
    """Return the last refusal of each version in words: what was wrong with a manifest before is history."""
    return [str(one) for one in {one.version: one for one in status.refused}.values()]


def _in_words(usage: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a service uses as words for people."""
    if usage is None:
        return {}
    # Without a controller nobody counts it.
    memory = sizes.megabytes(usage["memory"]) if usage["memory"] else ""
    return {**usage, "memory": memory, "cpu_seconds": round(usage["cpu_seconds"], 2)}


def details(status: Status) -> str:
    """Return one service's status as `key: value` lines."""
    data = status.as_dict()
    usage = _in_words(data.pop("usage"))
    data["refused"] = tuple(_newest(status))
    data["data_files"] = max(data["data_files"], 0)
    data["data_bytes"] = sizes.megabytes(data["data_bytes"]) if data["data_bytes"] > 0 else 0
    words = {key: ", ".join(value) if isinstance(value, tuple) else value for key, value in (data | usage).items()}
    shown = {key: value for key, value in words.items() if value not in {"", 0}}
    return printable("".join(f"{key}: {value}\n" for key, value in shown.items()))
