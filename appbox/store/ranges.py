"""The uid ranges that services were given, kept in `/var/lib/appbox/uid-ranges.toml`.

The bundles have them, too: a file that is lost, torn or wrong is made up for by what they say, and written anew by the
next apply. What files on disk belong to decides, since a wrong base would hand one service's files to another.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from appbox.errors import AppboxError
from appbox.host import ranges
from appbox.host.facts import IdRange
from appbox.store import files, paths, state
from appbox.store.root import Root

_LIMIT: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z0-9][A-Za-z0-9._+@-]{0,254}")
"""A service's name, or that of a version directory of which nobody knows whose it is: its ids stay its own."""
_LINE: Final = re.compile(rf'"({_NAME.pattern})" = (?:([0-9]{{10}})|\[([0-9]{{1,10}}), ([0-9]{{1,10}})\])', re.ASCII)
"""An entry as `save` writes it. One that was cut short is none: every base that is allocated has ten digits."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Who has which range of host ids. `written` is what the file says itself, {} when it cannot be used.

    `problem` says why the file does not count as it is, "" when it does.
    """

    table: dict[str, IdRange]
    written: dict[str, IdRange] = field(default_factory=dict)
    problem: str = ""


class _BrokenError(ValueError):
    """The file cannot be used; the message says why."""


def load(root: Root) -> dict[str, IdRange]:
    """Return service name → its range of host ids; empty when none was given yet."""
    return read(root).table


def recorded(root: Root) -> bool:
    """Return whether there is a file of ranges, and `load` does not make up for it."""
    return root.exists(_path())


def read(root: Root) -> Ledger:
    """Return the ranges that count.

    Those of bundles, removed ones included, come first where the file cannot be read or does not agree with them. What
    can still be read of it is kept: a service that was removed without its data has no bundle any more.
    """
    data, problem = _bytes(root)
    if data is None and not problem:
        found = _of_bundles(root)
        return Ledger(found, problem="is missing" if found else "")
    try:
        written = _parse(data) if data is not None else {}
    except _BrokenError as error:
        problem = f"cannot be used ({error})"
    if problem:
        return Ledger(_merged(_of_bundles(root), _salvaged(data or b"")), problem=problem)
    if not _contradicted(root, written):
        return Ledger(written, written)
    merged = _merged(_of_bundles(root), written)
    return Ledger(merged, written, "" if merged == written else "does not say what the bundles say")


def _bytes(root: Root) -> tuple[bytes | None, str]:
    """Return the bytes of the file, None where there are none, and what is wrong with it, "" if nothing."""
    try:
        return root.read(_path(), _LIMIT), ""
    except PermissionError:
        raise
    except AppboxError as error:
        return None, f"cannot be used ({error.what})"
    except OSError as error:
        return None, f"cannot be used ({error.strerror})"


def _parse(data: bytes) -> dict[str, IdRange]:
    """Return what the file says: `ranges` were allocated, by their first id; `fixed` are those of manifests."""
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _BrokenError(str(error)) from error
    table, fixed = document.get("ranges", {}), document.get("fixed", {})
    if any(isinstance(found, dict) and not all(_NAME.fullmatch(name) for name in found) for found in (table, fixed)):
        raise _BrokenError("a name is not that of a service")
    if not isinstance(table, dict) or not all(_valid(base) for base in table.values()):
        raise _BrokenError("a base is not a multiple of 65536 between 0x70000000 and 0x80000000")
    if not isinstance(fixed, dict) or not all(_is_range(found) for found in fixed.values()):
        raise _BrokenError("a fixed range is not one of base and size")
    found = {name: IdRange(base, ranges.SIZE) for name, base in table.items()}
    found |= {name: IdRange(base, size) for name, (base, size) in fixed.items()}
    _refuse_overlaps(found, len(table) + len(fixed))
    return found


def _refuse_overlaps(found: Mapping[str, IdRange], entries: int) -> None:
    ordered = sorted(found.values(), key=lambda one: one.base)
    if len(found) < entries or any(a.overlaps(b) for a, b in pairwise(ordered)):
        raise _BrokenError("two services have the same range, or one has two")


def _salvaged(data: bytes) -> dict[str, IdRange]:
    """Return the entries of a broken file that are whole."""
    found: dict[str, IdRange] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        if (entry := _LINE.fullmatch(line)) is None:
            continue
        name, base, first, size = entry.groups()
        if base and _valid(int(base)):
            found.setdefault(name, IdRange(int(base), ranges.SIZE))
        elif first and _is_range([int(first), int(size)]):
            found.setdefault(name, IdRange(int(first), int(size)))
    return found


def _merged(sure: Mapping[str, IdRange], rest: Mapping[str, IdRange]) -> dict[str, IdRange]:
    """Return `sure` and what of `rest` goes with it."""
    found: dict[str, IdRange] = dict(sure)
    for name, one in rest.items():
        if name not in found and not any(one.overlaps(other) for other in found.values()):
            found[name] = one
    return found


def _contradicted(root: Root, table: Mapping[str, IdRange]) -> bool:
    """Return whether a version directory belongs to ids that the file does not know, or gives to another service.

    Their group tells it at the cost of a system call each; `_of_bundles`, which is asked then, reads every bundle.
    """
    known = {0, *(one.base for one in table.values())}
    for folder in (paths.CONTAINERS, f"{paths.CONTAINERS}/{paths.REPLACED}"):
        none = contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError)
        with none, root.directory(folder) as fd, os.scandir(fd) as entries:
            if any(_is_unknown(entry, fd, table, known) for entry in entries):
                return True
    return False


def _is_unknown(entry: os.DirEntry[str], folder: int, table: Mapping[str, IdRange], known: Set[int]) -> bool:
    """Return whether a version directory, or what a service's link leads to, has a group that nobody gave it."""
    if entry.is_symlink():
        group = _group(entry) if state.is_current_link(entry.name, folder) else 0
        return group != 0 and (entry.name not in table or table[entry.name].base != group)
    return not entry.name.startswith(".") and entry.is_dir() and _group(entry) not in known


def _group(entry: os.DirEntry[str]) -> int:
    """Return the group of a version directory, which is its service's first id; 0 for one that is not there."""
    try:
        return entry.stat().st_gid
    except OSError:
        return 0


def _of_bundles(root: Root) -> dict[str, IdRange]:
    """Return the ranges that version directories were made with, removed ones included: their data has the ids."""
    table: dict[str, IdRange] = {}
    unknown: list[tuple[str, IdRange]] = []
    with contextlib.suppress(FileNotFoundError), root.directory(paths.CONTAINERS) as containers:
        current = {files.link_target(name, containers): name for name in state.names(root)}
        found = list(state.version_directories(containers))
        for path, meta in sorted(found, key=lambda one: one[0] not in current):
            one = _of_meta(meta)
            if one is not None:
                table.setdefault(str(meta.get("name")), one)
            elif not meta and (one := _of_owners(containers, path)):
                unknown.append((current.get(path) or path.rpartition("/")[2], one))
    # Whose a directory without a readable bundle.toml is nobody knows, if no link says so: its ids stay its own.
    return _merged(table, dict(unknown))


def _of_meta(meta: Mapping[str, Any]) -> IdRange | None:
    base, size = meta.get("uid_base", 0), meta.get("uid_size", ranges.SIZE)
    if meta.get("userns") is True and (_valid(base) or ("uid_size" in meta and _is_range([base, size]))):
        return IdRange(int(base), int(size))
    return None


def _of_owners(containers: int, path: str) -> IdRange | None:
    """Return the range to which the files of a version directory belong; None when they are the host's own."""
    with contextlib.suppress(OSError), files.directory(path, containers) as bundle:
        for owner in _owners(bundle):
            base = owner - (owner - ranges.FIRST) % ranges.SIZE
            if _valid(base):
                return IdRange(base, ranges.SIZE)
    return None


def _owners(bundle: int) -> Iterator[int]:
    """Yield ids to which parts of a version directory belong, the surest first."""
    yield os.fstat(bundle).st_gid
    for name in (paths.ROOTFS, paths.UPPER):
        with contextlib.suppress(OSError):
            yield os.lstat(name, dir_fd=bundle).st_uid
    with contextlib.suppress(OSError), files.directory(paths.DATA, bundle) as volumes:
        for name in sorted(os.listdir(volumes)):
            info = os.lstat(name, dir_fd=volumes)
            if stat.S_ISDIR(info.st_mode):
                yield info.st_uid


def save(root: Root, table: Mapping[str, IdRange], *, sound: bool = False) -> None:
    """Write the ranges durably. A file that could not be used is kept beside it, as `*.broken`.

    `sound`: the caller knows that the present one can be used.
    """
    lines = ["# The first host id of each service's range of 65536 user and group ids.", "[ranges]"]
    lines += [f'"{name}" = {found.base}' for name, found in sorted(table.items()) if ranges.is_allocated(found)]
    fixed = {name: found for name, found in sorted(table.items()) if not ranges.is_allocated(found)}
    if fixed:
        lines += ["# Ranges that manifests name: the first id, and how many.", "[fixed]"]
        lines += [f'"{name}" = [{found.base}, {found.size}]' for name, found in fixed.items()]
    root.make(paths.STATE)
    broken = not sound and _is_broken(root)
    with root.directory(paths.STATE) as folder:
        if broken:
            files.set_aside(paths.RANGES, dir_fd=folder)
        files.replace(paths.RANGES, ("\n".join(lines) + "\n").encode(), mode=0o644, dir_fd=folder)


def _is_broken(root: Root) -> bool:
    data, problem = _bytes(root)
    try:
        _parse(data or b"")
    except _BrokenError:
        return True
    return bool(problem)


def _valid(base: object) -> bool:
    return (
        isinstance(base, int)
        and not isinstance(base, bool)
        and ranges.FIRST <= base < ranges.END
        and (base - ranges.FIRST) % ranges.SIZE == 0
    )


def _is_range(found: object) -> bool:
    numbers = found if isinstance(found, list) and len(found) == 2 else [0]
    return all(type(n) is int and n > 0 for n in numbers) and sum(numbers) < 2**32


def _path() -> str:
    return f"{paths.STATE}/{paths.RANGES}"
