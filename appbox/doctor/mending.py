"""Doing what a remedy says, step by step: programs of the host, files of appbox's own, lines for sub-ids."""

from __future__ import annotations

import os
from typing import Final

from appbox.doctor import ids_file
from appbox.doctor.values import GiveIds, NewFile, Run, Step
from appbox.errors import AppboxError, HostLacks
from appbox.host import process
from appbox.store import files
from appbox.store.root import Root

_PATIENCE: Final = 900.0
"""Seconds that a package manager may take."""
_QUIET: Final = {"DEBIAN_FRONTEND": "noninteractive"}
_LIMIT: Final = 64 << 10


def carry_out(step: Step) -> None:
    """Carry out one step; AppboxError or OSError when it does not work."""
    if isinstance(step, Run):
        _run(step)
        return
    with Root() as root:
        if isinstance(step, GiveIds):
            ids_file.give(root, step)
        else:
            _write(root, step)


def _run(step: Run) -> None:
    name = step.argv[0]
    path = name if name.startswith("/") else process.find(name)
    if path is None:
        raise HostLacks(f"{name} is not installed", where=step.shown)
    done = process.run([path, *step.argv[1:]], timeout=_PATIENCE, extra=_QUIET)
    if done.code:
        raise AppboxError("failed", where=step.shown, why=done.message)


def _write(root: Root, step: NewFile) -> None:
    """Write a file of appbox's own; AppboxError for one that is there with other content: somebody has made it his."""
    folder, _, name = step.path.rpartition("/")
    there = root.read(step.path, _LIMIT)
    if there is not None and there != step.text.encode():
        hint = "see what it says; delete it, or add the lines by hand"
        raise AppboxError("is there with other content, and so left alone", where=step.path, hint=hint)
    root.make(folder)
    with root.directory(folder) as fd:
        if there is None:
            files.replace(name, step.text.encode(), mode=step.mode, dir_fd=fd)
        else:
            os.chmod(name, step.mode, dir_fd=fd)
