"""What the commands of a service's upgrades print: kept in a file of the host, and their last lines in memory.

`/var/log/appbox/NAME:hooks.log` has a line with a time for each command, and its output below that. A second file
takes the older half, so that both together have a bounded size.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import FileIO
from typing import Final

from appbox.errors import printable
from appbox.store import paths
from appbox.store.root import Root

FULL: Final = 1 << 20
"""Bytes of a file at which the next one is begun; there are two."""

_LONGEST: Final = 4096
"""Bytes of a line that are kept in one piece."""


class HookLog:
    """The open log of a service; `last` are the last lines that the present command printed."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder, self._name = folder, name
        self._file = self._open()
        self._rest = b""
        self.last: deque[str] = deque(maxlen=20)

    def begin(self, about: str, command: Sequence[str]) -> None:
        """Head the output of a command: `about` says which it is, and of what. OSError when that cannot be written."""
        self.last.clear()
        self._append(_note(f"{about}: {printable(shlex.join(command))}"))

    def write(self, data: bytes) -> None:
        """Keep a part of the output, line by line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._keep(line)
        while len(self._rest) > _LONGEST:
            self._keep(self._rest[:_LONGEST])
            self._rest = self._rest[_LONGEST:]

    def end(self, how: str) -> None:
        """Keep the rest of the output, and how the command ended."""
        if self._rest:
            self._keep(self._rest)
            self._rest = b""
        with contextlib.suppress(OSError):
            self._append(_note(how))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _keep(self, line: bytes) -> None:
        self.last.append(printable(line.decode("utf-8", "replace").strip()))
        # No output can look like the head of another one. A full disk is no reason to stop a command at its work.
        with contextlib.suppress(OSError):
            self._append(b"  " + line + b"\n")

    def _append(self, data: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size and size + len(data) > FULL:
            self._file.close()
            os.rename(self._name, f"{self._name}.1", src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._file = self._open()
        self._file.write(data)

    def _open(self) -> FileIO:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return FileIO(os.open(self._name, flags, 0o600, dir_fd=self._folder), "a")


def _note(text: str) -> bytes:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} appbox: {text}\n".encode("utf-8", "backslashreplace")


@contextlib.contextmanager
def open_log(root: Root, service: str) -> Iterator[HookLog]:
    """Open the log of a service's commands, which may be new, and close it afterwards."""
    root.make(paths.LOGS)
    with root.directory(paths.LOGS) as folder, contextlib.closing(HookLog(folder, _leaf(service))) as log:
        yield log


def _leaf(service: str) -> str:
    return paths.hook_log(service).rpartition("/")[2]
