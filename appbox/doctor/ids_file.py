"""Giving users sub-ids: lines at the end of /etc/subuid and /etc/subgid, under the locks that shadow takes.

Those are of lckpwdf(3) and of shadow's own commonio_lock(): a file FILE.lock with the number of its holder, made by a
link. A file is replaced by one rename and keeps its mode and owner; what it was stays as `FILE-`, as shadow does it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from typing import Final

from appbox import subids
from appbox.doctor.values import GiveIds
from appbox.errors import AppboxError
from appbox.host.facts import IdRange
from appbox.store import files
from appbox.store.root import Root

_PATIENCE: Final = 15.0
"""Seconds that lckpwdf(3) waits."""
_PAUSE: Final = 0.1
_LIMIT: Final = 4 << 20


def give(root: Root, wanted: GiveIds) -> None:
    """Append the lines of `wanted`. AppboxError, and nothing is changed, if a range is somebody's by now."""
    with root.directory("/etc") as etc, _password_lock(etc):
        for file, ids in (("subuid", wanted.uids), ("subgid", wanted.gids)):
            if ids is not None:
                with _lock(etc, file):
                    _append(etc, file, wanted.owner, ids)


def _append(etc: int, file: str, owner: str, ids: IdRange) -> None:
    path = f"/etc/{file}"
    try:
        info = os.lstat(file, dir_fd=etc)
    except FileNotFoundError:
        files.create(file, b"", mode=0o644, dir_fd=etc)
        info = os.lstat(file, dir_fd=etc)
    if not stat.S_ISREG(info.st_mode):
        raise AppboxError("is not a regular file, and so left alone", where=path, hint="add the line by hand")
    data = files.read(file, _LIMIT, etc)
    table = subids.table(data.decode("utf-8", "replace"), path)
    other = next((one for one in table.entries if one.overlaps(ids)), None)
    if other is not None:
        why = f"line {other.line} has given it to {other.owner} meanwhile"
        raise AppboxError(
            f"the range from {ids.base} on is not free", where=path, why=why, hint="run appbox doctor again"
        )
    line = f"{owner}:{ids.base}:{ids.size}\n".encode()
    whole = data if not data or data.endswith(b"\n") else data + b"\n"
    kept = (info.st_uid, info.st_gid)
    files.replace(f"{file}-", data, mode=stat.S_IMODE(info.st_mode), dir_fd=etc, owner=kept)
    files.replace(file, whole + line, mode=stat.S_IMODE(info.st_mode), dir_fd=etc, owner=kept)


@contextlib.contextmanager
def _password_lock(etc: int) -> Iterator[None]:
    """Hold the lock of lckpwdf(3)."""
    fd = os.open(".pwd.lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=etc)
    try:
        for _ in _tries():
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
            else:
                break
        else:
            raise AppboxError("the password files are locked by another program", where="/etc/.pwd.lock")
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _lock(etc: int, file: str) -> Iterator[None]:
    """Hold the lock that useradd and usermod take for a file."""
    own, lock = f"{file}.{os.getpid()}", f"{file}.lock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(own, dir_fd=etc)
    files.create(own, f"{os.getpid()}\0".encode(), mode=0o600, dir_fd=etc)
    try:
        for _ in _tries():
            try:
                os.link(own, lock, src_dir_fd=etc, dst_dir_fd=etc)
            except FileExistsError:
                _drop_if_stale(etc, lock)
            else:
                break
        else:
            raise AppboxError("is locked by another program", where=f"/etc/{file}", hint=f"see /etc/{lock}")
    finally:
        os.unlink(own, dir_fd=etc)
    try:
        yield
    finally:
        os.unlink(lock, dir_fd=etc)


def _tries() -> Iterator[None]:
    until = time.monotonic() + _PATIENCE
    while True:
        yield
        if time.monotonic() > until:
            return
        time.sleep(_PAUSE)


def _drop_if_stale(etc: int, lock: str) -> None:
    """Remove the lock of a process that is gone, as shadow does."""
    with contextlib.suppress(FileNotFoundError):
        number = files.read(lock, 64, etc).rstrip(b"\0\n")
        if number.isdigit() and not os.path.exists(f"/proc/{int(number)}"):
            os.unlink(lock, dir_fd=etc)
