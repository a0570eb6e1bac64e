"""Whose a file of the host is, truly: in a user's namespace all ids that are not the user's own look alike.

There the user is root, 0, and whatever belongs to root of the host or to another user belongs to the kernel's overflow
id (user_namespaces(7), Unmapped user and group IDs). The process outside of the namespace sees who it is.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cache
from typing import Final

from appbox import owner
from appbox.host import process

FOREIGN: Final = -1
"""The user or group of a file of somebody who is nobody to this process: neither root, nor the user, nor a service."""

_ACL: Final = "system.posix_acl_access"


@dataclass(frozen=True, slots=True)
class Whose:
    """The owner and group of a file as this process should take them, and the owner's number on the host, for words.

    0 is root of the host, or the user whom this process works for, or that one's own group (`private`: nobody else is
    likely to be in it, since it has the user's number); FOREIGN is somebody else.
    """

    uid: int
    gid: int
    outside: int
    private: bool = True

    @property
    def trusted(self) -> bool:
        """Whether it belongs to root or to the user."""
        return self.uid == 0


ROOTS: Final = Whose(0, 0, 0)


def of(info: os.stat_result, fd: int) -> Whose:
    """Return whose a file is; `fd` refers to the same file, be it opened with O_PATH."""
    own, outside = owner.current(), process.outside()
    if own is None or outside is None:
        return Whose(info.st_uid, info.st_gid, info.st_uid)
    if overflow() in {info.st_uid, info.st_gid}:
        uid, gid = outside.owner(fd)
        return Whose(_taken(info.st_uid, uid, own.uids), _taken(info.st_gid, gid, own.gids), uid, own.uid == own.gid)
    return Whose(info.st_uid, info.st_gid, own.uid if info.st_uid == 0 else info.st_uid, own.uid == own.gid)


def _taken(seen: int, true: int, ids: tuple[owner.Extent, ...]) -> int:
    if true == 0:
        return 0
    return seen if any(one.outside <= true < one.outside + one.size for one in ids) else FOREIGN


def at(name: str, dir_fd: int, info: os.stat_result) -> Whose:
    """Return whose a file of an open directory is, a symlink's own owner; `info` is what lstat(2) says of it."""
    if process.outside() is None or overflow() not in {info.st_uid, info.st_gid}:
        return of(info, -1)
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        return of(os.fstat(fd), fd)
    finally:
        os.close(fd)


def user(info: os.stat_result, fd: int) -> int:
    """Return the user id that a file has as this process should take it: 0 is root of the host, or the user's own."""
    return of(info, fd).uid


def others_may_write(info: os.stat_result, whose: Whose) -> bool:
    """Return whether others than root, and the user whom this process works for, may write to a file or directory."""
    group = bool(info.st_mode & stat.S_IWGRP) and (whose.gid != 0 or not (whose.private or info.st_gid != 0))
    return group or bool(info.st_mode & stat.S_IWOTH)


def usable(path: str, info: os.stat_result, whose: Whose) -> bool:
    """Return whether an ordinary user's service may read and write a file of the host: it leaves the user's groups."""
    need = os.R_OK | os.W_OK
    if whose.uid == 0 and info.st_uid == 0:
        return info.st_mode >> 6 & need == need
    return info.st_mode & need == need or (_ACL in _listed(path) and os.access(path, need))


def _listed(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


@cache
def overflow() -> int:
    """Return the id that the kernel shows for those that a namespace does not have (proc_sys_kernel(5))."""
    with open("/proc/sys/kernel/overflowuid", "rb") as file:  # whole at once: the kernel gives no second part
        return int(file.read(32))
