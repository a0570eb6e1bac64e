"""Files of /proc that only a process outside the user namespace of an ordinary user's appbox may open.

What runs in a service's own namespaces is no business of another namespace's root; for a process of the same user that
is in neither, it is (ptrace(2), "Ptrace access mode checking"). So a small program opens the file there and hands it
over.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from typing import Final

from appbox.host import process

_PROGRAM: Final = """
import os, socket, sys
line = socket.socket(fileno=0)
try:
    fd = os.open(sys.argv[1], int(sys.argv[2]))
except OSError as error:
    line.send(str(error.errno).encode())
else:
    socket.send_fds(line, [b"0"], [fd])
"""


@contextlib.contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    """Open a file as the user whom this process works for, and close it after the block; OSError when it cannot be."""
    fd = _from_outside(path, flags) if process.outside() else os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _from_outside(path: str, flags: int) -> int:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, path, str(flags)]
            program = process.start_with(argv, stdin=theirs.fileno())
        with program:
            told, fds, _, _ = socket.recv_fds(ours, 16, 1)
    if not fds:
        number = int(told or b"5")
        raise OSError(number, os.strerror(number), path)
    os.set_inheritable(fds[0], False)
    return fds[0]
