"""What a file system says about a tree, as values that can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Thing:
    """Everything that a file system says about a name; `same_as` is the first name of the same inode."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    device: int
    link: str
    digest: str
    same_as: str
    xattrs: tuple[tuple[str, bytes], ...]


def things(root: Path) -> dict[str, Thing]:
    """Return everything below a directory, and the directory itself as "."."""
    first: dict[int, str] = {}
    return {name: thing(root / name, name, first) for name in sorted(names(root))}


def names(root: Path) -> Iterator[str]:
    """Yield every path below a directory, and "."."""
    yield "."
    for top, below, files in os.walk(root):
        for name in below + files:
            yield os.path.relpath(os.path.join(top, name), root)


def thing(path: Path, name: str, first: dict[int, str]) -> Thing:
    """Return what a path is; `first` remembers the first name of each inode."""
    status = os.lstat(path)
    regular = stat.S_ISREG(status.st_mode)
    is_link = stat.S_ISLNK(status.st_mode)
    return Thing(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if regular else 0,
        mtime=status.st_mtime_ns,
        device=status.st_rdev,
        link=os.readlink(path) if is_link else "",
        digest=hashlib.sha256(path.read_bytes()).hexdigest() if regular else "",
        same_as=first.setdefault(status.st_ino, name),
        xattrs=tuple((key, os.getxattr(path, key)) for key in sorted(os.listxattr(path, follow_symlinks=False))),
    )
