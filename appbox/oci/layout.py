"""Foreign OCI image layouts, in a directory or a tar archive: choosing an image and opening its blobs in place.

Follows "OCI Image Layout" of the image specification. A layout may have been made by anybody: its files are bounded
regular files, and what counts is whether they have their digests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci.cache import REF_NAME, Cache, digest_of, open_regular
from appbox.oci.contents import index_of
from appbox.oci.digest import Digest
from appbox.oci.json_document import DOCUMENT_LIMIT, parse_object
from appbox.oci.model import OCI_INDEX, Descriptor, Image, Index, Platform, parse_index, select
from appbox.oci.reference import tags_of
from appbox.oci.simple_signing import is_companion, is_signatures
from appbox.oci.source import Document, InPlace, Progress, assemble

if TYPE_CHECKING:
    from appbox.oci.archive import Archive

COMPANIONS = 16  # manifests of signatures that are looked at for one image; `cosign save` writes one
_OPEN_BLOB_HINT = "copy the image again"


class Files(Protocol):
    """The files of a layout by their paths inside of it."""

    where: str

    def open(self, path: str) -> BinaryIO | None:
        """Open a regular file; None when there is none."""
        ...

    def close(self) -> None:
        """Let go of what is held open."""
        ...


class Directory:
    """A layout in a directory."""

    def __init__(self, path: str) -> None:
        self.where = path

    def open(self, path: str) -> BinaryIO | None:
        """Open a file of the layout; None when there is none."""
        try:
            return open_regular(f"{self.where}/{path}", follow=True)
        except OSError as error:
            why = error.strerror or str(error)
            raise Unavailable("cannot be read", where=f"{self.where}/{path}", why=why) from error

    def close(self) -> None:
        """Nothing is held open between calls."""


def open_layout(path: str) -> Directory:
    """Return the layout in the directory `path`; raise `Unavailable` when there is none."""
    layout = Directory(os.path.abspath(path))
    if not os.path.isdir(layout.where):
        why = "this is not a directory" if os.path.exists(layout.where) else "there is no such directory"
        raise Unavailable("no OCI image layout", where=layout.where, why=why)
    return layout


def open_archive(path: str, scratch: str) -> Archive:
    """Return the layout in the tar archive `path`; raise `Unavailable` when there is none, `Refused` for a bad one.

    `scratch` is a directory with room for an archive that is compressed.
    """
    from appbox.oci.archive import Archive  # noqa: PLC0415  # with all that reads tar: most layouts are directories

    return Archive(os.path.abspath(path), scratch)


class LayoutSource(InPlace):
    """The images of one layout."""

    def __init__(self, files: Files, ref: str | None, reference: str, cache: Cache) -> None:
        self._files, self._ref, self._reference, self._cache = files, ref, reference, cache

    def resolve(self, version: str | None, digest: Digest | None, platform: Platform) -> Image:
        """Return the image that the layout's own REF names, else `version`, else the only one."""
        index = self._index()
        # Entries that are one image for several platforms may be known by the digest of the index made of them.
        made = digest is not None and digest not in {one.digest for one in index.manifests}
        if made and digest == self.top(version, None).digest:
            digest = None
        entry = self._choose(index, version, digest, platform)
        top = Document(entry.digest, self._document(entry), entry.media_type)
        image = assemble(self._reference, top, platform, self._document)
        if digest is not None and digest not in (image.digest, image.index_digest):
            raise Refused(
                "the image does not have the digest asked for", where=self._reference, why=f"it has {image.digest}"
            )
        return image

    def top(self, version: str | None, digest: Digest | None) -> Document:
        """Return the index or manifest that is named, as it is.

        Where entries of the layout's own index are one image for several platforms, an index of these is made.
        """
        entries = self._candidates(self._index(), version, digest)
        if len(entries) == 1:
            return Document(entries[0].digest, self.entry(entries[0]), entries[0].media_type)
        data = index_of(entries)
        return Document(Digest.of(data), data, OCI_INDEX)

    def tags(self) -> list[str]:
        """Return the names of images that are tags, or the tag of the one that the reference names."""
        if self._ref is not None:
            return tags_of([self._ref])
        named = [(entry.annotations, entry.annotations.get(REF_NAME, "")) for entry in self._index().manifests]
        return tags_of(name for annotations, name in named if ":" not in name and not is_companion(annotations, name))

    def entry(self, descriptor: Descriptor) -> bytes:
        """Return an entry of an index, verified, whatever kind of document it is."""
        return self._document(descriptor)

    def blob(self, descriptor: Descriptor, progress: Progress | None = None) -> BinaryIO:
        """Open a blob in place; its size was looked at, its digest is for the reader to check."""
        del progress  # whoever reads it tells more
        return self._sized(descriptor)

    def companions(self, tag: str) -> list[Document]:
        """Return the manifests that the layout names `tag`, or that `cosign save` noted as signatures, [] for none."""
        entries = [
            entry
            for entry in self._index().manifests
            if entry.annotations.get(REF_NAME) == tag or is_signatures(entry.annotations)
        ]
        return [Document(e.digest, self.small_blob(e), e.media_type) for e in entries[:COMPANIONS]]

    def abort(self) -> None:
        """Nothing here waits."""

    def fetch(self, image: Image, progress: Progress | None = None) -> None:
        """Read every layer once and raise `Unavailable` for a missing, `Refused` for a wrong one."""
        for layer in dict.fromkeys(image.manifest.layers):
            self._verify(image, layer)
            if progress:
                progress(layer.digest, layer.size, layer.size)

    def _verify(self, image: Image, layer: Descriptor) -> None:
        with self.layer(image, layer) as stream:
            if digest_of(stream, layer.digest) != layer.digest:
                raise Refused("the layer does not have its digest", where=self._blob(layer), hint=_OPEN_BLOB_HINT)

    def layer(self, image: Image, descriptor: Descriptor) -> BinaryIO:
        """Open a layer in place; its size was looked at, its digest is for the reader to check again."""
        return self._sized(descriptor)

    def _sized(self, descriptor: Descriptor) -> BinaryIO:
        stream = self._open(descriptor)
        size = stream.seek(0, os.SEEK_END)
        if size != descriptor.size:
            stream.close()
            why = f"it has {size} bytes, not {descriptor.size}"
            raise Refused(
                "the blob does not have its size", where=self._blob(descriptor), why=why, hint=_OPEN_BLOB_HINT
            )
        stream.seek(0)
        return stream

    def close(self) -> None:
        """Close an archive."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _index(self) -> Index:
        marker = parse_object(self._file("oci-layout", 4096), "oci-layout", limit=4096)
        if marker.get("imageLayoutVersion") != "1.0.0":
            raise Refused("the layout's version is unknown", where=self._files.where, why=f"{marker}"[:200])
        return parse_index(self._file("index.json", DOCUMENT_LIMIT), OCI_INDEX)

    def _file(self, name: str, limit: int) -> bytes:
        stream = self._files.open(name)
        if stream is None:
            saved = not isinstance(self._files, Directory) and self._files.open("manifest.json") is not None
            hint = "an archive of docker save is docker-archive:FILE" if saved else ""
            raise Unavailable("no OCI image layout", where=self._files.where, why=f"it has no {name}", hint=hint)
        with stream:
            return stream.read(limit + 1)

    def _choose(self, index: Index, version: str | None, digest: Digest | None, platform: Platform) -> Descriptor:
        """Return the entry that is meant. Entries that differ only in their platform are one image."""
        entries = self._candidates(index, version, digest)
        return entries[0] if len(entries) == 1 else select(Index(OCI_INDEX, tuple(entries)), platform)

    def _candidates(self, index: Index, version: str | None, digest: Digest | None) -> list[Descriptor]:
        entries = [e for e in index.manifests if not is_companion(e.annotations, e.annotations.get(REF_NAME, ""))]
        if self._ref is not None:
            entries = _named(index.manifests, self._ref)
        elif pinned := [entry for entry in entries if entry.digest == digest]:
            entries = pinned[:1]
        elif version is not None:
            # An image without any name may be called by the version; one with another name is another version.
            entries = _named(entries, version) or [e for e in entries if not e.annotations.get(REF_NAME)]
        names = sorted({entry.annotations.get(REF_NAME, "") for entry in entries})
        if not entries or len(names) > 1:
            raise self._ambiguous(index, version)
        return entries

    def _ambiguous(self, index: Index, version: str | None) -> AppboxError:
        names = sorted({name for entry in index.manifests if (name := entry.annotations.get(REF_NAME))})
        if not index.manifests:
            return Unavailable("the layout has no image", where=self._files.where)
        what = (
            f"the layout has no image {(self._ref or version)!r}"
            if self._ref or version
            else "the layout has several images"
        )
        why = f"it has {', '.join(names[:20])}" if names else f"it has {len(index.manifests)} without a name"
        return Unavailable(what, where=self._files.where, why=why, hint="name one behind the path, as in oci:DIR:REF")

    def _document(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified, and keep a copy in the cache so that the image can be looked at later."""
        data = self.small_blob(descriptor)
        if not self._cache.has(descriptor.digest):
            self._cache.put(descriptor.digest, data)
        return data

    def small_blob(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified by size and digest; it does not go into the cache."""
        if descriptor.size > DOCUMENT_LIMIT:
            raise Refused(f"the document is larger than {DOCUMENT_LIMIT} bytes", where=self._blob(descriptor))
        with self._open(descriptor) as stream:
            data = stream.read(descriptor.size + 1)
        if len(data) != descriptor.size or not descriptor.digest.matches(data):
            raise Refused(
                "the blob does not have its size and digest", where=self._blob(descriptor), hint=_OPEN_BLOB_HINT
            )
        return data

    def _open(self, descriptor: Descriptor) -> BinaryIO:
        stream = self._files.open(f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}")
        if stream is None:
            raise Unavailable("the layout lacks a blob", where=self._blob(descriptor), hint=_OPEN_BLOB_HINT)
        return stream

    def _blob(self, descriptor: Descriptor) -> str:
        return f"{self._files.where}/blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"


def _named(entries: Sequence[Descriptor], name: str) -> list[Descriptor]:
    return [entry for entry in entries if entry.annotations.get(REF_NAME) == name]
