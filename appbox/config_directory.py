"""A directory of configuration files, read from beside a manifest: regular files only, bounded, no symlinks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from appbox.configuration import SIZE_LIMIT
from appbox.errors import AppboxError
from appbox.fields import BadValueError, line, quoted
from appbox.store import files

FILES: Final = 1000
"""Files of one directory, those in its subdirectories included."""
TOTAL_LIMIT: Final = 8 << 20
"""Bytes of all of them together: every plan compares them with what is installed."""
DEPTH: Final = 16
"""Directories within one another."""

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its path relative to the directory, what is in it, and whether its owner may execute it."""

    path: str
    data: bytes
    executable: bool


def read(folder: str, name: str) -> list[Entry]:
    """Return the files of a directory, sorted by path; `name` is what the manifest calls it.

    Raises AppboxError for anything but files and directories, for names that cannot be shown, and beyond the limits.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(name, error) from error
    try:
        found = sorted(_bounded(_walk(fd, name, ""), name), key=lambda entry: entry.path)
    finally:
        os.close(fd)
    if not found:
        raise AppboxError("holds no file", where=name, hint="put one there")
    return found


def _bounded(entries: Iterator[Entry], name: str) -> list[Entry]:
    found, size = [], 0
    for entry in entries:
        found.append(entry)
        size += len(entry.data)
        if len(found) > FILES:
            raise AppboxError(f"holds more than {FILES} files", where=name, hint="mount a volume instead")
        if size > TOTAL_LIMIT:
            raise AppboxError(f"holds more than {TOTAL_LIMIT} bytes", where=name, hint="mount a volume instead")
    return found


def _walk(fd: int, name: str, prefix: str) -> Iterator[Entry]:
    if prefix.count("/") > DEPTH:
        raise AppboxError(f"has directories more than {DEPTH} deep", where=name)
    for leaf in sorted(os.listdir(fd)):
        path = f"{prefix}{_shown(leaf, name)}"
        try:
            info = os.lstat(leaf, dir_fd=fd)
            if stat.S_ISDIR(info.st_mode):
                with files.directory(leaf, fd) as child:
                    yield from _walk(child, name, f"{path}/")
                continue
            if not stat.S_ISREG(info.st_mode):
                kind = "a symlink" if stat.S_ISLNK(info.st_mode) else "no regular file"
                raise AppboxError(f"is {kind}", where=f"{name}/{path}", hint="put a file there")
            data = files.read_descriptor(os.open(leaf, _FLAGS, dir_fd=fd), SIZE_LIMIT, where=f"{name}/{path}")
        except OSError as error:
            raise _unreadable(f"{name}/{path}", error) from error
        yield Entry(path, data, bool(info.st_mode & stat.S_IXUSR))


def _shown(leaf: str, name: str) -> str:
    """Return the name of a file, if it is text of one line; bytes that are no UTF-8 are none."""
    try:
        return line(leaf.encode("utf-8").decode(), "a name")
    except (UnicodeEncodeError, BadValueError) as error:
        raise AppboxError(f"holds a file called {quoted(ascii(leaf))}", where=name, hint="rename it") from error


def _unreadable(name: str, error: OSError) -> AppboxError:
    return AppboxError("cannot be read", where=name, why=error.strerror or str(error))
