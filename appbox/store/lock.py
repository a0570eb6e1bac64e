"""One appbox at a time changes a root; readers never wait.

The lock is a `flock(2)`: the kernel frees it when its holder dies, so a stale lock cannot exist.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from appbox.errors import Locked
from appbox.store import paths
from appbox.store.root import Root


@contextlib.contextmanager
def exclusive(root: Root, wait: float | None = 0.0) -> Iterator[None]:
    """Hold the writer's lock of a root; `wait` at most so many seconds, None for ever.

    Raises Locked, naming the process that holds it.
    """
    root.make(paths.STATE, 0o755)
    with root.directory(paths.STATE) as state:
        fd = os.open(paths.LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=state)
        try:
            _acquire(fd, wait)
            yield
        finally:
            os.close(fd)


def _acquire(fd: int, wait: float | None) -> None:
    deadline = None if wait is None else time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if deadline is not None and time.monotonic() >= deadline:
                raise Locked(
                    "another appbox is at work",
                    where=f"{paths.STATE}/{paths.LOCK}",
                    why=f"process {_holder(fd)} holds the lock",
                    hint="wait for it, or use --wait",
                ) from error
            time.sleep(0.1)
        else:
            return


def _holder(fd: int) -> str:
    """Return the number of the process that holds the lock, from proc_locks(5); nothing is written for it."""
    inode = f":{os.fstat(fd).st_ino}"
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as table:
            rows = [line.split() for line in table]
    except OSError:
        return "unknown"
    pids = [row[4] for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].endswith(inode)]
    return pids[0] if pids else "unknown"
