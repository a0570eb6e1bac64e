"""Jobs in the one table of busybox's crond, which is the administrator's, too: only our own two lines are touched.

The first of them is the line that names the service, the second says when, and what to start.
"""

from __future__ import annotations

import os
import stat

from appbox.store import files, paths
from appbox.store.root import Root
from appbox.units.model import marker

_LIMIT = 1 << 20
_FOLDER, _, _LEAF = paths.CRONTAB.rpartition("/")


def split(path: str) -> str:
    """Return whose part of the table a path is, FILE:NAME; "" for every other path."""
    return path.removeprefix(f"{paths.CRONTAB}:") if path.startswith(f"{paths.CRONTAB}:") else ""


def read(root: Root, name: str) -> str | None:
    """Return a job's lines, None when it has none."""
    lines = _lines(root)
    at = _place(lines, name)
    return None if at is None else "".join(lines[at : at + 2])


def write(root: Root, name: str, text: str) -> None:
    """Put a job's lines in the place of its old ones, or at the end; "" takes them out."""
    lines = _lines(root)
    at = _place(lines, name)
    start, end = (len(lines), len(lines)) if at is None else (at, at + 2)
    lines[start:end] = text.splitlines(keepends=True)
    root.make(_FOLDER)
    with root.directory(_FOLDER) as fd:
        files.replace(_LEAF, "".join(lines).encode("utf-8", "surrogateescape"), mode=_mode(fd), dir_fd=fd)


def _lines(root: Root) -> list[str]:
    # Bytes that are no text to us are somebody's, and stay as they are.
    text = (root.read(paths.CRONTAB, _LIMIT) or b"").decode("utf-8", "surrogateescape")
    return [f"{line}\n" for line in text.removesuffix("\n").split("\n")] if text else []


def _place(lines: list[str], name: str) -> int | None:
    return next((at for at, line in enumerate(lines) if line.rstrip("\n") == marker(name)), None)


def _mode(folder: int) -> int:
    try:
        return stat.S_IMODE(os.lstat(_LEAF, dir_fd=folder).st_mode)
    except FileNotFoundError:
        return 0o600
