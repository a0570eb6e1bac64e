"""What file systems that share blocks can do: clones of files (xfs, btrfs) and snapshots of subvolumes (btrfs).

The requests are those of ioctl_ficlone(2) and of linux/btrfs.h. Every function raises OSError as the kernel gave it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from typing import Final

_WRITE: Final = 0x4000_0000
_READ: Final = 0x8000_0000
_MIPS_LIKE: Final = os.uname().machine.startswith(("mips", "ppc", "powerpc", "sparc", "alpha"))


def _request(direction: int, group: int, number: int, size: int) -> int:
    """Return the number of a request (asm-generic/ioctl.h); a few machines have other bits for the direction."""
    if _MIPS_LIKE:
        direction = {_WRITE: 0x8000_0000, _READ: 0x4000_0000}[direction]
    return direction | size << 16 | group << 8 | number


_FICLONE: Final = _request(_WRITE, 0x94, 9, 4)
_GETFLAGS: Final = _request(_READ, ord("f"), 1, struct.calcsize("l"))
_SETFLAGS: Final = _request(_WRITE, ord("f"), 2, struct.calcsize("l"))
_NOCOW: Final = 0x0080_0000
"""FS_NOCOW_FL: what `chattr +C` sets, often on the directories of databases."""

_ARGS: Final = struct.Struct("=qQQ32x4040s")
"""struct btrfs_ioctl_vol_args_v2: a descriptor, transid, flags, nothing, a name."""
_SUBVOL_CREATE: Final = _request(_WRITE, 0x94, 24, _ARGS.size)
_SNAP_CREATE: Final = _request(_WRITE, 0x94, 23, _ARGS.size)
_SUBVOL_GETFLAGS: Final = _request(_READ, 0x94, 25, 8)
_ROOTREF_SIZE: Final = 4096
_GET_SUBVOL_ROOTREF: Final = _request(_READ, 0x94, 61, _ROOTREF_SIZE) | _request(_WRITE, 0x94, 61, 0)
_ROOTREF_COUNT: Final = 8 + 255 * 16
"""Where struct btrfs_ioctl_get_subvol_rootref_args has the number of subvolumes within."""

_CANNOT: Final = frozenset((errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS))


def clone_file(source: int, target: int) -> bool:
    """Let the empty file `target` share all blocks of `source`; return False where the file system cannot.

    On btrfs both files must agree on `chattr +C` (EINVAL): the copy is made to, while it is empty.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    else:
        return True
    if _take_flags(source, target):
        with contextlib.suppress(OSError):
            fcntl.ioctl(target, _FICLONE, source)
            return True
    return False


def _take_flags(source: int, target: int) -> bool:
    """Give `target` the no-copy-on-write flag of `source`; return whether that changed anything."""
    wanted, found = _flags(source) & _NOCOW, _flags(target)
    if found < 0 or found & _NOCOW == wanted:
        return False
    try:
        fcntl.ioctl(target, _SETFLAGS, struct.pack("l", found & ~_NOCOW | wanted))
    except OSError:
        return False
    return True


def _flags(fd: int) -> int:
    """Return the inode flags of an open file or directory (ioctl_iflags(2)), -1 where there are none."""
    try:
        return int(struct.unpack("l", fcntl.ioctl(fd, _GETFLAGS, bytes(struct.calcsize("l"))))[0])
    except OSError:
        return -1


def can_clone(source: int, target: int) -> bool:
    """Try whether files of one open directory can be cloned into another. What is tried has no name and leaves nothing.

    False, too, where files without a name cannot be made (open(2), O_TMPFILE).
    """
    with contextlib.ExitStack() as stack:
        found = []
        for directory in (source, target):
            try:
                fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
            except OSError as error:
                if error.errno in _CANNOT | {errno.EISDIR, errno.EROFS, errno.ENOENT}:
                    return False
                raise
            stack.callback(os.close, fd)
            found.append(fd)
        os.write(found[0], b"\0" * 4096)
        return clone_file(found[0], found[1])


def is_subvolume(fd: int) -> bool:
    """Return whether an open directory is the top of a btrfs subvolume."""
    try:
        fcntl.ioctl(fd, _SUBVOL_GETFLAGS, bytes(8))
    except OSError:
        return False
    return True


def has_subvolumes(fd: int) -> bool:
    """Return whether there are subvolumes inside a subvolume: a snapshot shows them as empty directories.

    True, too, on a kernel that cannot tell (before 4.18).
    """
    args = bytearray(_ROOTREF_SIZE)
    try:
        fcntl.ioctl(fd, _GET_SUBVOL_ROOTREF, args)
    except OSError:
        return True
    return args[_ROOTREF_COUNT] > 0


def snapshot_subvolume(source: int, parent: int, name: str) -> None:
    """Make a writable snapshot of an open subvolume as `name`. It is durable when this returns, with all in it."""
    fcntl.ioctl(parent, _SNAP_CREATE, _args(source, name))


def _args(source: int, name: str) -> bytearray:
    return bytearray(_ARGS.pack(source, 0, 0, os.fsencode(name)))  # fcntl takes no more than 1,024 bytes that are fixed


def make_directory(parent: int, name: str, mode: int) -> None:
    """Make a directory, as a subvolume where that is possible, so that one request can take a snapshot of it."""
    try:
        fcntl.ioctl(parent, _SUBVOL_CREATE, _args(0, name))
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise
        os.mkdir(name, 0o700, dir_fd=parent)
    os.chown(name, 0, 0, dir_fd=parent)
    os.chmod(name, mode, dir_fd=parent)
