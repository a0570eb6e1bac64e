"""A file that appears under its name whole and durable, or not at all. Not here: what is in it.

It is written under a temporary name beside its place. Who is killed leaves that behind; the next writer of the same
file takes it away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from appbox.errors import AppboxError, Locked
from appbox.store.files import TEMPORARY


class NewFile:
    """The file at `path`, replacing what is there when it is committed. A context manager.

    Raises `AppboxError` when its directory cannot be written, `Locked` while somebody else writes the same file.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # what a link of that name leads to is replaced, not the link
        folder, name = os.path.split(self.path)
        self._temporary = os.path.join(folder, f".{name}{TEMPORARY}")
        with _in_words(self.path):
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _in_words(self.path):
                self.fd = self._create()
        except BaseException:
            os.close(self._folder)
            raise
        self._committed = False

    def commit(self) -> None:
        """Make the bytes durable and give them their name."""
        with _in_words(self.path):
            os.fsync(self.fd)
            os.rename(self._temporary, self.path)
            self._committed = True
            os.fsync(self._folder)

    def close(self) -> None:
        """Let go of the file; unless it was committed nothing is left of it."""
        if self.fd < 0:
            return
        if not self._committed:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
        os.close(self.fd)
        os.close(self._folder)
        self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self._temporary, flags, 0o666)
        except FileExistsError:
            self._sweep()
            fd = os.open(self._temporary, flags, 0o666)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def _sweep(self) -> None:
        """Remove what a writer that died has left; raise `Locked` when it lives."""
        fd = os.open(self._temporary, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(self._temporary)
        except BlockingIOError as error:
            raise Locked("another appbox writes this file", where=self.path, hint="wait for it") from error
        finally:
            os.close(fd)


def occupied(path: str) -> bool:
    """Tell whether a file with anything in it is at `path`; raise `AppboxError` for what is no regular file."""
    try:
        info = os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise AppboxError("cannot be looked at", where=path, why=error.strerror or str(error)) from error
    if not stat.S_ISREG(info.st_mode):
        kind = "a directory" if stat.S_ISDIR(info.st_mode) else "no regular file"
        raise AppboxError("cannot be written", where=path, why=f"it is {kind}", hint="name a new file")
    return info.st_size > 0


@contextlib.contextmanager
def _in_words(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AppboxError("cannot be written", where=path, why=error.strerror or str(error)) from error
