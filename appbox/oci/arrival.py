"""A blob on its way: written to a file by one thread, read from it by others as it grows. Effects; no network here."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from typing import BinaryIO, cast


class Incoming(io.RawIOBase):
    """A file whose bytes may be still on their way. `checked`: its end is only reached when its digest is right."""

    checked = False

    def cancel(self) -> None:
        """Wake a thread that waits in `read`; it then gets an OSError."""


class StartedOverError(Exception):
    """What was read is void, as the download began anew: another mirror, or a server that cannot go on after a cut."""


class Arrival:
    """Where a download stands. Its readers wait for what is still missing."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._fd = -1
        self._done = 0
        self._beginnings = 0
        self._whole = False
        self._stored: Callable[[], BinaryIO] | None = None
        self._error: BaseException | None = None

    def begin(self, fd: int) -> None:
        """Say which file is being written; it is read through a descriptor of its own."""
        with self._changed:
            self.close()
            self._fd = os.dup(fd)
            self._changed.notify_all()

    def advance(self, done: int) -> None:
        """Say how many bytes are in the file now."""
        with self._changed:
            self._done = done
            self._changed.notify_all()

    def start_over(self) -> None:
        """Say that the file is about to be written from its beginning again."""
        with self._changed:
            self._done = 0
            self._beginnings += 1
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that everything is there and has the right digest."""
        with self._changed:
            self._whole = True
            self._changed.notify_all()

    def stored(self, open_: Callable[[], BinaryIO]) -> None:
        """Say that there is nothing to wait for: the blob was in the cache before, unverified since then."""
        with self._changed:
            self._stored = open_
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Say that nothing more will come. Readers get the error."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of the file; nobody may be reading any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def open(self) -> BinaryIO:
        """Return a reader from the first byte on."""
        return cast("BinaryIO", _Reader(self))

    def wait(self, at: int, beginning: int, cancelled: Callable[[], bool]) -> int:
        """Return how many bytes lie from `at` on, 0 at the end; wait until that is known.

        `beginning` counts from 0 how often the download had started over when the reader began. Raises
        `StartedOverError`, what `fail` was given, and OSError when the reader was cancelled.
        """
        with self._changed:
            while not (self._done > at or self._whole or self._error or self._stored or cancelled()):
                self._check(beginning)
                self._changed.wait()
            if self._error:
                raise self._error
            if cancelled():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            self._check(beginning)
            return self._done - at

    def _check(self, beginning: int) -> None:
        if beginning != self._beginnings:
            raise StartedOverError

    def wake(self) -> None:
        """Make those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def reader(self) -> BinaryIO | None:
        """Return the blob as it was in the cache, None when it is being written."""
        return self._stored() if self._stored else None

    def beginning(self) -> int:
        """Return how often the download has started over."""
        return self._beginnings

    def read(self, at: int, size: int, beginning: int) -> bytes:
        """Return bytes that `wait` has promised; raises `StartedOverError`."""
        data = os.pread(self._fd, size, at)
        with self._changed:
            self._check(beginning)
        return data


class _Reader(Incoming):
    """Reads an arrival from its beginning."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._at = 0
        self._beginning = arrival.beginning()
        self._file: BinaryIO | None = None
        self._cancelled = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        if self._file is None:
            there = self._arrival.wait(self._at, self._beginning, lambda: self._cancelled)
            self._file = self._arrival.reader() if not self._at else None
        if self._file is not None:
            return self._file.read(size)
        self.checked = True
        data = self._arrival.read(self._at, min(size, there), self._beginning) if there else b""
        self._at += len(data)
        return data

    def cancel(self) -> None:
        self._cancelled = True
        self._arrival.wake()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
