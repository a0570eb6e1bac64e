"""Jobs in the one table of busybox's crond, which is the administrator's, too: only our own two lines are touched.

The first of them is the line that names the service, the second says when, and what to start: a job, or the taking of a
service's snapshot. Somebody may have put a line between them, or have taken one of them out.
"""

from __future__ import annotations

import os
import stat

from appbox.store import files, paths
from appbox.store.root import Root
from appbox.units.files import marker

_LIMIT = 1 << 20
_FOLDER, _, _LEAF = paths.CRONTAB.rpartition("/")


def split(path: str) -> str:
    """Return whose part of the table a path is, FILE:NAME; "" for every other path."""
    return path.removeprefix(f"{paths.CRONTAB}:") if path.startswith(f"{paths.CRONTAB}:") else ""


def read(root: Root, name: str) -> str | None:
    """Return a job's lines, None when it has none."""
    lines = _lines(root)
    return "".join(lines[at] for at in _places(lines, name)) or None


def write(root: Root, name: str, text: str) -> None:
    """Put a job's lines in the place of its old ones, or at the end; "" takes them out."""
    lines = _lines(root)
    own = _places(lines, name)
    start = own[0] if own else len(lines)
    kept = [line for at, line in enumerate(lines) if at not in own]
    kept[start:start] = text.splitlines(keepends=True)
    root.make(_FOLDER)
    with root.directory(_FOLDER) as fd:
        files.replace(_LEAF, "".join(kept).encode("utf-8", "surrogateescape"), mode=_mode(fd), dir_fd=fd)


def _lines(root: Root) -> list[str]:
    # Bytes that are no text to us are somebody's, and stay as they are.
    text = (root.read(paths.CRONTAB, _LIMIT) or b"").decode("utf-8", "surrogateescape")
    return [f"{line}\n" for line in text.removesuffix("\n").split("\n")] if text else []


def _places(lines: list[str], name: str) -> tuple[int, ...]:
    """Return where the line that names a service is, and the one with its command; nothing without the first."""
    at = next((at for at, line in enumerate(lines) if line.rstrip("\n") == marker(name)), None)
    if at is None:
        return ()
    commands = (f" {paths.CONTAINERS}/{name}/run due\n", f" snapshot --scheduled {name}\n")
    due = next((below for below in range(at + 1, len(lines)) if lines[below].endswith(commands)), None)
    return (at,) if due is None else (at, due)


def _mode(folder: int) -> int:
    try:
        return stat.S_IMODE(os.lstat(_LEAF, dir_fd=folder).st_mode)
    except FileNotFoundError:
        return 0o600
