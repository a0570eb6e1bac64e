"""Versions that did not get well, so that they are not tried again: `/var/lib/appbox/failed/NAME.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from appbox.errors import AppboxError
from appbox.store import files, paths
from appbox.store.root import Root

_FOLDER: Final = f"{paths.STATE}/failed"
_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Failure:
    """What was tried and did not work: `fingerprint` is that of everything that was asked for, `when` is RFC 3339."""

    fingerprint: str
    version: str
    digest: str
    when: str
    why: str


def load(root: Root, name: str) -> Failure | None:
    """Return what failed last for a service, None when nothing did, or nobody can read it any more."""
    try:
        data = root.read(f"{_FOLDER}/{name}.json", _LIMIT)
        found = json.loads(data) if data else None
        return Failure(**{key: str(found[key]) for key in Failure.__dataclass_fields__}) if found else None
    except (ValueError, KeyError, TypeError, RecursionError, PermissionError, AppboxError):
        return None


def save(root: Root, name: str, failure: Failure) -> None:
    """Remember a failure, in the place of an earlier one."""
    root.make(_FOLDER, 0o700)
    with root.directory(_FOLDER) as fd:
        files.replace(f"{name}.json", f"{json.dumps(asdict(failure), indent=1)}\n".encode(), mode=0o600, dir_fd=fd)


def forget(root: Root, name: str) -> None:
    """Forget what failed."""
    if root.is_directory(_FOLDER):
        with root.directory(_FOLDER) as fd:
            if files.exists(f"{name}.json", fd):
                files.remove(f"{name}.json", dir_fd=fd)
