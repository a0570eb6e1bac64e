"""The uid ranges that services were given, kept in `/var/lib/appbox/uid-ranges.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

from appbox.errors import AppboxError
from appbox.host import ranges
from appbox.store import files, paths, state
from appbox.store.root import Root

_LIMIT = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PATH = f"{paths.STATE}/{paths.RANGES}"


def load(root: Root) -> dict[str, int]:
    """Return service name → first host id of its range; empty when none was given yet.

    A file that was lost is made up for by what the bundles say. Raises AppboxError when the file cannot be trusted: a
    wrong base would hand one service's files to another.
    """
    data = root.read(_PATH, _LIMIT)
    if data is None:
        return _of_bundles(root)
    try:
        table = tomllib.loads(data.decode("utf-8")).get("ranges", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _broken(str(error)) from error
    if isinstance(table, dict) and not all(_NAME.fullmatch(name) for name in table):
        raise _broken("a name is not that of a service")
    if not isinstance(table, dict) or not all(_valid(base) for base in table.values()):
        raise _broken("a base is not a multiple of 65536 between 0x70000000 and 0x80000000")
    if len(set(table.values())) != len(table):
        raise _broken("two services have the same range")
    return dict(table)


def recorded(root: Root) -> bool:
    """Return whether there is a file of ranges, and `load` does not make up for it."""
    return root.exists(_PATH)


def _of_bundles(root: Root) -> dict[str, int]:
    """Return the ranges that version directories were made with, removed ones included: their data has the ids."""
    table: dict[str, int] = {}
    try:
        with root.directory(paths.CONTAINERS) as containers:
            for _, meta in state.version_directories(containers):
                if meta.get("userns") is True and _valid(meta.get("uid_base")):
                    table.setdefault(str(meta.get("name")), int(meta["uid_base"]))
    except FileNotFoundError:
        return {}
    return table


def save(root: Root, table: Mapping[str, int]) -> None:
    """Write the ranges durably."""
    lines = ["# The first host id of each service's range of 65536 user and group ids.", "[ranges]"]
    lines += [f'"{name}" = {base}' for name, base in sorted(table.items())]
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


def _broken(why: str) -> AppboxError:
    return AppboxError(
        "cannot be used", where=_PATH, why=why, hint="repair it: each bundle.toml names the uid_base of its service"
    )
