"""Things that take long to make and are kept: each made once, whole or not at all. What they are is not known here.

Everything is below one directory, `/var/cache/appbox-dev` or `$APPBOX_DEV_CACHE`. A kept thing is a directory that
appears by one rename: a build that was killed leaves nothing but a temporary name, which the next build sweeps away.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def root() -> Path:
    """Return the cache directory; it need not exist."""
    return Path(os.environ.get("APPBOX_DEV_CACHE") or "/var/cache/appbox-dev")


def key(*parts: object) -> str:
    """Return 12 hex digits that stand for `parts` (JSON data)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def say(text: str) -> None:
    """Tell the person at the terminal what takes time."""
    print(f"ground: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that guards the making of `path`; processes wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new empty directory beside `path` that takes the place of `path` when the block ends without an error.

    The caller holds the lock of `path`.
    """
    fresh, old = (path.parent / f".{path.name}.{suffix}" for suffix in ("new", "old"))
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(mode=0o755)
    try:
        yield fresh
        if path.exists():
            path.rename(old)
        fresh.rename(path)
    finally:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Yield an empty directory beside what is kept (so on the same file system), which is gone afterwards.

    What processes that were killed have left there is removed first.
    """
    place = root() / "scratch"
    place.mkdir(parents=True, exist_ok=True)
    for leftover in place.iterdir():
        if not is_alive(leftover.name):
            shutil.rmtree(leftover, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{name}.{os.getpid()}.", dir=place))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def is_alive(name: str) -> bool:
    """Tell whether the process runs whose number is the second part of a name that `scratch` has given."""
    return Path(f"/proc/{name.split('.')[1]}").exists()


def forget_others(path: Path, prefix: str) -> None:
    """Remove the siblings of `path` whose names start with `prefix`: what an older recipe made."""
    for sibling in path.parent.glob(f"{prefix}*"):
        if sibling != path and sibling.is_dir():
            shutil.rmtree(sibling, ignore_errors=True)
