"""What Python's os module lacks: openat2, renameat2, syncfs, fchmodat2, mounts, and mallopt. The only user of ctypes.

Every function raises OSError with errno as the kernel gave it; ENOSYS means a kernel that is too old, which the
caller puts into words. Paths may be str or bytes and must not hold NUL, which raises ValueError.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from typing import Final

RESOLVE_NO_XDEV: Final = 0x01
"""Never cross a mount point, bind mounts included (EXDEV)."""
RESOLVE_NO_MAGICLINKS: Final = 0x02
"""Never follow the links of /proc (ELOOP)."""
RESOLVE_NO_SYMLINKS: Final = 0x04
"""Never follow a symlink (ELOOP)."""
RESOLVE_BENEATH: Final = 0x08
"""Never leave the starting directory (EXDEV)."""
RESOLVE_IN_ROOT: Final = 0x10
"""The starting directory is `/` for absolute paths, for symlinks and for `..`."""

RENAME_NOREPLACE: Final = 1
"""Fail with EEXIST instead of replacing."""
RENAME_EXCHANGE: Final = 2
"""Swap both names in one step; both must exist."""

AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000

MOUNT_ATTR_RDONLY: Final = 0x01
MOUNT_ATTR_NOSUID: Final = 0x02
MOUNT_ATTR_NODEV: Final = 0x04
MOUNT_ATTR_NOEXEC: Final = 0x08

MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

CLONE_FS: Final = 0x0000_0200
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUSER: Final = 0x1000_0000

# One number on every architecture: they were added after the numbers had been unified in Linux 5.1.
_NR_OPENAT2: Final = 437
_NR_OPEN_TREE: Final = 428
_NR_MOVE_MOUNT: Final = 429
_NR_MOUNT_SETATTR: Final = 442
_NR_FCHMODAT2: Final = 452
# renameat2 is older than that, and musl has no function for it.
_NR_RENAMEAT2: Final = {
    "x86_64": 316,
    "aarch64": 276,
    "riscv64": 276,
    "loongarch64": 276,
    "armv7l": 382,
    "i686": 353,
    "ppc64le": 357,
    "s390x": 347,
}

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_SIGKILL: Final = 9

_TIME_ERROR: Final = 5
_TIMEX_SIZE: Final = 512
"""More than struct timex has on any architecture (208 bytes on 64 bits); all zeroes: nothing is asked to change."""

_M_ARENA_MAX: Final = -8
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MMAP_THRESHOLD_MAX: Final = 32 << 20
"""The most that glibc takes (DEFAULT_MMAP_THRESHOLD_MAX of 64-bit machines); it refuses more."""

_RACES: Final = 64
"""Attempts at a path that others are renaming: the kernel gives EAGAIN when it cannot tell that `..` stayed inside."""

_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_EMPTY_PATHS: Final = 0x04 | 0x40
"""MOVE_MOUNT_F_EMPTY_PATH and MOVE_MOUNT_T_EMPTY_PATH: both descriptors are what is meant themselves."""
_MOVE_MOUNT_BENEATH: Final = 0x200

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_SIZE: Final = ctypes.c_size_t(ctypes.sizeof(_OpenHow))


class _MountAttr(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_ATTR_SIZE: Final = ctypes.c_size_t(ctypes.sizeof(_MountAttr))


def openat2(dir_fd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `dir_fd` under the RESOLVE_* rules and return the descriptor, always close-on-exec.

    See openat2(2), Linux 5.6. `mode` must be 0 unless `flags` create something (EINVAL).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = _path(path)
    for _ in range(_RACES):
        fd = _syscall(ctypes.c_long(_NR_OPENAT2), ctypes.c_int(dir_fd), name, ctypes.byref(how), _HOW_SIZE)
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise _error(code, path)


def renameat2(old_dir: int, old: str | bytes, new_dir: int, new: str | bytes, flags: int) -> None:
    """Rename with RENAME_NOREPLACE or RENAME_EXCHANGE; EINVAL when the file system cannot. See renameat2(2)."""
    number = _NR_RENAMEAT2.get(os.uname().machine)
    if number is None:
        raise _error(errno.ENOSYS, old)
    done = _syscall(
        ctypes.c_long(number),
        ctypes.c_int(old_dir),
        _path(old),
        ctypes.c_int(new_dir),
        _path(new),
        ctypes.c_uint(flags),
    )
    if done < 0:
        raise _error(ctypes.get_errno(), old, new)


def clone_mount(fd: int) -> int:
    """Return a descriptor of a new mount of what `fd` refers to; nobody sees it, and closing it unmounts it.

    See open_tree(2), Linux 5.2.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH
    tree = _syscall(ctypes.c_long(_NR_OPEN_TREE), ctypes.c_int(fd), b"", ctypes.c_uint(flags))
    if tree < 0:
        raise _error(ctypes.get_errno(), "")
    return int(tree)


def set_mount_attributes(mount: int, attributes: int) -> None:
    """Set MOUNT_ATTR_* of a mount that `clone_mount` made. See mount_setattr(2), Linux 5.12."""
    wanted = _MountAttr(attributes, 0, 0, 0)
    done = _syscall(
        ctypes.c_long(_NR_MOUNT_SETATTR),
        ctypes.c_int(mount),
        b"",
        ctypes.c_uint(AT_EMPTY_PATH | AT_RECURSIVE),
        ctypes.byref(wanted),
        _ATTR_SIZE,
    )
    if done < 0:
        raise _error(ctypes.get_errno(), "")


def attach_mount(mount: int, target: int, *, beneath: bool) -> None:
    """Attach a mount that `clone_mount` made at what `target` refers to, in the calling thread's mount namespace.

    `beneath` puts it below the mount that is there (Linux 6.5; EINVAL before), which then hides it until it is
    unmounted. See move_mount(2).
    """
    flags = _MOVE_MOUNT_EMPTY_PATHS | (_MOVE_MOUNT_BENEATH if beneath else 0)
    number = ctypes.c_long(_NR_MOVE_MOUNT)
    if _syscall(number, ctypes.c_int(mount), b"", ctypes.c_int(target), b"", ctypes.c_uint(flags)) < 0:
        raise _error(ctypes.get_errno(), "")


def unmount(path: str | bytes, flags: int) -> None:
    """Unmount the uppermost mount at `path`. See umount2(2)."""
    if _libc.umount2(_path(path), ctypes.c_int(flags)) != 0:
        raise _error(ctypes.get_errno(), path)


def enter_mounts(namespace: int) -> None:
    """Move the calling thread, alone, into a mount namespace: its root and working directory are then that one's.

    The thread must not be the process's first one and has to end there. See setns(2) and unshare(2).
    """
    if (
        _libc.unshare(ctypes.c_int(CLONE_FS)) != 0
        or _libc.setns(ctypes.c_int(namespace), ctypes.c_int(CLONE_NEWNS)) != 0
    ):
        raise _error(ctypes.get_errno(), "")


def unshare(flags: int) -> None:
    """Give this process namespaces of its own, CLONE_NEW* each. See unshare(2)."""
    if _libc.unshare(ctypes.c_int(flags)) != 0:
        raise _error(ctypes.get_errno(), "")


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that made it ends. See prctl(2), PR_SET_PDEATHSIG."""
    if _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(_SIGKILL), 0, 0, 0) != 0:
        raise _error(ctypes.get_errno(), "")


def be_traceable() -> None:
    """Have this process be its user's again, who gave up being another. See prctl(2), PR_SET_DUMPABLE."""
    if _libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1), 0, 0, 0) != 0:
        raise _error(ctypes.get_errno(), "")


def syncfs(fd: int) -> None:
    """Write everything of the file system that holds `fd` to its disk; raises EIO and ENOSPC of earlier writes too.

    Earlier errors are reported since Linux 5.8. See syncfs(2).
    """
    if _libc.syncfs(ctypes.c_int(fd)) != 0:
        raise _error(ctypes.get_errno(), "")


def clock_is_synchronised() -> bool:
    """Return whether somebody keeps the kernel's clock right. See adjtimex(2); nothing is set."""
    answer = _libc.adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE))
    if answer < 0:
        raise _error(ctypes.get_errno(), "")
    return int(answer) != _TIME_ERROR


def keep_freed_memory(size: int) -> None:
    """Have the allocator keep up to `size` freed bytes for what comes next, for the rest of the process.

    See mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; musl has no such thing, and nothing happens there.
    """
    with contextlib.suppress(AttributeError):
        _libc.mallopt(_M_TRIM_THRESHOLD, size)
        _libc.mallopt(_M_MMAP_THRESHOLD, min(size, _MMAP_THRESHOLD_MAX))


def share_memory_between_threads() -> None:
    """Have the threads that start from now on share two heaps, rather than have eight for each core.

    What one thread has freed is then used by another: with four images unpacked at once that is 30 MB less. See
    mallopt(3), M_ARENA_MAX; musl has one heap anyway, and nothing happens there.
    """
    with contextlib.suppress(AttributeError):
        _libc.mallopt(_M_ARENA_MAX, 2)


def fchmod_path(fd: int, mode: int) -> None:
    """Set the mode of what `fd` refers to, even when it was opened with O_PATH.

    fchmodat2(2) exists since Linux 6.6; before, the descriptor's link in /proc leads to the very same inode.
    """
    done = _syscall(
        ctypes.c_long(_NR_FCHMODAT2), ctypes.c_int(fd), b"", ctypes.c_uint(mode), ctypes.c_int(AT_EMPTY_PATH)
    )
    if done >= 0:
        return
    code = ctypes.get_errno()
    if code != errno.ENOSYS:
        raise _error(code, "")
    os.chmod(f"/proc/self/fd/{fd}", mode)


def _path(path: str | bytes) -> ctypes.c_char_p:
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("embedded null byte")
    return ctypes.c_char_p(raw)


def _error(code: int, path: str | bytes, other: str | bytes | None = None) -> OSError:
    if other is None:
        return OSError(code, os.strerror(code), path or None)
    return OSError(code, os.strerror(code), path, None, other)
