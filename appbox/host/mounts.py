"""What is mounted, as /proc tells it (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re


def file_system(device: int) -> str:
    """Return the kind of the file system with this device number, "" when none is mounted that has it."""
    wanted = f"{os.major(device)}:{os.minor(device)}".encode()
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                before, _, after = line.partition(b" - ")
                if before.split(b" ", 3)[2] == wanted:
                    return after.split(b" ", 1)[0].decode("ascii", "replace")
    except OSError:
        return ""
    return ""


def any_below(path: str) -> bool:
    """Return whether anything is mounted below a directory, given by its real path in this mount namespace."""
    below = path.rstrip("/").encode("utf-8", "surrogateescape") + b"/"
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            places = [line.split(b" ", 5)[4] for line in file]
    except OSError:
        return True
    return any(_unescaped(place).startswith(below) for place in places)


def _unescaped(place: bytes) -> bytes:
    r"""Return a path with its octal escapes undone: spaces, tabs, newlines and backslashes have them."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes((int(found[1], 8),)), place)
