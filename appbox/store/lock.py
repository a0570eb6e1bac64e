"""One appbox at a time changes a root; readers never wait.

The lock is a `flock(2)`: the kernel frees it when its holder dies, so a stale lock cannot exist.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from appbox.errors import Locked
from appbox.store import paths
from appbox.store.root import Root

_HINT: Final = "--wait waits for it, --wait=SECONDS no longer than that"
_SHOWN: Final = 120
"""Characters of a command line that are shown."""
_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock: a process, its command line, and since when it runs (RFC 3339); 0 and "" for what is hidden."""

    pid: int = 0
    command: str = ""
    since: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return "a process that cannot be seen from here"
        known = [f"({self.command})"] if self.command else []
        return " ".join([f"process {self.pid}", *known, *([f"since {self.since}"] if self.since else [])])


Waiting = Callable[[Holder], object]
"""Is told once for whom somebody waits."""


@contextlib.contextmanager
def exclusive(root: Root, wait: float | None = 0.0, waiting: Waiting | None = None) -> Iterator[None]:
    """Hold the writer's lock of a root; `wait` at most so many seconds, None for ever.

    Raises Locked, naming the process that holds it.
    """
    root.make(paths.STATE, 0o755)
    with root.directory(paths.STATE) as state:
        fd = os.open(paths.LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=state)
        try:
            acquire(fd, wait, "another appbox is at work", f"{paths.STATE}/{paths.LOCK}", waiting)
            yield
        finally:
            os.close(fd)


def acquire(fd: int, wait: float | None, what: str, where: str, waiting: Waiting | None = None) -> None:
    """Lock an open file; `wait` as in `exclusive`. Raises Locked that says `what`, `where`, and who holds it."""
    deadline = None if wait is None else time.monotonic() + wait
    told = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if deadline is not None and time.monotonic() >= deadline:
                late = f", also after {wait:g} s" if wait else ""
                raise Locked(f"{what}{late}", where=where, why=f"{_holder(fd)} holds the lock", hint=_HINT) from error
            if waiting is not None and not told:
                waiting(_holder(fd))
                told = True
            time.sleep(0.1)
        else:
            return


def _holder(fd: int) -> Holder:
    """Return who holds the lock, from proc_locks(5) and proc(5); nothing is written for it."""
    inode = f":{os.fstat(fd).st_ino}"
    rows = [line.split() for line in _text("/proc/locks").splitlines()]
    pids = [row[4] for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].endswith(inode)]
    pid = int(pids[0]) if pids and pids[0].isdecimal() else 0
    return Holder(pid, _command(pid), _since(pid)) if pid else Holder()


def _command(pid: int) -> str:
    """Return what a process was started as, from appbox's own name on: the interpreter before it tells nobody much."""
    words = _text(f"/proc/{pid}/cmdline").rstrip("\0").split("\0")
    own = next((place for place, word in enumerate(words) if os.path.basename(word) == "appbox"), 0)
    text = " ".join(["appbox", *words[own + 1 :]] if os.path.basename(words[own]) == "appbox" else words)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _since(pid: int) -> str:
    """Return when a process was started."""
    # The name in brackets may hold anything; what follows the last bracket is numbers, the start among them.
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 20 or not fields[19].isdecimal():
        return ""
    up = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(time.time() - up, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(path: str) -> str:
    """Return a file of the kernel's; nothing where it is not to be had, as for a process that has ended."""
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
