"""Services that are carried from one host to another: their data, what is in the file, and a registry that is gone."""

from __future__ import annotations

import os
import socket
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appbox import owned_xattrs
from tests.ground.sandbox import BASE, Sandbox, snapshot

NOBODY = 0xFFFFFFFF


@contextmanager
def nobody_calls(host: str) -> Iterator[None]:
    """Listen where a registry was, and see that nobody connects."""
    name, _, port = host.partition(":")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((name, int(port)))
        listener.listen()
        listener.settimeout(0)
        yield
        with pytest.raises(BlockingIOError):
            listener.accept()


def fill(box: Sandbox, name: str = "web") -> None:
    """Write what a service would, as users of its container."""
    volume = box.current(name) / "data/data"
    base = volume.stat().st_uid - 33
    (volume / "mine").write_text("written")
    os.chown(volume / "mine", base + 33, base + 7)
    os.setxattr(volume / "mine", "user.note", b"kept")
    capability = struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, base)  # of the root of this user namespace
    os.setxattr(volume / "mine", "security.capability", capability)
    entries = [(1, 6, NOBODY), (2, 4, base + 12), (4, 4, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(volume / "sub", "system.posix_acl_access", acl)
    os.setxattr(volume / "sub", "system.posix_acl_default", acl)
    with (volume / "holes").open("wb") as file:
        file.truncate(1 << 24)
    os.chown(volume / "holes", base + 1000, base + 1000)
    os.mkfifo(volume / "pipe")
    os.chown(volume / "pipe", base, base)
    os.link(volume / "mine", volume / "also")


def data_of(box: Sandbox, name: str = "web", base: int = BASE) -> dict[str, tuple[object, ...]]:
    """Return everything about a service's data, owners as its container knows them."""
    top = box.current(name) / "data"
    found: dict[str, tuple[object, ...]] = {}
    for path, (mode, uid, gid, content, *_) in snapshot(top).items():
        info = (top / path).lstat()
        names = os.listxattr(top / path, follow_symlinks=False)
        values = {n: os.getxattr(top / path, n, follow_symlinks=False) for n in sorted(names)}
        xattrs = {n: owned_xattrs.shifted(n, value, lambda number: number - base) for n, value in values.items()}
        owner = (uid, gid) if path == "." else (int(str(uid)) - base, int(str(gid)) - base)
        found[path] = (mode, *owner, content, xattrs, 0 if path == "." else info.st_mtime_ns, info.st_nlink)
    return found


def members_of(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive if info.isfile()}  # type: ignore[union-attr]
