"""The lock of a service's run script, taken while its version or its data changes: nobody starts it half-way.

A timer, cron, an operator or a service that requires it may start it at any moment. The run script then finds that an
appbox has the lock, waits for its end, and begins anew with what is current by then. A lock is a numbered file with the
number of its holder, that one's start time and what it is for, as `generators/run/lock.sh.j2` has it; it is free when
the holder is gone, so that a killed appbox keeps nobody out.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from appbox.errors import AppboxError
from appbox.host import runc
from appbox.store import files, paths
from appbox.store.root import Root

_NAME: Final = "lock."
_KIND: Final = "change"
_LIMIT: Final = 128


class StartLock:
    """The lock of one service; taking it again, or giving back what is not held, does nothing."""

    def __init__(self, root: Root, service: str) -> None:
        self._root, self._service = root, service
        self._mine = ""

    def take(self) -> None:
        """Take the lock; AppboxError when somebody has started the service since it was looked at."""
        if self._mine or not self._root.live:
            return
        self._root.make(paths.RUN)
        self._root.make(f"{paths.RUN}/{self._service}", 0o700)
        me = os.getpid()
        text = f"{me} {runc.start_time(me)} {_KIND}\n".encode()
        with self._root.directory(f"{paths.RUN}/{self._service}") as run:
            while True:
                newest = max(_numbers(run), default=0)
                self._refuse_held(run, newest)
                mine = f"{_NAME}{newest + 1}"
                with contextlib.suppress(FileExistsError):
                    files.create(mine, text, mode=0o644, dir_fd=run, durable=False)
                    if max(_numbers(run)) == newest + 1:
                        self._mine = mine
                        return
                    os.unlink(mine, dir_fd=run)

    def _refuse_held(self, run: int, number: int) -> None:
        words = (files.read_if_present(f"{_NAME}{number}", _LIMIT, run) or b"").split()
        if len(words) < 2 or not all(word.isdigit() for word in words[:2]):
            return
        if runc.start_time(int(words[0])) == int(words[1]):
            raise AppboxError(
                "was started while its change was prepared",
                where=self._service,
                why=f"process {int(words[0])} runs it",
                hint="run the command again",
            )

    def give_back(self) -> None:
        """Let the service be started."""
        if not self._mine:
            return
        with contextlib.suppress(FileNotFoundError), self._root.directory(f"{paths.RUN}/{self._service}") as run:
            os.unlink(self._mine, dir_fd=run)
        self._mine = ""


def _numbers(run: int) -> list[int]:
    names = (name.removeprefix(_NAME) for name in os.listdir(run) if name.startswith(_NAME))
    return [int(name) for name in names if name.isascii() and name.isdigit()]
