"""Replacing files and directories that are mounted in a running container, each in one step and without its help.

A new mount is made of the new file on the host, gets its attributes there, and is attached in the container's mount
namespace right beneath the old one, which then goes (Linux 6.5); before, on top of it. Who looks at the path sees the
old or the new one, whole. Programs that have the old one open keep it.

The container may be hostile: nothing of it is run, its own links are never followed, and whatever it renames meanwhile
can only lead to another place within itself, which is then covered by the new mount instead of by what covered it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from appbox import owner
from appbox.errors import AppboxError
from appbox.host import runc, syscalls

_ATTRIBUTES: Final = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
_PLACE: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_SYMLINKS
_HERE: Final = -100
"""AT_FDCWD."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What the container is to see at the absolute path `target`: `source` is a descriptor of it on the host."""

    source: int
    target: str
    executable: bool = False


def possible() -> bool:
    """Return whether it can be done at all: mount_setattr(2), Linux 5.12.

    What an ordinary user's container has mounted can be changed within its own user namespace alone, not from ours.
    """
    if owner.current() is not None:
        return False
    try:
        syscalls.set_mount_attributes(-1, 0)
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def replace(name: str, replacements: Sequence[Replacement]) -> bool:
    """Let the running container of a service see the replacements, read-only; return whether there is one.

    Raises AppboxError when one of them cannot be put in its place; those before it are then seen already.
    """
    with contextlib.ExitStack() as stack:
        namespace = stack.enter_context(_mounts_of(name))
        if namespace is None:
            return False
        trees = [(_tree(stack, one), os.fsencode(one.target)) for one in replacements]
        failed = _in_thread(namespace, trees)
    if failed is not None:
        index, code = failed
        raise AppboxError(
            "cannot be replaced in the running container",
            where=replacements[index].target if index >= 0 else name,
            why=os.strerror(code),
            hint=f"appbox restart {name}",
        )
    return True


@contextlib.contextmanager
def _mounts_of(name: str) -> Iterator[int | None]:
    """Open the mount namespace of a service's first process; None when the service does not run."""
    found = runc.running(name)
    try:
        fd = os.open(f"/proc/{found.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC) if found else None
    except (FileNotFoundError, ProcessLookupError):
        fd = None
    try:
        # The number may have become another process's before it was opened, but not after.
        yield fd if found is not None and runc.running(name) == found else None
    finally:
        if fd is not None:
            os.close(fd)


def _tree(stack: contextlib.ExitStack, wanted: Replacement) -> int:
    tree = syscalls.clone_mount(wanted.source)
    stack.callback(os.close, tree)
    syscalls.set_mount_attributes(tree, _ATTRIBUTES | (0 if wanted.executable else syscalls.MOUNT_ATTR_NOEXEC))
    return tree


def _in_thread(namespace: int, trees: Sequence[tuple[int, bytes]]) -> tuple[int, int] | None:
    """Attach the mounts in the namespace; return which one failed (-1: none was tried) with its errno, or None.

    Only the thread enters the namespace, and it ends there. In it nothing may be imported or opened by name, since all
    names are the container's; so it calls the kernel and nothing else.
    """
    failed: list[tuple[int, int]] = []

    def work() -> None:
        index = -1
        try:
            syscalls.enter_mounts(namespace)
            top = syscalls.openat2(_HERE, b"/", os.O_PATH | os.O_DIRECTORY)
            try:
                for index, (tree, target) in enumerate(trees):  # noqa: B007
                    _attach(tree, top, target)
            finally:
                os.close(top)
        except OSError as error:
            failed.append((index, error.errno or errno.EIO))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return failed[0] if failed else None


def _attach(tree: int, top: int, target: bytes) -> None:
    folder, _, leaf = target.rpartition(b"/")
    parent = syscalls.openat2(top, folder or b"/", os.O_PATH | os.O_DIRECTORY, resolve=_PLACE)
    try:
        place = syscalls.openat2(parent, leaf, os.O_PATH | os.O_NOFOLLOW, resolve=_PLACE)
        try:
            _attach_at(tree, parent, leaf, place)
        finally:
            os.close(place)
    finally:
        os.close(parent)


def _attach_at(tree: int, parent: int, leaf: bytes, place: int) -> None:
    try:
        syscalls.attach_mount(tree, place, beneath=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        syscalls.attach_mount(tree, place, beneath=False)  # an older kernel: the old one stays below
        return
    # A mount point cannot be renamed, and its directory is held: the name leads to this very place.
    os.fchdir(parent)
    syscalls.unmount(leaf, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
