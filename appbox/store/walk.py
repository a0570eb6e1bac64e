"""Trees of any depth, walked with one open directory; and how much is in them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Final

from appbox.errors import AppboxError

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Identity = tuple[int, int]
"""What no two files have at the same time: device and inode."""


def identity(info: os.stat_result) -> Identity:
    """Return what a file is, whatever its names are."""
    return info.st_dev, info.st_ino


class Cursor:
    """An open directory from which one goes down and up again; its descriptor keeps its number."""

    def __init__(self, fd: int) -> None:
        self.fd = os.dup(fd)

    def close(self) -> None:
        """Close the directory."""
        os.close(self.fd)

    def down(self, name: str) -> None:
        """Go into a directory, never through a symlink; OSError when it is none."""
        self._go(os.open(name, DIRECTORY, dir_fd=self.fd))

    def up(self, wanted: Identity) -> None:
        """Go to the directory above, which must be the one that we came from: others may have moved us."""
        self._go(os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd))
        if self.identity != wanted:
            raise AppboxError("a directory was moved meanwhile", hint="try again")

    def _go(self, fd: int) -> None:
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)

    @property
    def identity(self) -> Identity:
        """What the open directory is."""
        return identity(os.fstat(self.fd))


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is: things, bytes that their readers see, bytes that they have on the disk.

    `newest` is when the one that was written last was, in nanoseconds since 1970.
    """

    entries: int = 0
    apparent: int = 0
    allocated: int = 0
    newest: int = 0


def measure(top: int, limit: int = 0) -> Size | None:
    """Return how much there is below an open directory; None when it has more than `limit` things (0: no limit).

    What vanishes meanwhile does not count; a file with several names counts once.
    """
    cursor, counted = Cursor(top), _Counted()
    levels: list[tuple[Identity, list[str]]] = []
    try:
        levels.append((cursor.identity, counted.directory(cursor.fd)))
        while not limit or counted.entries <= limit:
            if not levels[-1][1]:
                levels.pop()
                if not levels:
                    return Size(counted.entries, counted.apparent, counted.allocated, counted.newest)
                cursor.up(levels[-1][0])
                continue
            try:
                cursor.down(levels[-1][1].pop())
            except (FileNotFoundError, NotADirectoryError):
                continue
            levels.append((cursor.identity, counted.directory(cursor.fd)))
        return None
    finally:
        cursor.close()


@dataclass(slots=True)
class _Counted:
    entries: int = 0
    apparent: int = 0
    allocated: int = 0
    newest: int = 0
    seen: set[Identity] = field(default_factory=set)

    def directory(self, fd: int) -> list[str]:
        """Count what is in a directory; return the names of the directories in it."""
        found = []
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(info.st_mode):
                    found.append(entry.name)
                self._count(info)
        return found

    def _count(self, info: os.stat_result) -> None:
        self.entries += 1
        self.newest = max(self.newest, info.st_mtime_ns)
        is_directory = stat.S_ISDIR(info.st_mode)
        if info.st_nlink > 1 and not is_directory:
            if identity(info) in self.seen:
                return
            self.seen.add(identity(info))
        self.apparent += 0 if is_directory else info.st_size
        self.allocated += info.st_blocks * 512
