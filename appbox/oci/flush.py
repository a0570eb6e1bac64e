"""Writing to the disk begins while layers are still being unpacked, so that the last sync has little left. Effects."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

from appbox.host import syscalls

STEP: Final = 64 << 20
"""Bytes after which the disk is given work: enough that the journal is not committed all the time."""


class Flusher:
    """Syncs the file system of `root_fd` in a thread of its own, one time after the other, as `add` tells it.

    Errors are left to the last sync: that is made through `root_fd`, which saw them too (syncfs(2), "Errors").
    """

    def __init__(self, root_fd: int) -> None:
        self._fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
        self._waiting = 0
        self._thread: threading.Thread | None = None

    def add(self, size: int) -> None:
        """Take note of bytes that were written."""
        self._waiting += size
        if self._waiting >= STEP and (self._thread is None or not self._thread.is_alive()):
            self._waiting = 0
            self._thread = threading.Thread(target=self._sync, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait for what was begun."""
        if self._thread is not None:
            self._thread.join()
        os.close(self._fd)

    def _sync(self) -> None:
        with contextlib.suppress(OSError):
            syscalls.syncfs(self._fd)
