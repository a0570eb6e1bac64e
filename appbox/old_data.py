"""The data of versions of a service that are not current: how much there is of it, and how old. Reads only."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from appbox import sizes
from appbox.store import files, paths, state
from appbox.store.walk import Size, measure

_COUNTED: Final = 200_000
"""Files of a version's data up to which they are counted: that takes a second."""


@dataclass(frozen=True, slots=True)
class OldData:
    """The data in a version's directory, relative to the containers. `written` is RFC 3339: its newest file's time.

    `size` (bytes) and `files` are -1, and `written` is "", where there is too much to be counted. `only`: the version
    itself was removed.
    """

    service: str
    directory: str
    size: int
    files: int
    written: str
    only: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)

    def words(self, now: datetime) -> str:
        """Return how much it is, and how old, for brackets."""
        if self.size < 0:
            return f"more than {_COUNTED} files"
        return f"{sizes.megabytes(self.size)}, last written {sizes.age(_seconds(self.written, now))} ago"


def of(containers: int, service: str, current: str) -> list[OldData]:
    """Return the data of a service's versions but for that in the directory `current`, by directory."""
    found = []
    for directory, numbers in state.generations(containers, service):
        if directory != current and (size := _size(containers, directory)) is not None:
            found.append(_described(service, directory, size, only=not numbers))
    return found


def total(found: list[OldData]) -> int:
    """Return the bytes of all, as far as they were counted."""
    return sum(max(one.size, 0) for one in found)


def _size(containers: int, directory: str) -> Size | None:
    """Return how much data there is, -1 for too much; None for none that a service has seen."""
    try:
        with files.directory(f"{directory}/{paths.DATA}", containers) as fd:
            if files.exists(paths.COPIED, fd) or not os.listdir(fd):
                return None
            return measure(fd, _COUNTED) or Size(-1, -1)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _described(service: str, directory: str, size: Size, *, only: bool) -> OldData:
    if size.entries < 0:
        return OldData(service, directory, -1, -1, "", only)
    written = datetime.fromtimestamp(size.newest / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return OldData(service, directory, size.apparent, size.entries, written, only)


def _seconds(when: str, now: datetime) -> int:
    return int((now - datetime.fromisoformat(when.replace("Z", "+00:00"))).total_seconds())
