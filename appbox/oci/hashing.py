"""Many files hashed side by side, each compared with the digest that it should have. Effects: it only reads."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, NamedTuple, Self

_THREADS: Final = max(2, min(8, os.cpu_count() or 2))
_FILES: Final = 32
_BYTES: Final = 4 << 20
"""A batch has at most that many files and, but for its last file, bytes: to hand over each file by itself would cost
more than to hash it."""
_BATCHES: Final = 2 * _THREADS
"""Batches under way: what bounds the open descriptors, 512 with 8 threads."""
_BLOCK: Final = 1 << 18


class File(NamedTuple):
    """An open file, from its beginning, and the SHA-256 that it should have."""

    fd: int
    path: bytes
    size: int
    digest: bytes


class Hashing:
    """Takes open files with `add` and closes them; calls `differs(file, what)`, in the caller's thread, for each file
    that has another content (`what` is its digest) or cannot be read (`what` says why). Use it in a `with` statement,
    at whose end all files are done.
    """

    def __init__(self, differs: Callable[[File, str], object]) -> None:
        self._differs = differs
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="hash")
        self._batch: list[File] = []
        self._size = 0
        self._under_way: deque[tuple[list[File], Future[list[tuple[File, str]]]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._hand_over()
                while self._under_way:
                    self._collect()
        finally:
            for batch, future in self._under_way:
                if future.cancel():
                    _close(batch)
            _close(self._batch)
            self._pool.shutdown()

    def add(self, file: File) -> None:
        """Have a file hashed."""
        self._batch.append(file)
        self._size += file.size
        if len(self._batch) >= _FILES or self._size >= _BYTES:
            self._hand_over()
            if len(self._under_way) > _BATCHES:
                self._collect()

    def _hand_over(self) -> None:
        batch, self._batch, self._size = self._batch, [], 0
        self._under_way.append((batch, self._pool.submit(_differing, batch)))

    def _collect(self) -> None:
        _, future = self._under_way.popleft()
        for file, what in future.result():
            self._differs(file, what)


def _differing(batch: list[File]) -> list[tuple[File, str]]:
    """Hash and close the files of a batch; return those that are not as they should be."""
    found = []
    for file in batch:
        try:
            digest = _digest(file)
            if digest != file.digest:
                found.append((file, f"sha256:{digest.hex()}" if digest else f"more than {file.size} bytes"))
        except OSError as error:
            found.append((file, f"unreadable: {error.strerror or error}"))
        finally:
            os.close(file.fd)
    return found


def _digest(file: File) -> bytes:
    """Return the digest of the content; empty when there is more than there was: it may be growing without an end."""
    hasher = hashlib.sha256()
    left = file.size
    while block := os.read(file.fd, _BLOCK):
        left -= len(block)
        if left < 0:
            return b""
        hasher.update(block)
    return hasher.digest()


def _close(files: list[File]) -> None:
    for file in files:
        os.close(file.fd)
