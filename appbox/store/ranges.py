"""The uid ranges that services were given, kept in `/var/lib/appbox/uid-ranges.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from itertools import pairwise

from appbox.errors import AppboxError
from appbox.host import ranges
from appbox.host.facts import IdRange
from appbox.store import files, paths, state
from appbox.store.root import Root

_LIMIT = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PATH = f"{paths.STATE}/{paths.RANGES}"


def load(root: Root) -> dict[str, IdRange]:
    """Return service name → its range of host ids; empty when none was given yet.

    `ranges` of the file are those that were allocated, by their first id; `fixed` are those of manifests.

    A file that was lost is made up for by what the bundles say. Raises AppboxError when the file cannot be trusted: a
    wrong base would hand one service's files to another.
    """
    data = root.read(_PATH, _LIMIT)
    if data is None:
        return _of_bundles(root)
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _broken(str(error)) from error
    table, fixed = document.get("ranges", {}), document.get("fixed", {})
    if any(isinstance(found, dict) and not all(_NAME.fullmatch(name) for name in found) for found in (table, fixed)):
        raise _broken("a name is not that of a service")
    if not isinstance(table, dict) or not all(_valid(base) for base in table.values()):
        raise _broken("a base is not a multiple of 65536 between 0x70000000 and 0x80000000")
    if not isinstance(fixed, dict) or not all(_is_range(found) for found in fixed.values()):
        raise _broken("a fixed range is not one of base and size")
    found = {name: IdRange(base, ranges.SIZE) for name, base in table.items()}
    found |= {name: IdRange(base, size) for name, (base, size) in fixed.items()}
    _refuse_overlaps(found, len(table) + len(fixed))
    return found


def _refuse_overlaps(found: Mapping[str, IdRange], entries: int) -> None:
    ordered = sorted(found.values(), key=lambda one: one.base)
    if len(found) < entries or any(a.overlaps(b) for a, b in pairwise(ordered)):
        raise _broken("two services have the same range, or one has two")


def recorded(root: Root) -> bool:
    """Return whether there is a file of ranges, and `load` does not make up for it."""
    return root.exists(_PATH)


def _of_bundles(root: Root) -> dict[str, IdRange]:
    """Return the ranges that version directories were made with, removed ones included: their data has the ids."""
    table: dict[str, IdRange] = {}
    try:
        with root.directory(paths.CONTAINERS) as containers:
            for _, meta in state.version_directories(containers):
                base, size = meta.get("uid_base", 0), meta.get("uid_size", ranges.SIZE)
                if meta.get("userns") is True and (_valid(base) or ("uid_size" in meta and _is_range([base, size]))):
                    table.setdefault(str(meta.get("name")), IdRange(int(base), int(size)))
    except FileNotFoundError:
        return {}
    return table


def save(root: Root, table: Mapping[str, IdRange]) -> None:
    """Write the ranges durably."""
    lines = ["# The first host id of each service's range of 65536 user and group ids.", "[ranges]"]
    lines += [f'"{name}" = {found.base}' for name, found in sorted(table.items()) if ranges.is_allocated(found)]
    fixed = {name: found for name, found in sorted(table.items()) if not ranges.is_allocated(found)}
    if fixed:
        lines += ["# Ranges that manifests name: the first id, and how many.", "[fixed]"]
        lines += [f'"{name}" = [{found.base}, {found.size}]' for name, found in fixed.items()]
    root.make(paths.STATE)
    with root.directory(paths.STATE) as state:
        files.replace(paths.RANGES, ("\n".join(lines) + "\n").encode(), mode=0o644, dir_fd=state)


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


def _broken(why: str) -> AppboxError:
    return AppboxError(
        "cannot be used", where=_PATH, why=why, hint="repair it: each bundle.toml names the uid_base of its service"
    )
