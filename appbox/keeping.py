"""`appbox snapshot` and `appbox restore`: the data of a service, kept and brought back."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from appbox import holding, sizes
from appbox.errors import AppboxError, Refused, UsageError, printable
from appbox.explain import in_words
from appbox.host import gather, runc, syscalls
from appbox.host.facts import InitKind
from appbox.progress import copying
from appbox.recovery import writing
from appbox.session import Options, require_root_user
from appbox.status import unknown
from appbox.store import bundle, clone, data, files, paths, snapshots, state
from appbox.store.root import Root
from appbox.store.snapshots import Snapshot

_PATIENCE: Final = 3600.0
"""Seconds that a scheduled snapshot waits for another appbox."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a snapshot is wanted: the service stopped for it, or not even paused; a note; whether the clock asks."""

    stop: bool = False
    live: bool = False
    note: str = ""
    scheduled: bool = False


@dataclass(frozen=True, slots=True)
class _Service:
    """An installed service while the lock is held: the open containers directory, and what bundle.toml says."""

    root: Root
    init: InitKind
    containers: int
    name: str
    directory: str
    meta: Mapping[str, Any]
    running: bool


def snapshot(options: Options, name: str, wish: Wish, *, wait: float | None = 0.0) -> None:
    """Take a snapshot of a service's data and say what is in it."""
    require_root_user("appbox snapshot")
    if wish.stop and wish.live:
        raise UsageError("a service is either stopped or left alone", where="--stop, --live", hint="leave one out")
    with _service(options, name, wait=_PATIENCE if wish.scheduled else wait) as service:
        with _data(service) as fd:
            how = clone.can(fd, service.containers)
            way = _way(service, how, wish)
            order = snapshots.Order(_why(wish), wish.note, how, _state(service, way), scheduled=wish.scheduled)
            syscalls.syncfs(fd)  # what is written by now need not be written while the service waits
        with copying(options, "data") as told, holding.held(service.root, service.init, name, way) as held:
            making = clone.Making(live=service.running and way == "no", progress=told, read=held.release)
            with _explained(name, "its snapshot cannot be taken"):
                taken = snapshots.take(service.containers, name, service.directory, order, making)
        gone = _rotated(service, wish)
        left_out = _left_out(service)
    result = {**taken.as_dict(), "held_seconds": round(held.seconds, 3), "rotated": gone, "left_out": left_out}
    options.result(result, "" if options.verbosity < 0 else printable(_said(taken, held, left_out)))
    if taken.state == "live" and taken.how == "copy":
        options.say(f"warning: {name} was writing meanwhile: this copy is no single point in time\n", stream=sys.stderr)


@contextlib.contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Have the system's errors say what was going on."""
    try:
        yield
    except OSError as error:
        said = in_words(error)
        where = f"{said.where}: " if said.where else ""
        raise AppboxError(what, where=name, why=f"{where}{said.what}", hint=said.hint) from error


def _way(service: _Service, how: clone.How, wish: Wish) -> holding.Way:
    """Return how the service is held: what is quick needs a pause only, a copy takes too long for that."""
    if not service.running or wish.live:
        return "no"
    return "stop" if wish.stop or how == "copy" or not runc.can_pause(service.name) else "pause"


def _state(service: _Service, way: holding.Way) -> str:
    if way == "pause":
        return "paused"
    return "live" if service.running and way == "no" else "stopped"


def _why(wish: Wish) -> str:
    return "by schedule" if wish.scheduled else "by hand"


def _rotated(service: _Service, wish: Wish) -> list[str]:
    """Delete the scheduled snapshots that the manifest wants no more; return their ids."""
    table = _table(_table(service.meta.get("manifest")).get("snapshots"))
    keep = table.get("keep", 0)
    if not wish.scheduled or not isinstance(keep, int) or keep < 1:
        return []
    return snapshots.rotate(service.containers, service.name, keep)


def _said(taken: Snapshot, held: holding.Held, left_out: list[str]) -> str:
    how = next((words for how, words in clone.WORDS.items() if how == taken.how), taken.how)
    lines = [f"{taken.service}: snapshot {taken.id}: {sizes.megabytes(taken.apparent)}, {how}"]
    if held.way != "no":
        lines.append(f"  the service was {taken.state} for {held.seconds:.2f} s")
    return "".join(f"{line}\n" for line in (*lines, *(f"  not in it: {one}" for one in left_out)))


def _left_out(service: _Service) -> list[str]:
    """Return what a service has besides the data in its bundle, in words."""
    manifest = _table(service.meta.get("manifest"))
    found = []
    for label, volume in _table(manifest.get("volumes")).items():
        if _table(volume).get("tmpfs"):
            found.append(f"volume {label}, which is in memory")
        elif source := _table(volume).get("source"):
            found.append(f"volume {label}, which is {source} on the host")
    if _table(manifest.get("security")).get("rootfs") == "persistent":
        found.append("what it wrote to its root file system")
    return found


def restore(options: Options, name: str, wanted: str, *, force: bool = False, wait: float | None = 0.0) -> None:
    """Give a service the data of a snapshot; what it has now becomes a snapshot, too."""
    require_root_user("appbox restore")
    with _service(options, name, wait=wait) as service:
        chosen = snapshots.find(service.containers, name, wanted)
        _refuse(service, chosen, force=force)
        with copying(options, "data") as told, _explained(name, "its snapshot cannot be restored"):
            making = clone.Making(progress=told)
            prepared = snapshots.prepare(service.containers, chosen, service.directory, making)
        way: holding.Way = "stop" if service.running else "no"
        aside = prepared.id if prepared.aside else ""
        done = False
        try:
            with holding.held(service.root, service.init, name, way) as held:
                snapshots.commit(service.containers, prepared)
                done = True
                _release(held, aside)
        finally:
            if not done:
                snapshots.discard(service.containers, prepared)
    lines = [f"{name}: restored {chosen.id} ({chosen.version})"]
    if aside:
        lines.append(f"  what was there before is snapshot {aside}")
    if service.running:
        lines.append(f"  the service was down for {held.seconds:.2f} s")
    data_ = {"service": name, "restored": chosen.id, "aside": aside, "down_seconds": round(held.seconds, 3)}
    options.result(data_, "" if options.verbosity < 0 else printable("".join(f"{line}\n" for line in lines)))


def _release(held: holding.Held, aside: str) -> None:
    """Start the service; should that fail, say how to get back."""
    try:
        held.release()
    except AppboxError as error:
        hint = f"appbox restore {held.name} {aside} brings back what was there before" if aside else error.hint
        raise AppboxError(error.what, where=error.where, why=error.why, hint=hint) from error


def _refuse(service: _Service, chosen: Snapshot, *, force: bool) -> None:
    """Refuse data that the current version does not understand, or whose files would belong to nobody."""
    where = f"{service.name} {chosen.id}"
    if chosen.problem:
        raise AppboxError("what is known of the snapshot is lost", where=where, why=chosen.problem)
    mapped = service.meta.get("userns") is True
    ours = (service.meta.get("uid_base", 0), service.meta.get("uid_size", 65536)) if mapped else (0, 0)
    if (chosen.uid_base, chosen.uid_size) != ours:
        why = f"its files have the ids {_range(chosen.uid_base, chosen.uid_size)}, the service {_range(*ours)}"
        raise Refused("has other user ids", where=where, why=why, hint="set security.userns to that range to use it")
    wanted = snapshots.wanted_format(service.meta)
    if chosen.data_format != wanted and not force:
        why = f"its data has {_format(chosen.data_format)}, and {service.name} {_version(service)} {_wants(wanted)}"
        hint = f"appbox rollback to {chosen.version} first, or use --force"
        raise AppboxError("the snapshot is not for this version", where=where, why=why, hint=hint)


def _range(base: int, size: int) -> str:
    return f"{base} to {base + size - 1}" if size else "of the host"


def _format(name: str) -> str:
    return f"the format {name}" if name else "no format"


def _wants(name: str) -> str:
    return f"wants {_format(name)}" if name else "says none"


def _version(service: _Service) -> str:
    return service.directory[len(service.name) + 1 :]


def listing(options: Options, name: str | None) -> None:
    """Print the snapshots of a service, or of all."""
    found: list[Snapshot] = []
    with options.open_root() as root:
        if root.is_directory(paths.CONTAINERS):
            with root.directory(paths.CONTAINERS) as containers:
                found = snapshots.every(containers, name)
        if name is not None and not found and name not in state.names(root):
            raise unknown(root, name)
    now = datetime.now(UTC)
    listed = [{**one.as_dict(), "age": _seconds(one, now)} for one in found]
    options.result({"snapshots": listed}, table(found, now))


def table(found: list[Snapshot], now: datetime) -> str:
    """Return snapshots as aligned columns with a heading; a line for each problem."""
    if not found:
        return "there are no snapshots\n"
    rows = [("NAME", "ID", "AGE", "SIZE", "ON DISK", "VERSION", "STATE", "WHY")]
    rows += [
        (
            one.service,
            one.id,
            sizes.age(_seconds(one, now)),
            sizes.megabytes(max(one.apparent, 0)),
            sizes.megabytes(max(one.allocated, 0)),
            one.version or "-",
            one.state,
            f"{one.why}: {one.note}" if one.note else one.why,
        )
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{one.service} {one.id}: {one.problem}" for one in found if one.problem]
    return printable("".join(f"{line}\n".replace("\n", " ").rstrip() + "\n" for line in lines))


def _seconds(one: Snapshot, now: datetime) -> int:
    try:
        return int((now - datetime.fromisoformat(one.taken.replace("Z", "+00:00"))).total_seconds())
    except (ValueError, TypeError):
        return 0


def purge(options: Options, name: str, wanted: str, *, wait: float | None = 0.0) -> None:
    """Delete one snapshot of a service for good; the service need not be there any more."""
    require_root_user("appbox snapshot --purge")
    with options.open_root() as root, writing(options, root, wait=wait):
        if not root.is_directory(paths.CONTAINERS):
            raise unknown(root, name)
        with root.directory(paths.CONTAINERS) as containers:
            bundle.clean(containers)
            snapshots.find(containers, name, wanted)
            snapshots.delete(containers, name, wanted)
    options.result({"service": name, "purged": wanted}, "" if options.verbosity < 0 else f"{name}: purged {wanted}\n")


@contextlib.contextmanager
def _service(options: Options, name: str, *, wait: float | None) -> Iterator[_Service]:
    """Take the lock, finish what killed commands left, and find a service; AppboxError when there is none."""
    with options.open_root() as root, contextlib.ExitStack() as stack:
        if name not in state.names(root):
            raise unknown(root, name)
        stack.enter_context(writing(options, root, wait=wait))
        containers = stack.enter_context(root.directory(paths.CONTAINERS))
        bundle.clean(containers)
        directory = files.link_target(name, containers) or ""
        with files.directory(directory, containers) as fd:
            meta = state.meta_of(fd)
            if state.bundle_carry(fd):
                bundle.carry(containers, directory)
        running = root.live and runc.running(name) is not None
        if running:
            runc.need("the service runs through it")
        init = gather.detect_init(root) if options.init == "auto" else gather.known_init(options.init)
        yield _Service(root, init, containers, name, directory, meta, running)


@contextlib.contextmanager
def _data(service: _Service) -> Iterator[int]:
    """Open the data of a service; AppboxError when it has none that is not the host's."""
    path = f"{service.directory}/{paths.DATA}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=service.containers)
    except FileNotFoundError as error:
        raise AppboxError(snapshots.NO_DATA, where=service.name, hint="its volumes are elsewhere") from error
    try:
        if not data.names(fd):
            left_out = "; ".join(_left_out(service))
            raise AppboxError(snapshots.NO_DATA, where=service.name, why=left_out or "it has no volumes")
        yield fd
    finally:
        os.close(fd)


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
