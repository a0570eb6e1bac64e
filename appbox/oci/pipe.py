"""A bounded queue of blocks from one thread to another, which hands errors on. Not here: what is in the blocks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType


class StoppedError(Exception):
    """The other end of a pipe was closed."""


class Pipe:
    """A queue with two ends. The producer holds it in a `with`, which hands its error on.

    `most` blocks wait at a time; whoever puts one more waits.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._blocks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()
        return True

    def put(self, block: bytes) -> None:
        """Hand a block over; wait while there are too many. Raises `StoppedError` when nobody wants it."""
        with self._changed:
            while len(self._blocks) >= self._most and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise StoppedError
            self._blocks.append(block)
            self._changed.notify_all()

    def stop(self) -> None:
        """Tell the producer that nobody listens any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks; raise the producer's error at their end."""
        while True:
            with self._changed:
                while not (self._blocks or self._ended or self._stopped):
                    self._changed.wait()
                if self._stopped:
                    raise StoppedError
                if not self._blocks:
                    break
                block = self._blocks.popleft()
                self._changed.notify_all()
            yield block
        if self._error is not None:
            raise self._error
