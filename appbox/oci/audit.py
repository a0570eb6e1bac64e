"""A rootfs on disk against its mtree manifest: everything added, removed or changed. Effects: it only reads.

The manifest is in the order of a walk, so both are gone through side by side and neither is held in memory. The walk is
by descriptors, follows no symlink, crosses no mount point and opens nothing but directories and regular files. What
changes meanwhile is a difference like any other, never an exception.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from appbox.host import syscalls
from appbox.host.inside import open_inside
from appbox.oci import limits, mtree
from appbox.oci.hashing import File, Hashing
from appbox.oci.layer import shown
from appbox.oci.mtree import Node
from appbox.oci.tar import Kind

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_CHILD: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class Difference(NamedTuple):
    """One way in which a path is not as the manifest has it.

    `change` is added, removed, type, content, mode, owner, link, links, device, xattr, time, mounted or unreadable;
    `was` is the manifest's side and `now` the disk's, as text, empty where there is none.
    """

    path: str
    change: str
    was: str = ""
    now: str = ""


class Audit:
    """Compares `root_fd`, opened for reading, with the lines of a manifest.

    `entries` counts what the manifest lists, once `differences` is through.
    """

    def __init__(self, root_fd: int, lines: Iterable[bytes]) -> None:
        self._root = root_fd
        self._lines = lines
        self._found: list[Difference] = []
        self.entries = 0

    def differences(self) -> list[Difference]:
        """Return all differences, sorted; raises `Refused` when the manifest is damaged, OSError as for the root."""
        with Hashing(self._content) as hashing:
            nodes = mtree.parse(self._lines)
            node = self._next(nodes)
            for item in walk(self._root):
                key = mtree.order(item.path)
                while node is not None and mtree.order(node.path) < key:
                    self._note(node.path, "removed", _kind(node))
                    node = self._next(nodes)
                if node is not None and node.path == item.path:
                    self._compare(node, item, hashing)
                    node = self._next(nodes)
                else:
                    self._note(item.path, "added", "", _described(item.status))
                    if item.problem:
                        self._note(item.path, item.problem, "", item.why)
            while node is not None:
                self._note(node.path, "removed", _kind(node))
                node = self._next(nodes)
        return sorted(self._found)

    def _next(self, nodes: Iterator[Node]) -> Node | None:
        node = next(nodes, None)
        self.entries += node is not None
        return node

    def _note(self, path: bytes, change: str, was: str = "", now: str = "") -> None:
        self._found.append(Difference(shown(path), change, was, now))

    def _content(self, file: File, now: str) -> None:
        """Take note of a file whose content is another, or could not be read: `now` says what was found."""
        self._note(file.path, "content", f"sha256:{file.digest.hex()}", now)

    def _compare(self, node: Node, item: Item, hashing: Hashing) -> None:
        path, status = node.path, item.status
        if item.problem:
            self._note(path, item.problem, "", item.why)
            if item.problem == "mounted":
                return  # what the manifest is about lies below
        if stat.S_IFMT(status.st_mode) != _FORMATS[node.kind]:
            self._note(path, "type", _kind(node), _KINDS.get(stat.S_IFMT(status.st_mode), "unknown"))
            return
        self._compare_attributes(node, status)
        try:
            if node.kind is Kind.FILE:
                self._compare_file(node, item, hashing)
            elif node.kind is Kind.DIRECTORY and item.fd >= 0:
                self._compare_xattrs(node, item.fd)
            elif node.kind is Kind.SYMLINK:
                link = os.readlink(item.name, dir_fd=item.parent)
                if link != node.link:
                    self._note(path, "link", os.fsdecode(node.link), os.fsdecode(link))
            elif node.kind is not Kind.DIRECTORY and node.kind is not Kind.FIFO:
                numbers = os.major(status.st_rdev), os.minor(status.st_rdev)
                if numbers != node.device:
                    self._note(path, "device", *("{}:{}".format(*pair) for pair in (node.device, numbers)))
        except OSError as error:
            self._note(path, "unreadable", "", error.strerror or str(error))

    def _compare_attributes(self, node: Node, status: os.stat_result) -> None:
        path = node.path
        mode = stat.S_IMODE(status.st_mode)
        if mode != node.mode:
            self._note(path, "mode", f"{node.mode:04o}", f"{mode:04o}")
        if (status.st_uid, status.st_gid) != (node.uid, node.gid):
            self._note(path, "owner", f"{node.uid}:{node.gid}", f"{status.st_uid}:{status.st_gid}")
        if status.st_mtime_ns != node.mtime:
            self._note(path, "time", mtree.time(node.mtime), mtree.time(status.st_mtime_ns))
        if node.nlink and status.st_nlink != node.nlink:
            self._note(path, "links", str(node.nlink), str(status.st_nlink))

    def _compare_file(self, node: Node, item: Item, hashing: Hashing) -> None:
        fd = _open_file(item)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != (item.status.st_dev, item.status.st_ino):
                self._note(node.path, "unreadable", "", "it was replaced while it was looked at")
                return
            self._compare_xattrs(node, fd)
            if status.st_size != node.size:
                self._note(node.path, "content", f"{node.size} bytes", f"{status.st_size} bytes")
            else:
                hashing.add(File(fd, node.path, node.size, node.digest))
                fd = -1  # hashing closes it
        finally:
            if fd >= 0:
                os.close(fd)

    def _compare_xattrs(self, node: Node, fd: int) -> None:
        found = dict(xattrs(fd))
        if not found and not node.xattrs:
            return
        wanted = dict(node.xattrs)
        for name in sorted(found.keys() | wanted.keys()):
            was, now = wanted.get(name), found.get(name)
            if was != now:
                self._note(node.path, "xattr", *(f"{name}={v.hex()}" if v is not None else "" for v in (was, now)))


_FORMATS: Final = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}


class Item(NamedTuple):
    """Something on disk: `name` in the directory `parent`; `fd` is open for a directory, -1 otherwise.

    `problem` is mounted or unreadable for a directory that was not entered, and `why` says more.
    """

    path: bytes
    parent: int
    name: bytes
    status: os.stat_result
    fd: int = -1
    problem: str = ""
    why: str = ""


def walk(root_fd: int) -> Iterator[Item]:
    """Yield everything below the root and the root itself, in the order of `mtree.order`.

    Descriptors in what is yielded are open until the next one is asked for.
    """
    yield Item(b"", -1, b"", os.fstat(root_fd), root_fd)
    levels = [(root_fd, b"", _names(root_fd))]
    try:
        while levels:
            fd, path, names = levels[-1]
            if not names:
                levels.pop()
                if fd != root_fd:
                    os.close(fd)
                continue
            name = names.pop()
            item = _look(fd, name, b"/".join((path, name)) if path else name)
            if item is None:
                continue  # it was there when the directory was listed
            if item.fd >= 0:
                item = _enter(item, levels)
            yield item
    finally:
        for fd, _, _ in levels[1:]:
            os.close(fd)


def _enter(item: Item, levels: list[tuple[int, bytes, list[bytes]]]) -> Item:
    """Add a directory to those on the way down; return it, closed and with a problem where that is not possible."""
    why = "it is deeper than any image may be"
    if len(levels) <= limits.DEPTH:
        try:
            levels.append((item.fd, item.path, _names(item.fd)))
            return item
        except OSError as error:
            why = error.strerror or str(error)
    os.close(item.fd)
    return item._replace(fd=-1, problem="unreadable", why=why)


def _names(fd: int) -> list[bytes]:
    """Return the names in a directory, the first one last, ready to be popped."""
    return sorted(map(os.fsencode, os.listdir(fd)), reverse=True)


def _look(parent: int, name: bytes, path: bytes) -> Item | None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    item = Item(path, parent, name, status)
    try:
        if stat.S_ISDIR(status.st_mode):
            return item._replace(fd=open_inside(parent, name, _DIRECTORY, resolve=_CHILD))
        # A device number of its own is a reason to look twice, no more: files of an overlay may have one each.
        if status.st_dev != os.fstat(parent).st_dev:
            os.close(open_inside(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=_CHILD))
        return item
    except OSError as error:
        if error.errno == errno.EXDEV:
            return item._replace(problem="mounted")
        return item._replace(problem="unreadable", why=error.strerror or str(error))


def _open_file(item: Item) -> int:
    """Open a regular file for reading, which leaves its time of access alone where that is permitted."""
    try:
        return os.open(item.name, _FILE | os.O_NOATIME, dir_fd=item.parent)
    except PermissionError:
        return os.open(item.name, _FILE, dir_fd=item.parent)


def xattrs(fd: int) -> Iterator[tuple[str, bytes]]:
    """Yield the extended attributes that an image could have set, or that change who may do what.

    Labels of the host's own (SELinux, Smack, IMA) are none of the image's.
    """
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        if name.startswith(("user.", "trusted.", "system.posix_acl_")) or name == "security.capability":
            yield name, os.getxattr(fd, name)


def _kind(node: Node) -> str:
    return _KINDS[_FORMATS[node.kind]]


def _described(status: os.stat_result) -> str:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "unknown")
    return f"{kind}, {stat.S_IMODE(status.st_mode):04o}, {status.st_uid}:{status.st_gid}"
