"""Real file systems on loop devices, and trees of everything that a service may leave in its data."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

KINDS = ("ext4", "xfs", "btrfs")
SIZES = {"ext4": 64, "xfs": 300, "btrfs": 256}
"""Megabytes that a small one has; mkfs.xfs takes no fewer."""


@contextlib.contextmanager
def disk(place: Path, kind: str, megabytes: int = 0) -> Iterator[Path]:
    """Mount a new file system on a loop device below `place`; yield where."""
    image, mounted = place / f"{kind}.img", place / kind
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate((megabytes or SIZES[kind]) << 20)
    quiet = {"ext4": ["-q", "-F"], "xfs": ["-q"], "btrfs": ["-q"]}[kind]
    subprocess.run([f"mkfs.{kind}", *quiet, str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
        image.unlink()


ACL = bytes.fromhex(
    "02000000 01000600 ffffffff 02000700 21000000 04000400 ffffffff 10000700 ffffffff 20000000 ffffffff"
)
"""user::rw-, user:33:rwx, group::r--, mask::rwx, other::--- (acl(5), as the kernel keeps it)."""
CAPABILITY = bytes.fromhex("01000002 00040000 00000000 00000000 00000000")
"""cap_net_bind_service=ep (struct vfs_cap_data)."""


def fill(top: Path, seed: int, things: int = 60) -> None:
    """Fill an open directory with `things` of every kind, always the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311
    folders, files = [top], list[Path]()
    for number in range(things):
        folder = chance.choice(folders)
        name = chance.choice((f"f{number}", f"ü {number}\n", f"-{number}", os.fsdecode(b"\xff%d" % number)))
        path = folder / name
        kind = chance.choice(("file", "file", "file", "sparse", "directory", "directory", "link", "name", "node"))
        if kind == "directory":
            path.mkdir()
            folders.append(path)
        elif kind == "link":
            path.symlink_to(chance.choice(("..", "/etc/passwd", "nowhere", "x" * 300)))
        elif kind == "name" and files:
            os.link(chance.choice(files), path, follow_symlinks=False)
        elif kind == "node":
            _node(path, chance)
        else:
            _file(path, chance, sparse=kind == "sparse")
            files.append(path)
    for path in (*files, *folders):
        _attributes(path, chance)
    for path in (*files, *reversed(folders)):
        os.utime(path, ns=(chance.randrange(2**60), chance.randrange(2**60)))


def _node(path: Path, chance: random.Random) -> None:
    kind = chance.choice(("fifo", "socket", "character", "block"))
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            fd = os.open(path.parent, os.O_PATH)
            try:
                made.bind(f"/proc/self/fd/{fd}/{path.name}")
            finally:
                os.close(fd)
    else:
        os.mknod(path, {"fifo": stat.S_IFIFO, "character": stat.S_IFCHR, "block": stat.S_IFBLK}[kind] | 0o600, 0x103)
    os.chown(path, chance.randrange(70000), chance.randrange(70000))
    path.chmod(chance.randrange(0o10000))


def _file(path: Path, chance: random.Random, *, sparse: bool) -> None:
    with path.open("wb") as file:
        file.write(chance.randbytes(chance.choice((0, 1, 100, 4096, 70_000))))
        if sparse:
            file.seek(chance.choice((1 << 20, 5 << 30, (5 << 30) + 13)))
            file.write(chance.randbytes(chance.choice((0, 5000))))
            file.truncate(file.tell() + chance.choice((0, 12_345_678)))


def _attributes(path: Path, chance: random.Random) -> None:
    if chance.random() < 0.5:
        os.chown(path, chance.choice((0, 33, 0x70000021)), chance.choice((0, 33, 0x70000021)))
        path.chmod(chance.randrange(0o10000))
    if chance.random() < 0.3:
        os.setxattr(path, "user.note", chance.randbytes(chance.randrange(200)))
        os.setxattr(path, "trusted.note", b"t")
        os.setxattr(path, "system.posix_acl_access", ACL)
    if chance.random() < 0.2:
        if path.is_dir():
            os.setxattr(path, "system.posix_acl_default", ACL)
        else:
            os.setxattr(path, "security.capability", CAPABILITY)


def described(top: Path) -> dict[str, tuple[object, ...]]:
    """Return everything about everything below a directory, and itself; of a file with several names all of them."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[tuple[int, int], list[str]] = {}
    for folder, below, files in os.walk(top):
        links = [name for name in below if Path(folder, name).is_symlink()]
        for path in (Path(folder), *(Path(folder, name) for name in (*files, *links))):
            shown, info = str(path.relative_to(top)), path.lstat()
            content: object = ""
            if stat.S_ISREG(info.st_mode):
                content = (info.st_size, _digest(path))
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            xattrs = {x: os.getxattr(path, x, follow_symlinks=False) for x in os.listxattr(path, follow_symlinks=False)}
            about = (info.st_mode, info.st_uid, info.st_gid, info.st_rdev, info.st_mtime_ns)
            same = names.setdefault((info.st_dev, info.st_ino), [])
            same.append(shown)
            found[shown] = (*about, content, sorted(xattrs.items()), same)
    for same in names.values():
        same.sort()
    return found


def _digest(path: Path) -> str:
    """Return the digest of where a file has bytes; holes are passed over."""
    digest = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY)
    try:
        end, size = 0, os.fstat(fd).st_size
        while end < size:
            try:
                start = os.lseek(fd, end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(fd, start, os.SEEK_HOLE)
            data = os.pread(fd, end - start, start)
            if data.strip(b"\0"):
                digest.update(b"%d:" % start + data.rstrip(b"\0"))
    finally:
        os.close(fd)
    return digest.hexdigest()
