"""A new file system for each run. On one that is in use, files are slower to make the more were removed a short while
ago: ext4 looks at each inode that was freed in the last minute before it takes the next, and every run would pay for
the removal of the one before."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Failed

KIND = "ext4"
_SIZE = 16 << 30
"""Bytes; only what is written takes room."""


@contextlib.contextmanager
def empty(backing: Path) -> Iterator[Path]:
    """Yield a directory that is an empty file system in the file `backing`, which is made when it is missing.

    The loop device goes around the page cache of the file system that `backing` is on, so that nothing is kept twice.
    """
    with backing.open("ab") as file:
        file.truncate(_SIZE)
    # Tables of inodes are neither filled beforehand nor in the background: that would disturb who is measured.
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", str(backing))
    place = backing.with_name(f"{backing.name}.mounted")
    place.mkdir(exist_ok=True)
    device = _run("losetup", "--find", "--show", "--direct-io=on", str(backing))
    try:
        _run("mount", "-t", KIND, "-o", "noinit_itable", device, str(place))
        try:
            yield place
        finally:
            _run("umount", str(place))
    finally:
        _run("losetup", "--detach", device)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"{' '.join(words)} → {done.returncode}\n{done.stderr}"
        raise Failed(msg)
    return done.stdout.strip()
