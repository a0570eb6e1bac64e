"""Which generation's configuration a running container was shown after its start, in `/run/appbox/NAME/seen`.

The note names the container's first process by number and start time, so that it means nothing once that one is gone.
It is written after the service was told, so that an apply that was killed in between is done again.
"""

from __future__ import annotations

from typing import Final

from appbox.errors import AppboxError
from appbox.store import files, paths
from appbox.store.root import Root

_NAME: Final = "seen"
_LIMIT: Final = 4096


def write(root: Root, service: str, process: tuple[int, int], generation: int) -> None:
    """Note that the container whose first process has this number and start time sees a generation."""
    with root.directory(f"{paths.RUN}/{service}") as fd:
        files.replace(_NAME, f"{process[0]} {process[1]} {generation}\n".encode(), mode=0o600, dir_fd=fd)


def read(root: Root, service: str, process: tuple[int, int]) -> int:
    """Return the generation that the container of this process was shown last; 0 when none was, after its start."""
    try:
        with root.directory(f"{paths.RUN}/{service}") as fd:
            data = files.read_if_present(_NAME, _LIMIT, fd) or b""
    except (OSError, AppboxError):
        return 0
    words = data.split()
    found = [int(word) for word in words if word.isdigit() and len(word) < 20]
    return found[2] if len(words) == len(found) == 3 and tuple(found[:2]) == process else 0
