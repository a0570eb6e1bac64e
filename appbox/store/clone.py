"""A data directory cloned: as a snapshot of a btrfs subvolume, by sharing blocks, or by copying them.

The clone appears under its name by one rename, whole and durable. A copy that was killed goes on where it was: what
makes it safe to trust is in `store.tree`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from appbox.errors import AppboxError
from appbox.host import cow, syscalls
from appbox.host.inside import remove_tree
from appbox.host.mounts import any_below
from appbox.store import files, tree
from appbox.store.walk import Size, measure

How = Literal["subvolume", "reflink", "copy"]

WORDS: Final[dict[How, str]] = {
    "subvolume": "a snapshot of its subvolume",
    "reflink": "a clone that shares blocks",
    "copy": "a copy",
}

Progress = Callable[[int, int], object]
"""Told the bytes that are done and all that there are."""


def can(source: int, parent: int) -> How:
    """Return the quickest way in which an open directory can be cloned into another. It is tried, and leaves nothing.

    A subvolume with others in it, or with something mounted in it, is cloned file by file: they would be missing.
    """
    if (
        cow.is_subvolume(source)
        and os.fstat(source).st_dev != os.fstat(parent).st_dev
        and cow.can_clone(source, parent)
    ):
        whole = not cow.has_subvolumes(source) and not any_below(os.readlink(f"/proc/self/fd/{source}"))
        return "subvolume" if whole else "reflink"
    return "reflink" if cow.can_clone(source, parent) else "copy"


@dataclass(frozen=True, slots=True)
class Making:
    """More about how a clone is made.

    `live`: the source is written to meanwhile, and files may vanish. `subvolume`: the clone is to be a subvolume, or
    not; None: as the source is. `progress` is told bytes. `read` is called once nothing is read from the source any
    more, before the clone is made durable; `finish` with the clone's descriptor, before it gets its name.
    """

    live: bool = False
    subvolume: bool | None = None
    progress: Progress | None = None
    read: Callable[[], object] | None = None
    finish: Callable[[int], object] | None = None


USUAL: Final = Making()


def clone(source: int, parent: int, name: str, how: How, making: Making = USUAL) -> None:
    """Make a clone of an open directory as `name` in another one: whole and durable, or not at all.

    Raises AppboxError when the name is taken or when there is no room; then, and when it is interrupted, nothing is
    left. After a kill, the same call goes on with what is there.
    """
    if files.exists(name, parent):
        raise AppboxError("is there already", where=name)
    temporary = f".{name}{files.TEMPORARY}"
    try:
        _fill(source, parent, temporary, how, making)
        if making.read:
            making.read()
        with files.directory(temporary, parent) as fd:
            if making.finish:
                making.finish(fd)
            syscalls.syncfs(fd)
        syscalls.renameat2(parent, temporary, parent, name, syscalls.RENAME_NOREPLACE)
    except OSError as error:
        remove_tree(parent, temporary)
        raise tree.in_words(error, name) from error
    except BaseException:
        remove_tree(parent, temporary)
        raise
    os.fsync(parent)


def _fill(source: int, parent: int, temporary: str, how: How, making: Making) -> None:
    subvolume = cow.is_subvolume(source) if making.subvolume is None else making.subvolume
    if how == "subvolume" and subvolume:
        remove_tree(parent, temporary)
        cow.snapshot_subvolume(source, parent, temporary)
        return
    copying = how == "copy"
    resume = copying and files.exists(temporary, parent)
    if not resume:
        remove_tree(parent, temporary)
        (cow.make_directory if subvolume else _make)(parent, temporary, 0o700)
    with files.directory(temporary, parent) as fd:
        os.fchmod(fd, 0o700)
        tree.strip(fd)
        size = _refuse_full(source, fd) if copying else (measure(source) if making.progress else None)
        server = copying and not cow.can_clone(source, fd)
        rules = tree.Rules(share=not copying, server=server, resume=resume, live=making.live)
        tree.copy(source, fd, rules, _counting(making.progress, size.apparent if size else 0))


def _make(parent: int, name: str, mode: int) -> None:
    os.mkdir(name, mode, dir_fd=parent)


def _counting(progress: Progress | None, total: int) -> Callable[[int], object] | None:
    return None if progress is None else lambda done: progress(min(done, total), total)


def _refuse_full(source: int, target: int) -> Size | None:
    """Raise AppboxError when what is to be copied, less what is there already, is more than there is room for."""
    size, there = measure(source), measure(target)
    if size is None or there is None:
        return size
    room = os.fstatvfs(target)
    needed = min(size.apparent, size.allocated) - there.allocated
    if needed > room.f_bfree * room.f_frsize:
        why = f"it needs {needed} bytes, and {room.f_bfree * room.f_frsize} are free"
        raise AppboxError("there is no room for a copy of the data", why=why, hint="make room, then again")
    if room.f_files and size.entries - there.entries > room.f_ffree:
        why = f"it has {size.entries} files, and the file system has room for {room.f_ffree} more"
        raise AppboxError("there is no room for a copy of the data", why=why, hint="make room, then again")
    return size
