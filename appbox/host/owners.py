"""Whose a file of the host is, truly: in a user's namespace all ids that are not the user's own look alike.

There the user is root, 0, and whatever belongs to root of the host or to another user belongs to the kernel's overflow
id (user_namespaces(7), Unmapped user and group IDs). The process outside of the namespace sees who it is.
"""

from __future__ import annotations

import os
from functools import cache

from appbox.host import process


def user(info: os.stat_result, fd: int) -> int:
    """Return the user id that a file has as this process should take it: 0 is root of the host, or the user's own.

    `fd` refers to the same file, be it opened with O_PATH. Another user's file in a user's namespace has the overflow id.
    """
    outside = process.outside()
    if outside is None or info.st_uid != overflow():
        return info.st_uid
    uid, _ = outside.owner(fd)
    return 0 if uid == 0 else info.st_uid


@cache
def overflow() -> int:
    """Return the id that the kernel shows for those that a namespace does not have (proc_sys_kernel(5))."""
    with open("/proc/sys/kernel/overflowuid", "rb") as file:  # whole at once: the kernel gives no second part
        return int(file.read(32))
