"""What the upper layer of an overlay says beyond the lower one: everything added, changed or deleted. It only reads.

The upper layer belongs to a service that may be running and hostile. Each directory is opened by descriptor from the
one above it, nothing but directories and plain files is opened, and no symlink is followed. What vanishes while it is
looked at is left out.

A whiteout is a character device 0:0; a directory with the attribute `trusted.overlay.opaque`, or `user.overlay.opaque`
where it is an ordinary user's, hides the whole one below (kernel documentation, filesystems/overlayfs.rst). A file that
was opened for writing, or is above one that was, has been copied up: it is listed only where it differs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from appbox import owner

Change = Literal["added", "changed", "deleted"]

DEPTH: Final = 100
"""Levels of directories that are looked at; what is deeper is not, and is said not to be."""

_KINDS: Final = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
_CHUNK: Final = 1 << 18
_GONE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a write begins: `home` is the nearest directory around it that the image has.

    `top` is the name below `home` on the way to the write, "" for a change of `home` itself. `directory`: the service
    made a directory there, of this `owner` (container ids) and `mode`. `bare`: the image has nothing in `home`.
    """

    home: str
    top: str = ""
    directory: bool = False
    owner: tuple[int, int] = (0, 0)
    mode: int = 0o755
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """One path that a service has written; `path` is absolute in the container, bytes that are no text as surrogates.

    `kind` is what is there now, or was there if it is deleted. `size` are the bytes of a file or a symlink, and `was`
    those of before. `what` says how something differs that is there in both: type, content, owner, mode, xattr.
    """

    path: str
    change: Change
    kind: str
    place: Place
    size: int = 0
    was: int = 0
    what: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory of the upper layer: descriptors of it and of the lower one, None if the service made it, at `place`.

    `opaque`: what is in the lower one is not seen any more. `bare`: there is nothing in it.
    """

    upper: int
    lower: int | None
    path: str
    opaque: bool
    depth: int = 0
    place: Place | None = None
    bare: bool = False


class Upper:
    """Compares an open upper layer with the open lower one; `base` is the host's id of the container's root.

    `hidden` are paths that something is mounted on: they and what is below them are nobody's writes. `unseen` are
    directories that were too deep or could not be read.
    """

    def __init__(self, upper: int, lower: int, base: int, hidden: frozenset[str] = frozenset()) -> None:
        self._top = _Level(upper, lower, "", _is_opaque(upper), bare=_is_empty(lower))
        self._base, self._hidden = base, hidden
        # The runtime makes the directories on the way to a mount point where the image lacks them.
        self._ways = {path[:end] for path in hidden for end in range(1, len(path)) if path[end] == "/"}
        self.unseen: list[str] = []

    def writes(self) -> Iterator[Write]:
        """Yield every write, sorted within each directory; a directory comes before what is in it."""
        yield from self._attributes(self._top)
        yield from self._entries(self._top)

    def _entries(self, level: _Level) -> Iterator[Write]:
        names = _names(level.upper)
        if names is None:
            self.unseen.append(level.path or "/")
            return
        for name in names:
            if f"{level.path}/{name}" not in self._hidden:
                yield from self._entry(level, name)
        if level.opaque and level.lower is not None:
            for name in sorted({*(_names(level.lower) or ())} - {*names}):
                was = _look(level.lower, name)
                if was is not None and f"{level.path}/{name}" not in self._hidden:
                    yield self._deleted(level, name, was)

    def _entry(self, level: _Level, name: str) -> Iterator[Write]:
        now = _look(level.upper, name)
        was = _look(level.lower, name) if level.lower is not None else None
        if now is None:
            return
        if stat.S_ISCHR(now.st_mode) and now.st_rdev == 0:
            if was is not None:
                yield self._deleted(level, name, was)
        elif stat.S_ISDIR(now.st_mode):
            yield from self._directory(level, name, now, was)
        elif was is None:
            yield self._written(level, name, now)
        elif what := _differences(level, name, now, was):
            yield self._written(level, name, now, was, what)

    def _directory(self, level: _Level, name: str, now: os.stat_result, was: os.stat_result | None) -> Iterator[Write]:
        path = f"{level.path}/{name}"
        with contextlib.ExitStack() as stack:
            upper = _enter(stack, level.upper, name) if level.depth < DEPTH else None
            if upper is None:
                self.unseen.append(path)
            elif was is None or not stat.S_ISDIR(was.st_mode):
                inner = _Level(upper, None, path, True, level.depth + 1, self._place(level, name, now))
                made = self._written(level, name, now, was, ("type",) if was else ())
                yield from self._with_contents(made, self._entries(inner))
            else:
                lower = _enter(stack, level.lower, name) if level.lower is not None else None
                opaque, bare = level.opaque or _is_opaque(upper), lower is not None and _is_empty(lower)
                inner = _Level(upper, lower, path, opaque, level.depth + 1, bare=bare)
                yield from self._attributes(inner)
                yield from self._entries(inner)

    def _with_contents(self, made: Write, inside: Iterator[Write]) -> Iterator[Write]:
        """Yield a new directory and what is in it; nothing if it is only on the way to a mount point."""
        first = next(inside, None)
        if first is not None or made.path not in self._ways:
            yield made
        if first is not None:
            yield first
            yield from inside

    def _attributes(self, level: _Level) -> Iterator[Write]:
        """Yield the change of a directory itself that is in both layers."""
        if level.lower is None:
            return
        what = [*_attributes(os.fstat(level.upper), os.fstat(level.lower))]
        what += ["xattr"] if _xattrs(level.upper) != _xattrs(level.lower) else []
        if what:
            place = Place(level.path or "/", bare=level.bare)
            yield Write(level.path or "/", "changed", "directory", place, what=tuple(what))

    def _written(
        self,
        level: _Level,
        name: str,
        now: os.stat_result,
        was: os.stat_result | None = None,
        what: tuple[str, ...] = (),
    ) -> Write:
        change: Change = "added" if was is None else "changed"
        place = self._place(level, name, now)
        return Write(f"{level.path}/{name}", change, _kind(now), place, _size(now), _size(was), what)

    def _place(self, level: _Level, name: str, now: os.stat_result) -> Place:
        if level.place is not None:
            return level.place
        owner = (now.st_uid - self._base, now.st_gid - self._base)
        return Place(level.path or "/", name, stat.S_ISDIR(now.st_mode), owner, stat.S_IMODE(now.st_mode), level.bare)

    def _deleted(self, level: _Level, name: str, was: os.stat_result) -> Write:
        return Write(f"{level.path}/{name}", "deleted", _kind(was), Place(level.path or "/", name), 0, _size(was))


def _differences(level: _Level, name: str, now: os.stat_result, was: os.stat_result) -> tuple[str, ...]:
    """Return how what is no directory differs from what the image has there."""
    if stat.S_IFMT(now.st_mode) != stat.S_IFMT(was.st_mode) or now.st_rdev != was.st_rdev:
        return ("type",)
    found = [*_attributes(now, was)]
    if level.lower is not None and stat.S_ISLNK(now.st_mode):
        same = _target(level.upper, name) == _target(level.lower, name)
        return tuple(found) if same else ("content", *found)
    if level.lower is not None and stat.S_ISREG(now.st_mode):
        with contextlib.ExitStack() as stack:
            new, old = _file(stack, level.upper, name), _file(stack, level.lower, name)
            if new is None or old is None:
                return ()
            if now.st_size != was.st_size or not _same(new, old):
                found.insert(0, "content")
            if _xattrs(new) != _xattrs(old):
                found.append("xattr")
    return tuple(found)


def _names(fd: int) -> list[str] | None:
    """Return what is in an open directory, sorted; None when it cannot be read."""
    try:
        return sorted(os.listdir(fd))
    except OSError:
        return None


def _is_empty(fd: int) -> bool:
    """Tell whether nothing is in an open directory."""
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _look(fd: int | None, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def _enter(stack: contextlib.ExitStack, parent: int, name: str) -> int | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return None
    stack.callback(os.close, fd)
    return fd


def _file(stack: contextlib.ExitStack, parent: int, name: str) -> int | None:
    """Open a plain file for reading; None when it is none any more: a device must not even be opened."""
    try:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        stack.callback(os.close, place)
        if not stat.S_ISREG(os.fstat(place).st_mode):
            return None
        fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
    except OSError:
        return None
    stack.callback(os.close, fd)
    return fd


def _same(one: int, other: int) -> bool:
    """Tell whether two open files of the same size have the same bytes."""
    offset = 0
    while True:
        first, second = os.pread(one, _CHUNK, offset), os.pread(other, _CHUNK, offset)
        if first != second:
            return False
        if not first:
            return True
        offset += len(first)


def _target(fd: int, name: str) -> str:
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError:
        return ""


def _attributes(now: os.stat_result, was: os.stat_result) -> Iterator[str]:
    if (now.st_uid, now.st_gid) != (was.st_uid, was.st_gid):
        yield "owner"
    if stat.S_IMODE(now.st_mode) != stat.S_IMODE(was.st_mode):
        yield "mode"


def _xattrs(fd: int) -> dict[str, bytes]:
    """Return the attributes that belong to the file, without those of the overlay."""
    found, own = {}, _prefix()
    with contextlib.suppress(OSError):
        for name in os.listxattr(fd):
            if not name.startswith(("trusted.", own)):
                found[name] = os.getxattr(fd, name)
    return found


def _prefix() -> str:
    """Return how the overlay's own attributes begin: a user's are mounted with `userxattr`."""
    return "trusted.overlay." if owner.current() is None else "user.overlay."


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, f"{_prefix()}opaque") == b"y"
    except OSError:
        return False


def _kind(info: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(info.st_mode), "other")


def _size(info: os.stat_result | None) -> int:
    return info.st_size if info is not None and not stat.S_ISDIR(info.st_mode) else 0
