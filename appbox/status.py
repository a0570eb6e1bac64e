"""What is installed and how it does, for `appbox status`. Reads the bundles and runc's state; starts no process."""

from __future__ import annotations

import os
import time
import tomllib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from appbox import sizes
from appbox.errors import AppboxError, printable
from appbox.health_line import sentence
from appbox.host import health_state, runc
from appbox.store import files, paths, state
from appbox.store.root import Root

if TYPE_CHECKING:
    from appbox.host.cgroups import Usage
    from appbox.host.runc import Running

_META_LIMIT: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Status:
    """One service. `state` is running, stopped or broken; `since` is RFC 3339, "" when it does not run.

    `usage` is what it uses now; None when it does not run, or nobody asked. `health` is starting, healthy or
    unhealthy, since when, and what is wrong; "" without a check. A service that is down has it if it is down for it.
    `addresses` are those on a bridge, `ports` what is published of it.
    A timed job that does not run is waiting; `last_status` is the exit status of its last run, or a signal.
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
    schedule: str = ""
    next_run: str = ""
    last_started: str = ""
    last_ended: str = ""
    last_seconds: float = 0
    last_status: str = ""
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON data."""
        return asdict(self)


def of(root: Root, name: str, *, usage: bool = False) -> Status:
    """Return the status of an installed service; AppboxError when there is none of that name.

    `usage` asks for what it uses, too, which is in some more files of the kernel.
    """
    with _containers(root, name) as containers:
        if not state.is_current_link(name, containers):
            raise unknown(name)
        directory = files.link_target(name, containers) or ""
        version = directory[len(name) + 1 :]
        try:
            with files.directory(directory, containers) as bundle:
                generation = state.current_generation(bundle)
                path = f"{paths.GENERATIONS}/{generation}/bundle.toml"
                meta = tomllib.loads(files.read(path, _META_LIMIT, bundle).decode())
        except PermissionError:
            raise
        except (OSError, ValueError, AppboxError) as error:
            why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            return Status(name, version, "broken", "", 0, "", "", 0, "", f"{directory} cannot be read: {why}")
    return _described(root, name, version, generation, meta, usage=usage)


def _containers(root: Root, name: str) -> Any:
    if not root.is_directory(paths.CONTAINERS):
        raise unknown(name)
    return root.directory(paths.CONTAINERS)


def _described(root: Root, name: str, version: str, generation: int, meta: dict[str, Any], *, usage: bool) -> Status:
    found = runc.running(name) if root.live else None
    image, manifest = (_table(meta.get(key)) for key in ("image", "manifest"))
    job = _job(root, name, _table(manifest.get("service")), running=found is not None)
    return Status(
        name=name,
        version=version,
        state="running" if found else str(job.pop("state", "stopped")),
        since=found.since.strftime("%Y-%m-%dT%H:%M:%SZ") if found else "",
        pid=found.pid if found else 0,
        digest=str(image.get("digest", "")),
        image=str(image.get("reference", "")),
        generation=generation,
        description=str(manifest.get("description", "")),
        problem="",
        addresses=_addresses(_table(meta.get("network"))),
        ports=tuple(map(str, _table(manifest.get("network")).get("ports", ()))),
        usage=_usage(found) if found and usage else None,
        **{**(_health(name, running=found is not None) if root.live else {}), **job},
    )


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
    last = jobs.result(root.read(f"{paths.JOBS}/{name}", jobs.LIMIT) or b"")
    if last is not None:
        shown |= {
            "last_started": last.started,
            "last_ended": last.ended,
            "last_seconds": last.seconds,
            "last_status": last.status,
        }
    return shown


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


def _usage(found: Running) -> Usage:
    from appbox.host import cgroups  # noqa: PLC0415 - the list of all services does without

    return cgroups.usage(found.cgroups)


def every(root: Root) -> list[Status]:
    """Return the status of every installed service, sorted by name."""
    return [of(root, name) for name in state.names(root)]


def unknown(name: str) -> AppboxError:
    """Return the error for a service that is not installed."""
    return AppboxError("is not installed", where=name, hint="appbox status lists what is")


def table(statuses: list[Status]) -> str:
    """Return the statuses as aligned columns with a heading; a line for each problem and description."""
    rows = [("NAME", "VERSION", "STATE", "HEALTH", "SINCE", "PID", "DIGEST")]
    rows += [
        (
            s.name,
            s.version,
            s.state,
            s.health or "-",
            s.since or "-",
            str(s.pid or "-"),
            s.digest.partition(":")[2][:12] or "-",
        )
        for s in statuses
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{s.name}: {text}" for s in statuses for text in (s.problem, s.health_problem) if text]
    return printable("".join(f"{line}\n" for line in lines))


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
    words = {key: ", ".join(value) if isinstance(value, tuple) else value for key, value in (data | usage).items()}
    shown = {key: value for key, value in words.items() if value not in {"", 0}}
    return printable("".join(f"{key}: {value}\n" for key, value in shown.items()))
