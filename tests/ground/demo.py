"""What `./dev demo` shows: an answer of the service, and its files. Standard library only."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 30.0  # seconds


def ping(port: int, runner: str = "") -> str:
    """Return what the server on loopback answers to PING, once it listens; raise OSError when it never does.

    `runner` is the number of the process that would have to live for that.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as server:
                server.sendall(b"PING\r\n")
                return server.makefile("r", encoding="ascii").readline().strip()
        except OSError:
            if time.monotonic() > deadline or (runner and not Path(f"/proc/{runner}").exists()):
                raise
            time.sleep(0.1)


def tree(directory: Path, name: str) -> Iterator[str]:
    """Yield lines that show the service's directories, the root file system only as its first level."""
    yield str(directory)
    for path in sorted(directory.iterdir()):
        if path.name == name or path.name.startswith(f"{name}-"):
            yield f"  {described(path)}"
            yield from bundle(path) if path.is_dir() and not path.is_symlink() else ()


def bundle(directory: Path) -> Iterator[str]:
    """Yield lines that show one version: two levels without the hidden ones, which are appbox's own."""
    for path in sorted(directory.iterdir()):
        if not path.name.startswith("."):
            yield f"    {described(path)}"
            if path.name in ("data", "config"):
                yield from (f"      {described(child)}" for child in sorted(path.iterdir()))


def described(path: Path) -> str:
    """Return a name as `ls -F` shows it, a link with its target, a root file system with a hint of what is in it."""
    if path.is_symlink():
        return f"{path.name} -> {os.readlink(path)}"
    if not path.is_dir():
        return path.name
    return f"{path.name}/" + (f"  ({', '.join(sorted(os.listdir(path))[:6])} …)" if path.name == "rootfs" else "")


def main() -> int:
    """`ping PORT [PROCESS]` or `tree DIRECTORY NAME`."""
    if sys.argv[1] == "ping":
        try:
            answer = ping(int(sys.argv[2]), *sys.argv[3:])
        except OSError as error:
            print(error, file=sys.stderr)
            return 1
        print(answer.removeprefix("+"))
        return 0 if answer == "+PONG" else 1
    print("\n".join(tree(Path(sys.argv[2]), sys.argv[3])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
