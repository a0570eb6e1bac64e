"""What the layers of an image hold together, from their headers alone. Nothing is written, and nothing is on disk.

The same rules as `writer`: whiteouts take away what lower layers have, whatever their order; parents that are symlinks
are followed inside the image; a directory over a directory keeps its content; everything else replaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from appbox.errors import Refused
from appbox.oci import walk
from appbox.oci.layer import Entry, Whiteout, shown
from appbox.oci.rootfs import TABLE_LIMIT, Node
from appbox.oci.tar import Kind, Span

CONTENT: Final = TABLE_LIMIT
"""Bytes of a wanted file; a larger one is refused when it is read."""


class Listed(NamedTuple):
    """One thing in an image. `digest` says of files with the same `size` whether they have the same content.

    It is the SHA-256 of what the archive stores, empty unless the listing was asked for digests; `device` is (0, 0) for
    what is none; `linked` is true of a name that was made as a hard link to another one.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    link: bytes
    device: tuple[int, int]
    xattrs: tuple[tuple[str, bytes], ...]
    digest: bytes
    linked: bool


@dataclass(slots=True, eq=False)
class _Item:
    """A thing in the image. `made` is the layer that described it, `touched` the last one with something below it."""

    kind: Kind
    uid: int = 0
    gid: int = 0
    mode: int = 0o755
    link: bytes = b""
    size: int = 0
    made: int = 0
    touched: int = 0
    number: int = 0
    content: bytes | None = None
    digest: bytes = b""
    linked: bool = False
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    below: dict[bytes, _Item] = field(default_factory=dict)


_NOTHING: Final[dict[bytes, _Item]] = {}
"""What is below everything but a directory."""


class Listing:
    """Grows by `begin` and `apply`, layer by layer; then answers `locate`, `read` and `paths`.

    `wanted` are paths whose content is kept when an entry has that very name; `also` are numbers of entries, from
    `missed` of an earlier listing of the same layers, that turned out to be wanted too. `digests`: hash every file.
    """

    def __init__(self, wanted: Collection[str] = (), also: Collection[int] = (), *, digests: bool = False) -> None:
        self._digests = digests
        self._root = _Item(Kind.DIRECTORY)
        self._layer = 0
        self._count = 0
        self._numbers: dict[int, int] = {}  # one object for each id and mode, of which a million items have few
        self._wanted = frozenset(wanted)
        self._names = frozenset(_plain(path) for path in wanted)
        self._also = frozenset(also)

    def begin(self) -> None:
        """Begin the next layer."""
        self._layer += 1

    def apply(self, change: Entry | Whiteout, data: Iterable[Span]) -> None:
        """Take a change in; `data` is read only for wanted files."""
        self._count += 1
        if isinstance(change, Whiteout):
            self._remove(change)
        elif change.name:
            self._add(change, data)
        else:
            self._describe(self._root, change)

    def locate(self, path: str) -> Node | None:
        """Return what `path` leads to, as `host.inside.locate` does for a rootfs on disk."""
        return walk.node(path.encode("utf-8", "surrogateescape"), self._look)

    def read(self, path: str, limit: int = CONTENT) -> bytes | None:
        """Return the content of a wanted file, symlinks followed; None when there is none. Raises `Refused`."""
        if path not in self._wanted:
            raise ValueError(f"{path} was not among the wanted files")
        item = self._resolved(path.encode("utf-8", "surrogateescape"))
        if item is None:
            return None
        if item.kind is not Kind.FILE:
            raise Refused("not a regular file", where=path)
        if item.size > limit or item.content is None:
            raise Refused(f"larger than {min(limit, CONTENT)} bytes", where=path)
        return item.content

    def missed(self) -> frozenset[int]:
        """Return the numbers of wanted entries whose content was not kept, as they go by another name."""
        items = (self._resolved(path) for path in self._names)
        return frozenset(
            item.number
            for item in items
            if item is not None and item.kind is Kind.FILE and item.content is None and item.size <= CONTENT
        )

    def paths(self) -> Iterator[str]:
        """Yield every path, each directory before its content, sorted."""
        return (shown(path) for path, _ in self._items())

    def drain(self) -> Iterator[Listed]:
        """Yield everything in the image, each directory before its content, sorted, and forget it meanwhile.

        So a million entries are not in memory twice. Nothing can be asked any more afterwards.
        """
        for path, item in self._items(forget=True):
            yield Listed(
                path=shown(path),
                kind=item.kind,
                mode=item.mode,
                uid=item.uid,
                gid=item.gid,
                size=item.size if item.kind is Kind.FILE else 0,
                link=item.link if item.kind is Kind.SYMLINK else b"",
                device=item.device,
                xattrs=item.xattrs,
                digest=item.digest,
                linked=item.linked,
            )

    def _items(self, *, forget: bool = False) -> Iterator[tuple[bytes, _Item]]:
        todo = [(b"", self._root)]
        while todo:
            path, item = todo.pop()
            yield path, item
            names = sorted(item.below, reverse=True)
            todo += [(path + b"/" + name if path else name, item.below[name]) for name in names]
            if forget:
                item.below = _NOTHING

    # Growing

    def _add(self, entry: Entry, data: Iterable[Span]) -> None:
        parent = self._parent(entry)
        if entry.kind is Kind.HARDLINK:
            item = self._target(entry, parent)
        else:
            before = parent.below.get(entry.name)
            keep = entry.kind is Kind.DIRECTORY and before is not None and before.kind is Kind.DIRECTORY
            item = before if keep and before is not None else _Item(entry.kind)
            if entry.kind is not Kind.DIRECTORY:
                item.below = _NOTHING
            self._describe(item, entry)
            self._keep_content(item, entry, data)
        parent.below[entry.name] = item

    def _describe(self, item: _Item, entry: Entry) -> None:
        item.uid, item.gid, item.mode = (self._numbers.setdefault(n, n) for n in (entry.uid, entry.gid, entry.mode))
        item.link = entry.link
        item.device = (entry.major, entry.minor) if entry.kind in (Kind.CHAR, Kind.BLOCK) else (0, 0)
        item.xattrs = tuple(sorted(entry.xattrs.kept))
        item.made = item.touched = self._layer
        item.number = self._count

    def _keep_content(self, item: _Item, entry: Entry, data: Iterable[Span]) -> None:
        item.size = entry.sparse.size if entry.sparse is not None else entry.size
        if item.kind is not Kind.FILE:
            return
        if item.size <= CONTENT and (entry.path in self._names or self._count in self._also):
            stored = b"".join(block[start:end] for block, start, end in data)
            item.content = _expanded(entry, stored)
            item.digest = _digest(entry, [(stored, 0, len(stored))]) if self._digests else b""
        elif self._digests:
            item.digest = _digest(entry, data)

    def _parent(self, entry: Entry) -> _Item:
        """Return the directory of the entry, made when it is missing, and mark those above it."""
        place = walk.follow(entry.parent, self._look)
        if place is None or (place.found is not None and place.found.kind != "directory"):
            raise Refused("the directory of an entry is a file", where=entry.shown)
        here = self._root
        here.touched = self._layer
        for part in _parts(place.path):
            here = here.below.setdefault(part, _Item(Kind.DIRECTORY))
            here.touched = self._layer
        return here

    def _target(self, entry: Entry, parent: _Item) -> _Item:
        above, _, name = entry.link.rpartition(b"/")
        place = walk.follow(above, self._look)
        directory = self._at(place.path) if place is not None else None
        item = directory.below.get(name) if directory is not None else None
        if item is None or item.kind is Kind.DIRECTORY or (directory is parent and name == entry.name):
            raise Refused("a hard link leads to no other file", where=entry.shown, why=shown(entry.link))
        return replace(item, made=self._layer, linked=True)

    def _remove(self, whiteout: Whiteout) -> None:
        place = walk.follow(whiteout.parent, self._look)
        directory = self._at(place.path) if place is not None else None
        if directory is None:
            return
        if not whiteout.name:
            self._purge(directory)
        elif whiteout.name in directory.below:
            stays = self._remove_lower(directory, whiteout.name)
            if stays is not None:
                self._purge(stays)

    def _purge(self, directory: _Item) -> None:
        todo = [directory]
        while todo:
            here = todo.pop()
            kept = (self._remove_lower(here, name) for name in list(here.below))
            todo += [item for item in kept if item is not None]

    def _remove_lower(self, directory: _Item, name: bytes) -> _Item | None:
        """Take `name` away unless this layer made it; return it when it is a directory that stays."""
        item = directory.below[name]
        if self._layer not in (item.made, item.touched):
            del directory.below[name]
            return None
        if item.kind is not Kind.DIRECTORY:
            return None
        if item.made != self._layer:
            item.uid, item.gid, item.mode, item.xattrs = 0, 0, 0o755, ()
        return item

    # Asking

    def _look(self, path: bytes) -> walk.Found | None:
        item = self._at(path)
        if item is None:
            return None
        kind: walk.Kind = "directory" if item.kind is Kind.DIRECTORY else "file" if item.kind is Kind.FILE else "other"
        return walk.Found(kind, item.uid, item.gid, item.mode, item.link if item.kind is Kind.SYMLINK else b"")

    def _at(self, path: bytes) -> _Item | None:
        """Return what lies at a path that is free of symlinks."""
        here: _Item | None = self._root
        for part in _parts(path):
            here = here.below.get(part) if here is not None else None
        return here

    def _resolved(self, path: bytes) -> _Item | None:
        place = walk.follow(path, self._look)
        return self._at(place.path) if place is not None and place.found is not None else None


def _parts(path: bytes) -> list[bytes]:
    return path.split(b"/") if path else []


def _plain(path: str) -> bytes:
    return b"/".join(part for part in path.encode("utf-8", "surrogateescape").split(b"/") if part)


def _digest(entry: Entry, data: Iterable[Span]) -> bytes:
    """Return a digest of the stored data, and of the places that it has in a sparse file."""
    hasher = hashlib.sha256()
    for block, start, end in data:
        hasher.update(memoryview(block)[start:end])
    if entry.sparse is not None:
        hasher.update(repr(entry.sparse.segments).encode())
    return hasher.digest()


def _expanded(entry: Entry, stored: bytes) -> bytes:
    """Return the content of a sparse file, or what is stored."""
    if entry.sparse is None:
        return stored
    content = bytearray(entry.sparse.size)
    at = 0
    for offset, length in entry.sparse.segments:
        content[offset : offset + length] = stored[at : at + length]
        at += length
    return bytes(content)
