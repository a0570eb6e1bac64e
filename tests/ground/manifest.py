"""The mtree manifest of a tree that is on disk, made in the plainest way: what a recorded one has to be equal to."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from appbox.oci import mtree
from appbox.oci.mtree import Node
from appbox.oci.tar import Kind

KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}


def nodes(root: Path) -> list[Node]:
    """Return everything below `root`, sorted."""
    return sorted((_node(path, name) for path, name in _walk(os.fsencode(root))), key=lambda n: mtree.order(n.path))


def lines(root: Path) -> list[bytes]:
    """Return the manifest of `root`."""
    return [mtree.HEADER, *map(mtree.line, nodes(root))]


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield root, b""
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(folder, name)
            yield path, os.path.relpath(path, root)


def _node(path: bytes, name: bytes) -> Node:
    status = os.lstat(path)
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    is_file, is_device = kind is Kind.FILE, kind in (Kind.CHAR, Kind.BLOCK)
    content = b""
    if is_file:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
    follow = kind in (Kind.FILE, Kind.DIRECTORY)
    return Node(
        path=name,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        size=status.st_size if is_file else 0,
        digest=content,
        link=os.readlink(path) if kind is Kind.SYMLINK else b"",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
        nlink=0 if kind is Kind.DIRECTORY else status.st_nlink,
        xattrs=tuple(sorted((x, os.getxattr(path, x)) for x in os.listxattr(path) if x != "security.selinux"))
        if follow
        else (),
    )
