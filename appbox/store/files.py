"""Small durable file operations relative to directory descriptors.

Every function leaves either the old state or the new one, complete: new bytes are written beside their place, made
durable and renamed. Errors are the plain `OSError`s of the system calls; the command line puts them into words.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from appbox.errors import AppboxError

_BLOCK = 1 << 20

TEMPORARY = ".appbox-tmp"
"""Suffix of a file that is not yet in its place; whoever holds the lock may delete it."""


@contextlib.contextmanager
def directory(path: str | bytes, dir_fd: int | None = None) -> Iterator[int]:
    """Open a directory, never through a final symlink, and close it afterwards."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def read(name: str, limit: int, dir_fd: int | None = None) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

    Raises OSError (FileNotFoundError, ELOOP for a symlink…) or AppboxError when it is no regular file or is larger.
    """
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=dir_fd)
    return read_descriptor(fd, limit, where=name)


def read_descriptor(fd: int, limit: int, *, where: str) -> bytes:
    """Return the bytes of an open regular file of at most `limit` bytes, and close it."""
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise AppboxError("is not a regular file", where=where)
        data = read_regular(fd, info.st_size, limit)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise AppboxError(f"is larger than {limit} bytes", where=where)
    return data


def read_regular(fd: int, size: int, limit: int) -> bytes:
    """Return what an open regular file holds, or the first `limit` + 1 bytes of it; `size` is what fstat(2) says.

    A plan of a thousand services reads ten thousand small files. Python's own objects take six more system calls for
    each, two of which map and unmap `limit` bytes: 28 µs a file instead of 5.
    """
    # One byte more than there should be: a read that comes back short has met the end. Files of /proc say 0.
    data = os.read(fd, min(size, limit) + 1)
    while data and len(data) != size and len(data) <= limit:
        more = os.read(fd, min(limit + 1 - len(data), _BLOCK))
        if not more:
            break
        data += more
    return data


def read_if_present(name: str, limit: int, dir_fd: int | None = None) -> bytes | None:
    """Return what `read` returns, or None when there is no such file."""
    try:
        return read(name, limit, dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None


def create(
    name: str, data: bytes, *, mode: int, dir_fd: int, owner: tuple[int, int] = (0, 0), durable: bool = True
) -> None:
    """Create a new file with exactly `mode` and `owner`; FileExistsError when the name is taken."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        info = os.fstat(fd)
        if owner != (info.st_uid, info.st_gid):
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)  # after chown, which clears setuid
        if durable:
            os.fsync(fd)


def replace(name: str, data: bytes, *, mode: int, dir_fd: int, owner: tuple[int, int] = (0, 0)) -> None:
    """Write a file atomically and durably: readers see the old bytes or the new ones."""
    temporary = f".{name}{TEMPORARY}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=dir_fd)
    try:
        create(temporary, data, mode=mode, dir_fd=dir_fd, owner=owner)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        if isinstance(error, OSError) and error.filename in {None, temporary}:
            error.filename = _path(name, dir_fd)  # a write says no name, and that of the temporary tells nobody where
        raise
    os.fsync(dir_fd)


def _path(name: str, dir_fd: int) -> str:
    """Return where a name of an open directory is on the host, as far as that can be told."""
    try:
        return os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name)
    except OSError:
        return name


def set_aside(name: str, *, dir_fd: int) -> str:
    """Keep what has a name as `NAME.broken` (or `.broken.2` and so on), durably, and return what it is called then.

    A file keeps its own name, too, until it is replaced; anything else loses it.
    """
    info = os.lstat(name, dir_fd=dir_fd)
    number, aside = 1, f"{name}.broken"
    while exists(aside, dir_fd):
        if os.path.samestat(info, os.lstat(aside, dir_fd=dir_fd)):
            return aside  # a run that was killed had begun
        number += 1
        aside = f"{name}.broken.{number}"
    if stat.S_ISREG(info.st_mode):
        os.link(name, aside, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    else:
        os.rename(name, aside, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    os.fsync(dir_fd)
    return aside


def link(name: str, target: str, *, dir_fd: int, durable: bool = True) -> None:
    """Make `name` a symlink to `target`, replacing a symlink of that name atomically and durably.

    Not `durable`: the caller syncs the file system before anybody can see the link.
    """
    temporary = f".{name}{TEMPORARY}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=dir_fd)
    os.symlink(target, temporary, dir_fd=dir_fd)
    try:
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    if durable:
        os.fsync(dir_fd)


def remove(name: str, *, dir_fd: int) -> bool:
    """Delete a file or symlink durably; return whether there was one."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    os.fsync(dir_fd)
    return True


def link_target(name: str, dir_fd: int | None = None) -> str | None:
    """Return where a symlink points, or None when there is no symlink of that name."""
    try:
        return os.readlink(name, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == 22:  # EINVAL: there is something, and it is no symlink
            return None
        raise


def exists(name: str, dir_fd: int | None = None) -> bool:
    """Return whether there is anything of that name; a dangling symlink counts."""
    try:
        os.lstat(name, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
