"""What a tar member means as part of an image: entries and whiteouts, with names that are safe to use. No effects.

Rules (OCI image specification, "Image Layer Filesystem Changeset", and DESIGN §6):
- names are taken relative to the root; `..`, empty names and NUL are refused, and so is a root that is no directory;
- `.wh.NAME` removes NAME and `.wh..wh..opq` removes all its siblings, of lower layers only; `.wh.`, `.wh..` and
  `.wh...`, which would mean the directory itself or its parent (umoci 0.4.7 deleted that), are refused, and so is any
  name below one that begins with `.wh.`;
- user and group ids stay in the range that the service has, and are never clamped to somebody else's;
- device numbers are ones that Linux has.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from appbox.errors import Refused
from appbox.oci import limits, xattrs
from appbox.oci.ids import IdMap
from appbox.oci.sparse import Sparse
from appbox.oci.tar import Kind, Member
from appbox.oci.xattrs import Xattrs

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
_USUAL: Final = 65536
"""Ids that images as they come need."""

MEDIA_TYPES: Final = {
    "application/vnd.oci.image.layer.v1.tar": "plain",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "plain",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "plain",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "plain",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd": "zstd",
}
"""Compression by media type: OCI's, Docker's, and those of layers that are not to be pushed on."""


class Entry(NamedTuple):
    """Something to make. `path` is `parent` and `name` joined, relative to the root and without `.` or `..`.

    The root itself has an empty path. `link` is a symlink's target byte for byte, or the path of a hard link's target
    in the form of `path`. `size` counts the bytes stored, `mtime` nanoseconds; ids are the container's.
    """

    path: bytes
    parent: bytes
    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    major: int
    minor: int
    sparse: Sparse | None
    xattrs: Xattrs

    @property
    def shown(self) -> str:
        """The path as people read it."""
        return shown(self.path)


class Whiteout(NamedTuple):
    """Something of lower layers to remove: `name` in `parent`, or everything in it when `name` is empty (opaque)."""

    parent: bytes
    name: bytes


def interpret(member: Member, idmap: IdMap) -> Entry | Whiteout:
    """Return what the member means; raise `Refused` for what no image may contain."""
    parts = components(member.name)
    name = parts[-1] if parts else b""
    path = b"/".join(parts)
    if WHITEOUT in member.name and any(part.startswith(WHITEOUT) for part in parts):
        return _whiteout(parts, path)
    kind, _, link, mode, uid, gid, size, mtime, major, minor, records, sparse = member
    entry = Entry(
        path,
        path[: -len(name) - 1] if len(parts) > 1 else b"",
        name,
        kind,
        mode,
        uid,
        gid,
        size,
        mtime,
        link,
        major,
        minor,
        sparse,
        xattrs.choose(records) if records else xattrs.NONE,
    )
    if uid >= idmap.size or gid >= idmap.size:
        raise _owner(entry, idmap)
    if kind is Kind.FILE or kind is Kind.DIRECTORY:
        if not name and kind is Kind.FILE:
            raise _root(entry)
        return entry
    return _special(entry)


def components(name: bytes) -> list[bytes]:
    """Return the components of a name of an archive, relative to the root; raise `Refused`."""
    if not name:
        raise Refused("a tar member has an empty name")
    parts = name.split(b"/")
    if not parts[-1]:
        parts.pop()  # directories end in a slash
    if b"" in parts or b"." in parts:
        parts = [part for part in parts if part and part != b"."]
    if b".." in parts:
        raise Refused("a name in a layer contains ..", where=shown(name))
    if len(name) > limits.NAME and (
        len(name) > limits.PATH or len(parts) > limits.DEPTH or any(len(part) > limits.NAME for part in parts)
    ):
        raise Refused("a name in a layer is longer than Linux allows", where=shown(name[:200]))
    return parts


def shown(path: bytes) -> str:
    """Return a path of a layer as text for messages."""
    return "/" + os.fsdecode(path).lstrip("/")


def _whiteout(parts: list[bytes], path: bytes) -> Whiteout:
    *parents, name = parts
    if any(part.startswith(WHITEOUT) for part in parents):
        raise Refused("a name in a layer begins with .wh.", where=shown(path))
    parent = b"/".join(parents)
    if name == OPAQUE:
        return Whiteout(parent, b"")
    target = name[len(WHITEOUT) :]
    if target in (b"", b".", b".."):
        raise Refused("a whiteout of a directory itself or of its parent", where=shown(path))
    return Whiteout(parent, target)


def _special(entry: Entry) -> Entry:
    """Check what is neither a file nor a directory."""
    if not entry.name:
        raise _root(entry)
    if entry.kind is Kind.SYMLINK:
        if not entry.link or len(entry.link) > limits.PATH:
            raise Refused("a symlink has no target, or one longer than Linux allows", where=entry.shown)
    elif entry.kind is Kind.HARDLINK:
        return entry._replace(link=_target(entry))
    elif entry.major > limits.MAJOR or entry.minor > limits.MINOR:
        numbers = f"{entry.major}:{entry.minor}"
        raise Refused("a device has numbers that Linux does not have", where=entry.shown, why=numbers)
    return entry


def _target(entry: Entry) -> bytes:
    """Return the path of a hard link's target; raise `Refused` when it cannot be a file of the image."""
    if not entry.link:
        raise Refused("a hard link has no target", where=entry.shown)
    parts = components(entry.link)
    if not parts or any(part.startswith(WHITEOUT) for part in parts):
        raise Refused("a hard link leads to no file", where=entry.shown, why=shown(entry.link))
    target = b"/".join(parts)
    if target == entry.path:
        raise Refused("a hard link leads to itself", where=entry.shown)
    return target


def _owner(entry: Entry, idmap: IdMap) -> Refused:
    few = "you have no subordinate ids" if idmap.size == 1 else "these are few ids for an image"
    return Refused(
        "the owner is outside the range of ids",
        where=entry.shown,
        why=f"{entry.uid}:{entry.gid} is not within 0 to {idmap.size - 1}",
        hint=f"{few}; appbox doctor says what to do" if idmap.size < _USUAL else "",
    )


def _root(entry: Entry) -> Refused:
    return Refused(f"the root of the image is a {entry.kind.value}, not a directory", where=entry.shown)
