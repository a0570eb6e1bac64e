"""Walking to a path of the host that only root can have changed: what a service could redirect is refused.

Where appbox works for an ordinary user, that one is trusted like root.

A volume's source is mounted by name at each start. If a service, or a user, could put a symlink somewhere on the way,
the service would be given another part of the host (CVE-2017-1002101 is that fault elsewhere). So every directory on
the way belongs to root, nobody else may write to it, and symlinks are root's own. In a sticky directory such as /tmp
the next component has to be root's or the service's own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from appbox import owner
from appbox.errors import Refused
from appbox.host import owners
from appbox.host.facts import IdRange
from appbox.host.owners import Whose

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS: Final = 40
"""Symlinks on one way: as many as the kernel follows (path_resolution(7))."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: the open directory that holds its last component, and that component, None if missing.

    `missing` are the components that do not exist; the open directory is then the last one that does. `whose` it is
    that was found; nobody's is root's.
    """

    parent: int
    name: str
    found: os.stat_result | None
    missing: tuple[str, ...] = ()
    whose: Whose = owners.ROOTS


@contextmanager
def walk(root: int, path: str, service: IdRange) -> Iterator[Place]:
    """Walk from an open root to the absolute `path`; `service` is the range of ids of the service that it is for.

    Raises Refused, naming the component that somebody else could replace.
    """
    todo = [part for part in path.split("/") if part]
    done: list[str] = []
    links = 0
    with ExitStack() as stack:
        folders = [_opened(stack, os.open(".", _DIRECTORY, dir_fd=root))]
        while todo:
            part = todo.pop(0)
            if part == "..":
                done, folders = done[:-1], folders[:-1] or folders
                continue
            here = "/" + "/".join((*done, part))
            found, whose = _look(folders[-1], here, part, service)
            if found is not None and stat.S_ISLNK(found.st_mode):
                links += 1
                target = _target(folders[-1], part, here, links)
                todo = [piece for piece in target.split("/") if piece not in {"", "."}] + todo
                if target.startswith("/"):
                    done, folders = [], folders[:1]
                continue
            if found is None or not todo:
                yield Place(folders[-1], part, found, (part, *todo) if found is None else (), whose)
                return
            folders.append(_opened(stack, _enter(folders[-1], part, here)))
            done.append(part)
        raise Refused("is no place for a volume", where=path)


@contextmanager
def parent(root: int, path: str, service: IdRange) -> Iterator[tuple[int, str]]:
    """Walk to a path as `walk` does and make the directories above it that are missing, for root and durable.

    Gives the open directory and the name in it. Raises as `walk`.
    """
    with walk(root, path, service) as place, ExitStack() as stack:
        fd = place.parent
        *above, name = place.missing or (place.name,)
        if ".." in (*above, name):
            raise Refused("goes up from a directory that is missing", where=path)
        for part in above:
            os.mkdir(part, 0o755, dir_fd=fd)
            os.fsync(fd)
            fd = _opened(stack, _enter(fd, part, path))
            os.fchmod(fd, 0o755)
        yield fd, name


def _opened(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _target(fd: int, part: str, path: str, links: int) -> str:
    if links > _LINKS:
        raise Refused("leads through too many symlinks", where=path)
    return os.readlink(part, dir_fd=fd)


def _enter(fd: int, part: str, path: str) -> int:
    try:
        return os.open(part, _DIRECTORY, dir_fd=fd)
    except NotADirectoryError as error:
        raise Refused("is not a directory", where=path) from error


def _look(fd: int, path: str, part: str, service: IdRange) -> tuple[os.stat_result | None, Whose]:
    """Return what `part` is in an open directory, and whose, if nobody but root can have put it there."""
    folder = os.fstat(fd)
    here = owners.of(folder, fd)
    above = os.path.dirname(path)
    if not here.trusted:
        raise _unsafe(above, f"it belongs to the user id {here.outside}, who could put a link in its place")
    try:
        found = os.stat(part, dir_fd=fd, follow_symlinks=False)
        whose = owners.at(part, fd, found)
    except FileNotFoundError:
        return None, owners.ROOTS
    if owners.others_may_write(folder, here):
        if not folder.st_mode & stat.S_ISVTX:
            raise _unsafe(above, "others than root may write to it, and put a link there")
        if not whose.trusted and not service.base <= whose.uid < service.end:
            raise _unsafe(path, f"it belongs to the user id {whose.outside}, who could put a link in its place")
    if stat.S_ISLNK(found.st_mode) and not whose.trusted:
        raise _unsafe(path, f"it is a symlink of the user id {whose.outside}, who can change where it leads")
    return found, whose


def _unsafe(path: str, why: str) -> Refused:
    hint = "use a path that only root can change"
    if owner.current() is not None:
        hint = "use a path that only root and you can change"
    return Refused("cannot be on the way to a volume", where=path, why=why, hint=hint)
