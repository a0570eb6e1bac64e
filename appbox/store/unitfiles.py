"""Unit files and the links that enable them. Only files that appbox made are ever read as ours, written or deleted."""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Iterable
from typing import Final

from appbox.errors import AppboxError
from appbox.host import owners
from appbox.host.facts import InitKind
from appbox.store import crontab, files, paths
from appbox.store.root import Root
from appbox.units import places
from appbox.units.files import Link, UnitFile, owner

_LIMIT: Final = 1 << 20

_SYSTEMD_PATH: Final = (
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Where else systemd looks (systemd.unit(5)): ours in /etc would hide a unit of that name."""

MASKED: Final = "the unit is masked"

KINDS: Final[tuple[InitKind, ...]] = ("systemd", "openrc")


def read(root: Root, kind: InitKind, name: str) -> dict[str, str]:
    """Return the texts of the files that a service has for its init system, by path.

    Raises AppboxError when a name belongs to a file that appbox did not make.
    """
    if kind == "systemd":
        _refuse_hidden(root, name)
    texts: dict[str, str | None] = {}
    by_folder: dict[str, list[str]] = {}
    for path in places.files_of(kind, name):
        by_folder.setdefault("" if crontab.split(path) else path.rpartition("/")[0], []).append(path)
    for folder, found in by_folder.items():
        if not folder:
            texts |= {path: crontab.read(root, name) for path in found}
            continue
        with contextlib.suppress(FileNotFoundError), root.directory(folder) as fd:
            texts |= {path: _read(fd, path, name) for path in found}
    return {path: text for path, text in texts.items() if text is not None}


def read_file(root: Root, path: str, name: str) -> str | None:
    """Return the text of one file of a service, None when there is none.

    Raises AppboxError when it belongs to somebody else, or when the unit is masked.
    """
    if crontab.split(path):
        return crontab.read(root, name)
    try:
        with root.directory(path.rpartition("/")[0]) as folder:
            return _read(folder, path, name)
    except FileNotFoundError:
        return None


def _read(folder: int, path: str, name: str) -> str | None:
    """Return the text of a file in an open folder as `read_file` does."""
    leaf = path.rpartition("/")[2]
    try:
        kind = os.lstat(leaf, dir_fd=folder).st_mode
        if stat.S_ISDIR(kind):
            raise _foreign(path, "it is a directory", name)
        target = os.readlink(leaf, dir_fd=folder) if stat.S_ISLNK(kind) else None
        data = files.read(leaf, _LIMIT, folder) if target is None else b""
    except FileNotFoundError:
        return None
    if target == "/dev/null" or (not data and target is None and leaf.endswith((".service", ".timer"))):
        # systemd takes a link to nothing and an empty file for the same (systemd.unit(5)).
        why, hint = "it leads to /dev/null" if target else "it is empty", f"systemctl unmask {leaf}, or remove it"
        raise AppboxError(MASKED, where=path, why=why, hint=hint)
    if target is not None:
        raise _foreign(path, "it is a symlink", name)
    text = data.decode("utf-8", "replace")
    if owner(text) != name:
        raise _foreign(path, "it was not made by appbox", name)
    return text


def modes(root: Root, found: Iterable[str]) -> dict[str, int]:
    """Return the modes of files of the init system, -1 for one that is not root's; a part of a table has none."""
    return {path: _mode(root, path) for path in found if not crontab.split(path)}


def _mode(root: Root, path: str) -> int:
    fd = root.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        info = os.fstat(fd)
        user = owners.user(info, fd)
    finally:
        os.close(fd)
    return stat.S_IMODE(info.st_mode) if user in {0, os.geteuid()} else -1


def drop_ins(root: Root, name: str) -> list[str]:
    """Return the directories whose files systemd merges into a service's unit (systemd.unit(5)), if they have any."""
    found = [f"{folder}/{name}.service.d" for folder in (paths.SYSTEMD_UNITS, *_SYSTEMD_PATH[:2])]
    return [folder for folder in found if any(leaf.endswith(".conf") for leaf in _listed(root, folder))]


def overrides(root: Root, name: str) -> list[str]:
    """Return the file of settings that OpenRC reads before a service's script (openrc-run(8)), if there is one."""
    return [path for path in (f"{paths.OPENRC_SETTINGS}/{name}",) if root.exists(path)]


def other_runlevels(root: Root, name: str) -> list[str]:
    """Return the runlevels of OpenRC that a service is in besides the one that appbox puts it in, sorted."""
    folder, _, own = paths.RUNLEVEL.rpartition("/")
    levels = [level for level in _listed(root, folder) if level != own]
    return [level for level in levels if root.exists(f"{folder}/{level}/{name}")]


def _listed(root: Root, folder: str) -> list[str]:
    """Return the names in a directory, sorted; none where there is no directory."""
    try:
        with root.directory(folder) as fd:
            return sorted(os.listdir(fd))
    except (FileNotFoundError, NotADirectoryError):
        return []


def owned(root: Root, kind: InitKind, name: str) -> bool:
    """Return whether a file of this kind is there that appbox made for this service."""
    found = (root.read(path, _LIMIT) for path in places.files_of(kind, name))
    return any(data is not None and owner(data.decode("utf-8", "replace")) == name for data in found)


def written(root: Root, kind: InitKind, name: str) -> int:
    """Return when the service's own unit file was written, in nanoseconds since 1970; 0 when there is none."""
    for path in places.files_of(kind, name)[:1]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            fd = root.open(path, os.O_PATH | os.O_NOFOLLOW)
            try:
                return os.fstat(fd).st_mtime_ns
            finally:
                os.close(fd)
    return 0


def is_unit(root: Root, kind: InitKind, name: str) -> bool:
    """Return whether the host has a unit or an init script of that name, whosever it is.

    Without an init system nobody can say.
    """
    script = f"{paths.OPENRC_SCRIPTS}/{name}"
    if kind == "systemd":
        folders = (paths.SYSTEMD_UNITS, *_SYSTEMD_PATH)
        return any(root.exists(f"{folder}/{name}.service") for folder in folders) or root.exists(script)
    return kind == "none" or root.exists(script)


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


def enabled(root: Root, kind: InitKind, name: str) -> frozenset[Link]:
    """Return the links that are there of those that may start the service at boot."""
    found = ((link.path, link_target(root, link.path)) for link in places.links_of(kind, name))
    return frozenset(Link(path, target) for path, target in found if target is not None)


def link_target(root: Root, path: str) -> str | None:
    """Return where a link leads, however that is written; None when there is none."""
    folder, _, leaf = path.rpartition("/")
    try:
        with root.directory(folder) as fd:
            target = files.link_target(leaf, fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if target is None else posixpath.normpath(posixpath.join(folder, target))


def write(root: Root, unit: UnitFile) -> None:
    """Write a unit file atomically and durably.

    One that had only another mode, or other words about snapshots, keeps its time: a service need not start again for
    it, and `written` says when it has to.
    """
    if job := crontab.split(unit.path):
        crontab.write(root, job, unit.text)
        return
    folder, _, leaf = unit.path.rpartition("/")
    root.make(folder)
    with root.directory(folder) as fd:
        before = _time_of(leaf, unit.text.encode(), fd)
        files.replace(leaf, unit.text.encode(), mode=unit.mode, dir_fd=fd)
        if before:
            os.utime(leaf, ns=before, dir_fd=fd, follow_symlinks=False)


def _time_of(leaf: str, data: bytes, folder: int) -> tuple[int, int] | None:
    """Return the times of a file that says the same of its service, in nanoseconds since 1970; None of any other."""
    try:
        info = os.lstat(leaf, dir_fd=folder)
        there = files.read_if_present(leaf, _LIMIT, folder) if stat.S_ISREG(info.st_mode) else None
        same = there is not None and _telling(there) == _telling(data)
    except OSError:
        return None
    return (info.st_atime_ns, info.st_mtime_ns) if same else None


def _telling(data: bytes) -> list[bytes]:
    """Return the lines of a unit that a service would notice.

    One has a timer of snapshots started beside it. A user's has its values in a comment (`units.declared`): those that
    concern the service stand in other lines, too.
    """
    lines = (line for line in data.splitlines() if not line.startswith(b"# {"))
    return [line for line in lines if not (line[:6] == b"Wants=" and line.endswith(b":snapshot.timer"))]


def remove(root: Root, kind: InitKind, name: str) -> bool:
    """Delete all files of the service; return whether there were any. A foreign file raises AppboxError."""
    found = read(root, kind, name)
    for path in found:
        remove_file(root, path)
    return bool(found)


def remove_file(root: Root, path: str) -> None:
    """Delete one file that `read` told of."""
    if job := crontab.split(path):
        crontab.write(root, job, "")
        return
    folder, _, leaf = path.rpartition("/")
    with root.directory(folder) as fd:
        files.remove(leaf, dir_fd=fd)


def enable(root: Root, kind: InitKind, name: str, wanted: Link | None) -> None:
    """Make the link that starts the service at boot, and delete all others; None deletes every one."""
    for link in places.links_of(kind, name):
        folder, _, leaf = link.path.rpartition("/")
        if link != wanted and not root.is_directory(folder):
            continue
        root.make(folder)
        with root.directory(folder) as fd:
            if link != wanted:
                files.remove(leaf, dir_fd=fd)
            elif files.exists(leaf, fd) and files.link_target(leaf, fd) is None:
                raise _foreign(link.path, "it is no link", name)
            else:
                files.link(leaf, link.target, dir_fd=fd)
