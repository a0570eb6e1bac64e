"""Versions that did not get well, so that they are not tried again: `/var/lib/appbox/failed/NAME.json`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Final

from appbox.errors import AppboxError
from appbox.store import files, paths
from appbox.store.root import Root

_LIMIT: Final = 4 << 20
_TEXTS: Final = ("fingerprint", "version", "digest", "when", "why")
_KEPT: Final = 20
"""Failures of one service that are remembered."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What was tried and did not work: `fingerprint` is that of everything that was asked for, `when` is RFC 3339."""

    fingerprint: str
    generation: int
    version: str
    digest: str
    when: str
    why: str


def names(root: Root) -> frozenset[str]:
    """Return the services of which something failed that is remembered; none for whoever may not look."""
    try:
        with root.directory(_folder()) as fd:
            return frozenset(one.removesuffix(".json") for one in os.listdir(fd) if one.endswith(".json"))
    except OSError:
        return frozenset()


def load(root: Root, name: str) -> list[Failure]:
    """Return what failed of a service, the oldest first; nothing if nobody can read it any more."""
    try:
        data = root.read(f"{_folder()}/{name}.json", _LIMIT)
        rows = json.loads(data)["failures"] if data else []
        return [_failure(row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError, AppboxError):
        return []


def _failure(row: dict[str, Any]) -> Failure:
    fingerprint, version, digest, when, why = (str(row[key]) for key in _TEXTS)
    return Failure(fingerprint, int(row["generation"]), version, digest, when, why)


def save(root: Root, name: str, failure: Failure) -> None:
    """Remember a failure."""
    found = [one for one in load(root, name) if one.fingerprint != failure.fingerprint]
    _write(root, name, [*found, failure][-_KEPT:])


def forget(root: Root, name: str, fingerprint: str = "") -> None:
    """Forget what failed: the one of that fingerprint, since it works now, or all."""
    found = load(root, name)
    left = [one for one in found if fingerprint and one.fingerprint != fingerprint]
    if found and len(left) < len(found):
        _write(root, name, left)


def _write(root: Root, name: str, failures: list[Failure]) -> None:
    root.make(_folder(), 0o700)
    with root.directory(_folder()) as fd:
        if not failures:
            files.remove(f"{name}.json", dir_fd=fd)
            return
        text = json.dumps({"schema": 1, "failures": [asdict(one) for one in failures]}, indent=1)
        files.replace(f"{name}.json", f"{text}\n".encode(), mode=0o600, dir_fd=fd)


def _folder() -> str:
    return f"{paths.STATE}/failed"
