"""What a service borrows of its host, looked up: devices, an init, the file of a time zone. It only reads.

Everything is looked for in the root that appbox works on, live or not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from appbox import owner, reaper, timezone
from appbox.devices import NUMBERS, Found, Node, parse
from appbox.errors import Refused
from appbox.host import owners, process, trusted
from appbox.host.facts import IdRange
from appbox.host.inside import read_inside
from appbox.host.owners import Whose
from appbox.locked import Borrowed
from appbox.manifest import Manifest
from appbox.oci import elf
from appbox.store.root import Root

_NODES: Final = 256
"""Devices of one directory that a service is given."""

_NOBODY: Final = IdRange(0, 0)


def look_up(root: Root, manifest: Manifest, architecture: str) -> Borrowed:
    """Return what the manifest asks the host for; what is missing is said in the value, not raised.

    Refused for a path that somebody else than root could lead elsewhere.
    """
    process_ = manifest.process
    return Borrowed(
        devices=tuple(_device(root, parse(device).source) for device in manifest.security.devices),
        reaper=find_reaper(root, architecture) if process_.init else "",
        zone=_zone(root, process_.timezone) if process_.timezone else None,
    )


def _device(root: Root, path: str) -> Found:
    with trusted.walk(root.fd, path, _NOBODY) as place:
        if place.found is not None and stat.S_ISDIR(place.found.st_mode):
            return _directory(path, place)
        node = _node(path, place.found) if place.found is not None else None
        if node is not None and place.found is not None and not _usable(path, place.found, place.whose):
            return Found(problem=f"you may not open {path}, which is not yours and has the mode {node.mode:04o}")
    if node is not None:
        return Found((node,))
    if place.found is not None:
        return Found(problem=f"{path} is not a device on this host")
    if not root.live and path in NUMBERS:
        return Found((Node(path, "c", *NUMBERS[path]),))
    return Found(problem=f"this host has no {path}" if root.live else f"the numbers of {path} are not known here")


def _directory(path: str, place: trusted.Place) -> Found:
    fd = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.parent)
    try:
        entries = sorted(os.listdir(fd))
        seen = [(f"{path}/{name}", info, owners.at(name, fd, info)) for name, info in _looked(entries, fd)]
        found = [_node(path, info) for path, info, whose in seen if _usable(path, info, whose)]
    finally:
        os.close(fd)
    nodes = tuple(node for node in found if node is not None)
    if not nodes or len(nodes) > _NODES:
        return Found(problem=f"{path} has {len(nodes) or 'no'} devices in it")
    return Found(nodes)


def _looked(names: list[str], fd: int) -> Iterator[tuple[str, os.stat_result]]:
    return ((name, os.lstat(name, dir_fd=fd)) for name in names)


def _usable(path: str, info: os.stat_result, whose: Whose) -> bool:
    """Return whether a service may open a device: root's may open all, an ordinary user's what the user may."""
    return owner.current() is None or owners.usable(path, info, whose)


def _node(path: str, info: os.stat_result) -> Node | None:
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else None
    if kind is None:
        return None
    number = info.st_rdev
    mode = stat.S_IMODE(info.st_mode)
    return Node(path, "c" if kind == "c" else "b", os.major(number), os.minor(number), mode, info.st_uid, info.st_gid)


def find_reaper(root: Root, architecture: str) -> str:
    """Return the first init that is static, of this architecture, and that only root can have put there."""
    for folder in (*process.SEARCH, *reaper.FOLDERS):
        for name in reaper.PROGRAMS:
            path = f"{folder}/{name}"
            if _is_usable(root, path, architecture):
                return path
    return ""


def _is_usable(root: Root, path: str, architecture: str) -> bool:
    try:
        fd = root.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    try:
        info = os.fstat(fd)
        if (
            not stat.S_ISREG(info.st_mode)
            or owners.user(info, fd) != 0
            or info.st_mode & 0o022
            or not info.st_mode & 0o001
        ):
            return False
        program = elf.program(os.pread(fd, elf.HEAD, 0))
    finally:
        os.close(fd)
    return program is not None and program.static and program.architecture == architecture


def _zone(root: Root, name: str) -> bytes | None:
    path = timezone.LOCALTIME if name == "host" else f"{timezone.ZONES}/{name}"
    try:
        data = read_inside(root.fd, path, timezone.LIMIT)
    except Refused:
        return None
    return data if data is not None and data.startswith(timezone.MAGIC) else None
