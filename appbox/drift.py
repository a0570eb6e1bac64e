"""How a service on the host differs from what was applied last, told without its manifest. It only reads.

A generation has a record of itself, `service.json`: its units, the links that start it at boot, and a digest of each of
its files. Against that everything is held that can be read in a moment; `touched` looks at the root file system.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from appbox.errors import AppboxError
from appbox.host import runc
from appbox.host.facts import IdRange
from appbox.store import files, kept_image, paths, ranges, state, unitfiles
from appbox.store.root import Root

RECORD: Final = "service.json"
_LIMIT: Final = 16 << 20
_SLACK: Final = 10_000_000
"""Nanoseconds by which a start may lie before the configuration and still count as later: file times are coarse."""
_UNSIGNED: Final = frozenset({RECORD, "bundle.toml"})
"""Files of a generation that its record has no digest of."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The service that is looked at: its current generation, what bundle.toml says, and its container if it runs."""

    name: str
    directory: str
    generation: int
    meta: Mapping[str, Any]
    running: runc.Running | None


@dataclass(frozen=True, slots=True)
class Books:
    """What is written down for all services: the ranges of ids, and the address of each on a bridge."""

    ranges: Mapping[str, IdRange]
    addresses: Mapping[str, str]


def books(root: Root) -> Books:
    """Return what is written down, as the files say it themselves: nothing, where they cannot be used."""
    places: dict[str, str] = {}
    with contextlib.suppress(AppboxError, ValueError, RecursionError, NotADirectoryError):
        data = root.read(f"{paths.STATE}/{paths.ADDRESSES}", _LIMIT) or b""
        table = tomllib.loads(data.decode("utf-8")).get("addresses", {})
        rows = table.items() if isinstance(table, dict) else ()
        places = {name: str(row.get("address")) for name, row in rows if isinstance(row, dict)}
    return Books(ranges.read(root).written, places)


def of(root: Root, subject: Subject, bundle: int, books: Books) -> tuple[str, ...]:
    """Return in a few words each what is not as it was applied; `bundle` is the open version directory."""
    return tuple(_found(root, subject, bundle, books))


def _found(root: Root, subject: Subject, bundle: int, books: Books) -> Iterator[str]:
    if damage := state.damage(bundle, subject.meta):
        yield damage
    image = subject.meta.get("image")
    if wrong := kept_image.problem(bundle, str(image.get("digest", "")) if isinstance(image, dict) else ""):
        yield wrong
    try:
        with files.directory(f"{paths.GENERATIONS}/{subject.generation}", bundle) as generation:
            record = _record(generation)
            if record is not None:
                yield from _files(generation, record)
    except (OSError, AppboxError) as error:
        yield f"configuration cannot be read ({_why(error)})"
        record = None
    if record is not None:
        yield from _units(root, subject.name, record)
        yield from _volumes(root, bundle, record)
    yield from _container(root, subject, bundle)
    yield from _recorded(subject, books)


def _recorded(subject: Subject, books: Books) -> Iterator[str]:
    """Yield what is lost of what is written down for all services; the next apply makes up for it."""
    if subject.meta.get("userns") is True:
        ids = books.ranges.get(subject.name)
        if ids is None:
            yield "state lost (its ids are not written down)"
        elif ids.base != subject.meta.get("uid_base"):
            yield "state wrong (other ids are written down)"
    network = subject.meta.get("network")
    if isinstance(network, dict) and books.addresses.get(subject.name) != network.get("address"):
        yield "state lost (its address is not written down)"


def _why(error: OSError | AppboxError) -> str:
    return error.what if isinstance(error, AppboxError) else error.strerror or "unreadable"


def _record(generation: int) -> dict[str, Any] | None:
    """Return what a generation says of itself; None for one that was written before there were records.

    Raises AppboxError for a record that cannot be read: it was changed.
    """
    data = files.read_if_present(RECORD, _LIMIT, generation)
    if data is None:
        return None
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AppboxError(f"{RECORD} is damaged") from error
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
        raise AppboxError(f"{RECORD} is damaged")
    return record


def _files(generation: int, record: Mapping[str, Any]) -> Iterator[str]:
    """Yield which of a generation's files are not what they were written as."""
    recorded = record["files"]
    there = dict(_walk(generation, ""))
    for path in sorted({*there, *recorded} - _UNSIGNED):
        if path not in there:
            yield f"{_shown(path)} missing"
        elif path not in recorded:
            yield f"{_shown(path)} added"
        elif not isinstance(recorded[path], list) or there[path] != recorded[path][:4]:
            yield f"{_shown(path)} changed"


def _shown(path: str) -> str:
    """Return how a file is called: a configuration file by its place in the container."""
    return path.removeprefix("config") if path.startswith("config/") else path


def _walk(fd: int, prefix: str) -> Iterator[tuple[str, list[object]]]:
    """Yield every file below an open directory with its digest, mode and owner."""
    for name in os.listdir(fd):
        info, path = os.lstat(name, dir_fd=fd), f"{prefix}{name}"
        if stat.S_ISDIR(info.st_mode):
            with files.directory(name, fd) as child:
                yield from _walk(child, f"{path}/")
        elif path not in _UNSIGNED:
            data = files.read(name, _LIMIT, fd) if stat.S_ISREG(info.st_mode) else b"\0"
            digest = hashlib.sha256(data).hexdigest() if stat.S_ISREG(info.st_mode) else ""
            yield path, [digest, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid]


def _units(root: Root, name: str, record: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not so with the files of the init system, and with the link that starts the service at boot."""
    for unit in record.get("units") or ():
        path, text, mode = str(unit.get("path")), unit.get("text"), unit.get("mode")
        called = "unit" if path.rpartition("/")[2] in {name, f"{name}.service"} else path.rpartition("/")[2]
        try:
            found = unitfiles.read_file(root, path, name)
        except (AppboxError, OSError) as error:
            yield f"{called} {_refused(error)}"
            continue
        if found != text:
            yield f"{called} {'missing' if found is None else 'edited'}"
        elif any(one != mode for one in unitfiles.modes(root, [path]).values()):
            yield f"{called} has another mode or owner"
    link = record.get("link")
    if isinstance(link, dict):
        target, wanted = unitfiles.link_target(root, str(link.get("path"))), record.get("enable") is True
        if wanted and target != link.get("target"):
            yield "not enabled" if target is None else "enabled by a link to another unit"
        elif target is not None and not wanted:
            yield "enabled"


def _refused(error: AppboxError | OSError) -> str:
    """Return what is in the place of a unit, in words that follow its name."""
    if not isinstance(error, AppboxError) or not error.why:
        return _why(error)
    return "masked" if error.what == unitfiles.MASKED else error.why.removeprefix("it ")


def _volumes(root: Root, bundle: int, record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the volumes that are not there; data that waits to be moved here is."""
    if files.link_target(paths.CARRY, bundle) is not None:
        return
    for volume in record.get("volumes") or ():
        kind, name, source = (str(volume.get(key)) for key in ("kind", "name", "source"))
        if kind == "data" and not files.exists(f"{paths.DATA}/{name}", bundle):
            yield f"volume {name} missing"
        elif kind == "host" and not root.exists(source):
            yield f"volume {name} missing ({source})"


def _container(root: Root, subject: Subject, bundle: int) -> Iterator[str]:
    if not root.live:
        return
    running = subject.running
    if running is None:
        if found := runc.foreign(subject.name):
            yield f"foreign container ({found})"
    elif os.path.basename(running.bundle) != subject.directory:
        yield "runs another version"
    elif running.since.timestamp() * 1e9 + _SLACK < _effective(subject, bundle):
        yield "runs an older generation"


def _effective(subject: Subject, bundle: int) -> int:
    """Return when the configuration was written that a running service must have, in nanoseconds since 1970."""
    return state.written(bundle, subject.generation, subject.meta.get("effective", subject.generation))


def notes(root: Root, name: str) -> tuple[str, ...]:
    """Return what somebody added beside the units of a service: it has an effect, and appbox leaves it alone."""
    return (
        *(f"{folder} adds to its unit" for folder in unitfiles.drop_ins(root, name)),
        *(f"{path} changes what its init script does" for path in unitfiles.overrides(root, name)),
        *(f"it is in the runlevel {level}, too" for level in unitfiles.other_runlevels(root, name)),
    )


def refuse_foreign(name: str) -> None:
    """Raise AppboxError when a container that is not the service's has its name: to end it is for its owner to say."""
    if found := runc.foreign(name):
        raise AppboxError(
            "a container that appbox did not make has this name",
            where=name,
            why=f"its bundle is {found}",
            hint=f"end it with runc delete --force {name}, or give the service another name",
        )
