"""Walking to a path of the host that only root can have changed: what a service could redirect is refused.

A volume's source is mounted by name at each start. If a service, or a user, could put a symlink somewhere on the way,
the service would be given another part of the host (CVE-2017-1002101 is that fault elsewhere). So every directory on
the way belongs to root and nobody else may write to it, and no component is a symlink. In a sticky directory such as
/tmp the next component has to be root's or the service's own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from appbox.errors import Refused
from appbox.host.facts import IdRange


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: the open directory that holds its last component, and that component, None if missing.

    `missing` are the components that do not exist; the open directory is then the last one that does.
    """

    parent: int
    name: str
    found: os.stat_result | None
    missing: tuple[str, ...] = ()


@contextmanager
def walk(root: int, path: str, service: IdRange) -> Iterator[Place]:
    """Walk from an open root to the absolute `path`; `service` is the range of ids of the service that it is for.

    Raises Refused, naming the component that somebody else could replace.
    """
    parts = [part for part in path.split("/") if part]
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        for depth, part in enumerate(parts):
            found = _look(fd, "/" + "/".join(parts[: depth + 1]), part, service)
            if found is None or depth == len(parts) - 1:
                yield Place(fd, part, found, tuple(parts[depth:]) if found is None else ())
                return
            below = _enter(fd, part, "/" + "/".join(parts[: depth + 1]))
            os.close(fd)
            fd = below
    finally:
        os.close(fd)


def _enter(fd: int, part: str, path: str) -> int:
    try:
        return os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    except NotADirectoryError as error:
        raise Refused("is not a directory", where=path) from error


def _look(fd: int, path: str, part: str, service: IdRange) -> os.stat_result | None:
    """Return what `part` is in an open directory, None if missing, if nobody but root can have put it there."""
    folder = os.fstat(fd)
    above = os.path.dirname(path)
    if folder.st_uid != 0:
        raise _unsafe(above, f"it belongs to the user id {folder.st_uid}, who could put a link in its place")
    try:
        found = os.stat(part, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        found = None
    if _others_may_write(folder) and found is not None:
        if not folder.st_mode & stat.S_ISVTX:
            raise _unsafe(above, "others than root may write to it, and put a link there")
        if found.st_uid != 0 and not service.base <= found.st_uid < service.end:
            raise _unsafe(path, f"it belongs to the user id {found.st_uid}, who could put a link in its place")
    if found is not None and stat.S_ISLNK(found.st_mode):
        raise Refused(
            "is a symlink, and what it leads to may change", where=path, hint="write the path that it leads to"
        )
    return found


def _others_may_write(info: os.stat_result) -> bool:
    return bool(info.st_mode & stat.S_IWOTH or (info.st_mode & stat.S_IWGRP and info.st_gid != 0))


def _unsafe(path: str, why: str) -> Refused:
    return Refused("cannot be on the way to a volume", where=path, why=why, hint="use a path that only root can change")
