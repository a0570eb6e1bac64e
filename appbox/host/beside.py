"""Work for a second processor: a copy of this process does it while this one goes on; threads of Python take turns.

The copy sees everything as it was when it was made, and may only read: what it changes in memory is lost with it.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, NoReturn, TypeVar

from appbox.host import syscalls

T = TypeVar("T")


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T | None]]:
    """Have a copy of this process do `work`; what is yielded waits for what it returns.

    That is None when the copy failed by anything, or could not be made: then nothing is known that would not have to be
    worked out here anyway. The copy ends with the `with` statement, or with this process.
    """
    copy = _Copy(work)
    try:
        yield copy.result
    finally:
        copy.close()


class _Copy(Generic[T]):
    """A process that is working, or has ended: then its number is -1."""

    def __init__(self, work: Callable[[], T]) -> None:
        # Not a pipe, which holds 64 KiB: the copy would stop there until somebody reads.
        self._answer = os.memfd_create("beside", os.MFD_CLOEXEC)
        try:
            self._process = os.fork()
        except OSError:  # no memory, or no process more for this user: fork(2)
            self._process = -1
        if self._process == 0:
            _answer(work, self._answer)

    def result(self) -> T | None:
        if self._process < 0:
            return None
        _, status = os.waitpid(self._process, 0)
        self._process = -1
        if status != 0:
            return None
        os.lseek(self._answer, 0, os.SEEK_SET)
        with open(self._answer, "rb", closefd=False) as file:
            found: T = pickle.load(file)  # noqa: S301 - our own process wrote it, and nobody else has the file
        return found

    def close(self) -> None:
        if self._process > 0:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        os.close(self._answer)


def _answer(work: Callable[[], T], place: int) -> NoReturn:
    """Do the work, write what it returns, and end: nothing of what the original was about to do is done here."""
    code = 1
    try:
        syscalls.end_with_parent()
        with open(place, "wb", closefd=False) as file:
            pickle.dump(work(), file, pickle.HIGHEST_PROTOCOL)
        code = 0
    finally:
        os._exit(code)
