"""What is mounted, as /proc tells it (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os


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
