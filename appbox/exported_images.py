"""The images of installed services, brought together blob by blob: what was installed, not what a tag means by now.

Manifest and configuration are in the version's directory, layers in the cache; what is not there any more is fetched by
its digest from where the image came from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.export_index import Exported
from appbox.oci import model
from appbox.oci.cache import CHUNK, REF_NAME, Cache
from appbox.oci.conversion import as_oci
from appbox.oci.digest import Digest
from appbox.oci.json_document import DOCUMENT_LIMIT
from appbox.oci.model import DOCKER_MANIFEST, OCI_MANIFEST, Descriptor, ImageManifest
from appbox.oci.reference import RegistryImage, parse_image
from appbox.oci.source import Document, Progress, Source, open_source
from appbox.store import files, paths
from appbox.store.installed import Installed
from appbox.store.root import Root

_GENERIC: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that can be opened: a document in memory, or a layer of `source`."""

    digest: Digest
    size: int
    source: Source | Document
    media_type: str = _GENERIC

    def blocks(self) -> Iterator[bytes]:
        """Yield its bytes; raise `Refused` in the end unless they have the digest."""
        if isinstance(self.source, Document):
            yield self.source.data
            return
        hasher, size = self.digest.hasher(), 0
        with self.open() as stream:
            while data := stream.read(CHUNK):
                hasher.update(data)
                size += len(data)
                yield data
        if size != self.size or hasher.hexdigest() != self.digest.hex:
            raise Refused("the layer does not have its digest", where=str(self.digest))

    def open(self, progress: Progress | None = None) -> BinaryIO:
        """Open a layer, bringing it here if need be."""
        assert not isinstance(self.source, Document)  # noqa: S101
        return self.source.blob(Descriptor(self.media_type, self.digest, self.size), progress)


class Images:
    """What is exported of images; layers that several have are there once. A context manager."""

    def __init__(self, root: Root, cache: Cache, progress: Progress | None = None) -> None:
        self._root, self._cache, self._progress = root, cache, progress
        self._sources: dict[str, Source] = {}
        self._blobs: dict[Digest, Blob] = {}
        self._tops: dict[str, Document] = {}

    def add(self, installed: Installed, *, in_layout: bool) -> str:
        """Add the image of an installed service, everything of it within reach, and return the digest of its index.

        `in_layout`: it will lie in a layout, which lists it without its index; that is "" then, as for an image that
        has none. Raises Unavailable for a blob that is nowhere any more.
        """
        manifest_bytes, config_bytes, manifest = self._documents(installed)
        digest = Digest.parse(installed.digest)
        top = Document(digest, manifest_bytes, manifest.media_type)
        self._tops[installed.name] = top
        self._hold(top)
        self._hold(Document(manifest.config.digest, config_bytes))
        source = self._source(installed)
        for layer in manifest.layers:
            if layer.digest not in self._blobs:
                blob = Blob(layer.digest, layer.size, source, layer.media_type)
                try:
                    # A bar is for what is fetched.
                    blob.open(None if self._cache.has(layer.digest) else self._progress).close()
                except Unavailable as error:
                    raise _lost(installed, f"the layer {layer.digest}", error) from error
                self._blobs[layer.digest] = blob
        index = "" if in_layout else str(installed.meta["image"].get("index", ""))
        if index:
            self._hold(Document(Digest.parse(index), self._index(installed, source, Digest.parse(index))))
        return index

    def listed(self, service: Exported) -> dict[str, Any]:
        """Return the entry of a layout's index.json for a service's image, under the name that it has there.

        One of Docker's is listed under OCI's media types, as other tools look for no others in a layout.
        """
        top = self._tops[service.name]
        if top.media_type == DOCKER_MANIFEST:
            (top,) = as_oci([top])
            self._hold(top)
        name = service.image.rpartition(":")[2] if service.image.startswith("oci:") else service.reference
        kind = top.media_type or OCI_MANIFEST
        entry = {"mediaType": kind, "digest": str(top.digest), "size": len(top.data)}
        return {**entry, "annotations": {REF_NAME: name}}

    def blobs(self) -> list[Blob]:
        """Return all of them, sorted by digest."""
        return [self._blobs[digest] for digest in sorted(self._blobs)]

    def close(self) -> None:
        """Let go of connections and files."""
        for source in self._sources.values():
            source.close()
        self._sources = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hold(self, document: Document) -> None:
        self._blobs.setdefault(document.digest, Blob(document.digest, len(document.data), document))

    def _documents(self, installed: Installed) -> tuple[bytes, bytes, ImageManifest]:
        """Return manifest and configuration of an installed image, verified."""
        where = f"{paths.CONTAINERS}/{installed.directory}/{paths.IMAGE}"
        hint = f"apply the manifest of {installed.name}, which repairs it"
        try:
            with (
                self._root.directory(paths.CONTAINERS) as containers,
                files.directory(f"{installed.directory}/{paths.IMAGE}", containers) as fd,
            ):
                manifest_bytes = files.read("manifest.json", DOCUMENT_LIMIT, fd)
                config_bytes = files.read("config.json", DOCUMENT_LIMIT, fd)
        except OSError as error:
            raise AppboxError("cannot be read", where=where, why=error.strerror or str(error), hint=hint) from error
        if not Digest.parse(installed.digest).matches(manifest_bytes):
            raise Refused("the image's manifest is not the one that was installed", where=where, hint=hint)
        manifest = model.parse_manifest(manifest_bytes)
        if not manifest.config.digest.matches(config_bytes):
            raise Refused("the image's configuration is not the one that was installed", where=where, hint=hint)
        return manifest_bytes, config_bytes, manifest

    def _source(self, installed: Installed) -> Source:
        """Return where a service's image came from; one for all services that have it from there."""
        name = parse_image(str(installed.meta["manifest"]["image"]))
        folder = os.path.dirname(str(installed.meta.get("source", "/")))
        key = str(name) if isinstance(name, RegistryImage) else os.path.join(folder, str(name))
        if key not in self._sources:
            try:
                self._sources[key] = open_source(name, self._cache, base_dir=folder)
            except Unavailable as error:
                raise _lost(installed, f"the image {installed.digest}", error) from error
        return self._sources[key]

    def _index(self, installed: Installed, source: Source, digest: Digest) -> bytes:
        """Return the index that an image was chosen from: who pins it asks for it."""
        data = self._cache.document(digest)
        if data is not None:
            return data
        try:
            return source.top(installed.version, digest).data
        except Unavailable as error:
            raise _lost(installed, f"the index {digest}", error) from error


def _lost(installed: Installed, what: str, error: Unavailable) -> Unavailable:
    """Return the error for what is neither in the cache nor where the image came from."""
    hint = "export it while its registry can be reached"
    return Unavailable(f"{what} is not in the cache any more", where=installed.name, why=str(error), hint=hint)
