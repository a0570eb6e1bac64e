"""Unit files and the links that enable them. Only files that appbox made are ever read as ours, written or deleted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from appbox.errors import AppboxError
from appbox.host.facts import InitKind
from appbox.store import files, paths
from appbox.store.root import Root
from appbox.units.model import UnitFile, owner

_LIMIT: Final = 1 << 20

_SYSTEMD_PATH: Final = (
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Where else systemd looks (systemd.unit(5)): ours in /etc would hide a unit of that name."""


KINDS: Final[tuple[InitKind, ...]] = ("systemd", "openrc")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service's unit and its enabling link are, as seen from inside the root."""

    unit: str
    link_directory: str
    link: str
    target: str


def place(kind: InitKind, name: str) -> Place | None:
    """Return where the unit of a service belongs, None without an init system."""
    if kind == "systemd":
        unit = f"{paths.SYSTEMD_UNITS}/{name}.service"
        return Place(unit, f"{paths.SYSTEMD_UNITS}/multi-user.target.wants", f"{name}.service", unit)
    if kind == "openrc":
        unit = f"{paths.OPENRC_SCRIPTS}/{name}"
        return Place(unit, "/etc/runlevels/default", name, unit)
    return None


def read(root: Root, kind: InitKind, name: str) -> str | None:
    """Return the text of the service's unit file, None when there is none.

    Raises AppboxError when the name belongs to a unit that appbox did not make.
    """
    where = place(kind, name)
    if where is None:
        return None
    if kind == "systemd":
        _refuse_hidden(root, name)
    folder, _, leaf = where.unit.rpartition("/")
    try:
        with root.directory(folder) as fd:
            if files.link_target(leaf, fd) is not None:
                raise _foreign(where.unit, "it is a symlink", name)
            data = files.read_if_present(leaf, _LIMIT, fd)
    except FileNotFoundError:
        return None
    if data is None:
        return None
    text = data.decode("utf-8", "replace")
    if owner(text) != name:
        raise _foreign(where.unit, "it was not made by appbox", name)
    return text


def owned(root: Root, kind: InitKind, name: str) -> bool:
    """Return whether the unit file of this kind is there and was made by appbox for this service."""
    where = place(kind, name)
    data = root.read(where.unit, _LIMIT) if where else None
    return data is not None and owner(data.decode("utf-8", "replace")) == name


def written(root: Root, kind: InitKind, name: str) -> int:
    """Return when the service's unit file was written, in nanoseconds since 1970; 0 when there is none."""
    where = place(kind, name)
    if where is None:
        return 0
    try:
        fd = root.open(where.unit, os.O_PATH | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def _refuse_hidden(root: Root, name: str) -> None:
    for folder in _SYSTEMD_PATH:
        if root.exists(f"{folder}/{name}.service"):
            raise _foreign(f"{folder}/{name}.service", "a package brought it", name)
    script = f"{paths.OPENRC_SCRIPTS}/{name}"
    if root.exists(script) and not owned(root, "openrc", name):
        raise _foreign(script, "systemd would run it as a unit of that name", name)


def _foreign(path: str, why: str, name: str) -> AppboxError:
    return AppboxError(
        f"the unit name {name} is taken", where=path, why=why, hint="give the service another name, or remove that unit"
    )


def enabled(root: Root, kind: InitKind, name: str) -> bool:
    """Return whether the link is there that starts the service at boot."""
    where = place(kind, name)
    if where is None:
        return False
    try:
        with root.directory(where.link_directory) as fd:
            return files.link_target(where.link, fd) is not None
    except FileNotFoundError:
        return False


def write(root: Root, unit: UnitFile) -> None:
    """Write a unit file atomically and durably."""
    folder, _, leaf = unit.path.rpartition("/")
    root.make(folder)
    with root.directory(folder) as fd:
        files.replace(leaf, unit.text.encode(), mode=unit.mode, dir_fd=fd)


def remove(root: Root, kind: InitKind, name: str) -> bool:
    """Delete the service's unit file; return whether there was one. A foreign file raises AppboxError."""
    where = place(kind, name)
    if where is None or read(root, kind, name) is None:
        return False
    folder, _, leaf = where.unit.rpartition("/")
    with root.directory(folder) as fd:
        return files.remove(leaf, dir_fd=fd)


def enable(root: Root, kind: InitKind, name: str, *, on: bool) -> None:
    """Make or delete the link that starts the service at boot."""
    where = place(kind, name)
    if where is None:
        return
    if not on and not root.is_directory(where.link_directory):
        return
    root.make(where.link_directory)
    with root.directory(where.link_directory) as fd:
        if not on:
            files.remove(where.link, dir_fd=fd)
        elif files.exists(where.link, fd) and files.link_target(where.link, fd) is None:
            raise _foreign(os.path.join(where.link_directory, where.link), "it is no link", name)
        else:
            files.link(where.link, where.target, dir_fd=fd)
