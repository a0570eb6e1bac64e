"""A file that `appbox export` made, opened and verified whole before anything of it is used.

It may come from anybody: every member has to be what the index at its beginning says, in that order, and nothing may be
in it besides. Afterwards members are read where they lie, and once more compared with their digests.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from appbox import container, export_index, lock_file
from appbox import manifest as manifests
from appbox.errors import AppboxError, ManifestError, Refused
from appbox.export_index import Entry, Exported, ExportIndex
from appbox.lock_file import LockFile
from appbox.manifest import Manifest
from appbox.oci.archive import Extent, Window
from appbox.oci.digest import Digest
from appbox.oci.expand import open_expanded
from appbox.oci.image_config import parse_config
from appbox.oci.limits import Limits
from appbox.oci.model import ImageManifest, parse_document
from appbox.oci.reference import OciLayout, RegistryImage, parse_image
from appbox.oci.tar import Archive, Kind, Member
from appbox.portable import IMAGES
from appbox.store import data_archive

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Verified:
    """The contents of an export: `small` are its manifests and files, `manifests` the former by service."""

    index: ExportIndex
    small: dict[str, bytes]
    manifests: dict[str, Manifest]
    lock: LockFile


class ExportFile:
    """An open export; `stream` is read by position."""

    def __init__(self, stream: BinaryIO, where: str, limits: Limits) -> None:
        self._stream, self.where, self._limits = stream, where, limits
        self._extents: dict[str, Extent] = {}

    def verify(self) -> Verified:
        """Read everything once. Raises Refused unless all of it is what the index says, and can be used."""
        try:
            return self._verified()
        except Refused as error:
            why = ": ".join(part for part in (error.where, error.what, error.why) if part)
            raise Refused("the export is refused", where=self.where, why=why, hint=error.hint) from error
        except ManifestError as error:
            raise Refused("the export is refused", where=self.where, why=f"its manifest {error.problems[0]}") from error

    def open(self, name: str) -> BinaryIO:
        """Return a reader of a member."""
        return io.BufferedReader(Window(self._stream.fileno(), self._extents[name]), 1 << 16)

    def blocks(self, entry: Entry) -> Iterator[bytes]:
        """Yield a member's bytes; Refused in the end when they have changed since they were verified."""
        hasher = hashlib.sha256()
        with self.open(entry.name) as stream:
            while data := stream.read(_CHUNK):
                hasher.update(data)
                yield data
        if hasher.hexdigest() != entry.sha256:
            raise Refused("the export was changed while it was read", where=self.where)

    def read(self, entry: Entry) -> bytes:
        """Return the bytes of a small member."""
        return b"".join(self.blocks(entry))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _verified(self) -> Verified:
        os.lseek(self._stream.fileno(), 0, os.SEEK_SET)
        archive = Archive(self._whole(), self._limits.size)
        members = iter(archive)
        first = next(members, None)
        if first is None or first.name != export_index.NAME.encode() or first.kind is not Kind.FILE:
            raise Refused("this is no export of appbox", why=f"it does not begin with {export_index.NAME}")
        if first.size > export_index.SMALL or first.sparse is not None:
            raise Refused("its index is too large")
        index = export_index.parse(b"".join(bytes(b[start:end]) for b, start, end in archive.data()))
        small: dict[str, bytes] = {}
        expected = iter(index.members)
        for member in members:
            entry = next(expected, None)
            if entry is None or entry.name.encode() != member.name:
                raise Refused("it has a member that its index does not have there", where=_shown(member))
            if entry.is_small:
                small[entry.name] = self._member(archive, member, entry, keep=True)
            else:
                self._member(archive, member, entry, keep=False)
        if (missing := next(expected, None)) is not None:
            raise Refused("it lacks a member", where=missing.name)
        parsed = {one.name: self._service(index, one, small) for one in index.services}
        lock = lock_file.parse(small[export_index.LOCK].decode("utf-8", "replace"), export_index.LOCK)
        _refuse_unlocked(index, parsed, lock)
        return Verified(index, small, parsed, lock)

    def _whole(self) -> Iterator[bytes]:
        at = 0
        while data := os.pread(self._stream.fileno(), _CHUNK, at):
            at += len(data)
            yield data

    def _member(self, archive: Archive, member: Member, entry: Entry, *, keep: bool) -> bytes:
        """Hash a member as it goes by, and note where it lies."""
        if member.kind is not Kind.FILE or member.sparse is not None or member.size != entry.size:
            raise Refused("is not what the index says", where=entry.name)
        self._extents[entry.name] = Extent(archive.position, member.size)
        hashers = [hashlib.sha256()]
        if entry.blob is not None and entry.blob.algorithm != "sha256":
            hashers.append(entry.blob.hasher())
        kept = []
        for block, start, end in archive.data():
            piece = memoryview(block)[start:end]
            for hasher in hashers:
                hasher.update(piece)
            if keep:
                kept.append(bytes(piece))
        wanted = [entry.sha256, *([entry.blob.hex] if entry.blob and len(hashers) > 1 else [])]
        if [hasher.hexdigest() for hasher in hashers] != wanted:
            raise Refused("does not have its digest", where=entry.name)
        return b"".join(kept)

    def _service(self, index: ExportIndex, one: Exported, small: dict[str, bytes]) -> Manifest:
        """Return the manifest of a service after a look at whether everything of the service fits together."""
        text = manifests.decode(small[one.manifest], file=one.manifest)
        parsed = manifests.parse(text, file=one.manifest)
        if parsed.name != one.name or parsed.image != one.image:
            raise Refused("is not the manifest that the index says", where=one.manifest)
        image = parse_image(parsed.image)
        if not isinstance(image, RegistryImage):
            own = isinstance(image, OciLayout) and image.path == IMAGES and image.ref == f"{one.name}-{one.version}"
            if not own or one.index:
                raise Refused("names an image outside of the export", where=one.manifest)
        self._image(index, one)
        if one.data:
            self._data(index, one, parsed)
        return parsed

    def _image(self, index: ExportIndex, one: Exported) -> None:
        manifest = parse_document(self._document(index, Digest.parse(one.digest)))
        if not isinstance(manifest, ImageManifest):
            raise Refused("is no image", where=one.digest)
        if one.index:
            parse_document(self._document(index, Digest.parse(one.index)))
        parse_config(self._document(index, manifest.config.digest))
        for blob in (manifest.config, *manifest.layers):
            if _blob(index, blob.digest).size != blob.size:
                raise Refused("does not have its size", where=str(blob.digest))

    def _document(self, index: ExportIndex, digest: Digest) -> bytes:
        entry = _blob(index, digest)
        if entry.size > export_index.SMALL:
            raise Refused(f"is larger than {export_index.SMALL} bytes", where=str(digest))
        return self.read(entry)

    def _data(self, index: ExportIndex, one: Exported, manifest: Manifest) -> None:
        entry = index.entry(one.archive)
        assert entry is not None  # noqa: S101  # the index was looked at
        found = data_archive.check(self.blocks(entry), container.id_count(manifest))
        if found != frozenset(one.data):
            raise Refused("does not have the volumes that the index says", where=one.archive)


def _refuse_unlocked(index: ExportIndex, parsed: dict[str, Manifest], lock: LockFile) -> None:
    """Refuse a lock that has anything but what the services of the export are."""
    if {entry.name for entry in lock.entries} != {one.name for one in index.services}:
        raise Refused("does not lock what is in the export", where=export_index.LOCK)
    for one in index.services:
        entry = lock.answer(one.name, one.image, parsed[one.name].version)
        if entry is None or (entry.tag, entry.digest) != (one.version, one.index or one.digest):
            raise Refused(f"does not lock {one.name} as it is in the export", where=export_index.LOCK)


def _blob(index: ExportIndex, digest: Digest) -> Entry:
    entry = index.entry(f"{export_index.BLOBS}{digest.algorithm}/{digest.hex}")
    if entry is None:
        raise Refused("is not in it", where=str(digest))
    return entry


def _shown(member: Member) -> str:
    return os.fsdecode(member.name[:200])


@contextmanager
def opened(path: str, scratch: str, limits: Limits) -> Iterator[ExportFile]:
    """Open an export, decompressed if it is compressed; "-" is standard input. `scratch` is a directory with room.

    Raises Unavailable when there is none.
    """
    if path != "-":
        found = ExportFile(open_expanded(path, scratch, limits), path, limits)
    else:
        with _spooled(scratch, limits) as spool:
            found = ExportFile(open_expanded(f"/proc/self/fd/{spool.fileno()}", scratch, limits), "-", limits)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def _spooled(scratch: str, limits: Limits) -> Iterator[Any]:
    """Yield standard input as a file without a name: it is read more than once."""
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as spool, open(0, "rb", closefd=False) as pipe:
        size = 0
        while data := pipe.read(_CHUNK):
            size += len(data)
            if size > limits.size:
                raise Refused("standard input has more than an export may have", why=f"{limits.size} bytes")
            try:
                spool.write(data)
            except OSError as error:
                raise AppboxError("cannot be written", where=scratch, why=error.strerror or str(error)) from error
        spool.flush()
        yield spool
