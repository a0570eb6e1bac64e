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
    """The file at `path`, replacing what is there when it is committed. A context manager, which makes it.

    Entering it raises `AppboxError` when its directory cannot be written, `Locked` while somebody else writes the
    same file.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # what a link of that name leads to is replaced, not the link
        folder, name = os.path.split(self.path)
        self._temporary = os.path.join(folder, f".{name}{TEMPORARY}")
        self.fd = -1
        self._ours = False  # whether what has the temporary name is to be removed

    def commit(self) -> None:
        """Make the bytes durable and give them their name."""
        with _in_words(self.path):
            os.fsync(self.fd)
            os.rename(self._temporary, self.path)
            self._ours = False
            _fsync(os.path.dirname(self.path))

    def close(self) -> None:
        """Let go of the file; unless it was committed nothing is left of it."""
        if self._ours:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self._ours = -1, False

    def __enter__(self) -> Self:
        try:
            with _in_words(self.path):
                self._create()
        except BaseException:  # also a signal, just when the file was made
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self) -> None:
        self._sweep()
        self._ours = True
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.fd = os.open(self._temporary, flags, 0o666)
        except OSError:
            self._ours = False
            raise
        # Until it was locked, another writer may have taken it for one of the dead's and put its own in its place.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(self.fd, self._temporary):
                return
        self._ours = False
        raise self._locked()

    def _locked(self) -> Locked:
        return Locked("another appbox writes this file", where=self.path, hint="wait for it")

    def _sweep(self) -> None:
        """Remove what a writer that died has left; raise `Locked` when it lives."""
        try:
            fd = os.open(self._temporary, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(fd, self._temporary):  # its writer may have ended, and the next one begun
                os.unlink(self._temporary)
        except BlockingIOError as error:
            raise self._locked() from error
        finally:
            os.close(fd)


def _is(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


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


def _fsync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _in_words(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AppboxError("cannot be written", where=path, why=error.strerror or str(error)) from error
