"""A repository of a registry as a source of images, with the cache between them. Not here: HTTP.

A tag costs one HEAD when the cache has what it means, a pinned digest that the cache has costs nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from appbox.errors import Refused, UsageError
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.model import INDEX_TYPES, MANIFEST_TYPES, NEUTRAL_TYPES, Descriptor, Image, Platform
from appbox.oci.reference import RegistryImage, check_tag
from appbox.oci.registry import Registry
from appbox.oci.settings import Settings
from appbox.oci.source import Document, Progress, assemble

if TYPE_CHECKING:
    import httpx

    from appbox.oci.transport import Route

PARALLEL = 4  # downloads at once, as many as registries take from one client without complaint


class RegistrySource:
    """The versions of one repository. Nothing is asked before `resolve`."""

    def __init__(
        self,
        image: RegistryImage,
        cache: Cache,
        settings: Settings,
        *,
        wire: Callable[[Route], httpx.BaseTransport] | None = None,
    ) -> None:
        self._image, self._cache = image, cache
        self._registry = Registry(image, settings, wire=wire)

    def resolve(self, version: str | None, digest: Digest | None, platform: Platform) -> Image:
        """Return the image with `digest`, or else the one that the tag `version` means now."""
        if digest is not None:
            name = f"{self._image}:{version}" if version else f"{self._image}@{digest}"
            return assemble(name, self._pinned(digest), platform, self._document)
        if version is None:
            raise UsageError(f"{self._image} needs a version or a digest")
        top = self._tagged(check_tag(version))
        return assemble(f"{self._image}:{version}", top, platform, self._document)

    def fetch(self, image: Image, progress: Progress | None = None) -> None:
        """Bring the missing layers into the cache, several at once, and list the image in the cache's index."""
        layers = {layer.digest: layer for layer in image.manifest.layers}
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="layer") as pool:
            futures = [pool.submit(self._fetch_layer, layer, progress) for layer in layers.values()]
            self._wait(futures)
        self._cache.name(image.reference, image.descriptor())

    def layer(self, image: Image, descriptor: Descriptor) -> BinaryIO:
        """Open a fetched layer."""
        return self._cache.open(descriptor.digest)

    def close(self) -> None:
        """Close the connections."""
        self._registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pinned(self, digest: Digest) -> Document:
        data = self._cache.document(digest)
        if data is not None:
            return Document(digest, data)
        data, kind = self._registry.manifest(digest)
        return self._kept(Document(digest, data, kind))

    def _tagged(self, tag: str) -> Document:
        said = self._registry.head(tag)
        if said is not None and (data := self._cache.document(said)) is not None:
            return Document(said, data)
        # By digest where we know it: then what was said and what is sent must be the same.
        data, kind = self._registry.manifest(said or tag)
        return self._kept(Document(said or Digest.of(data), data, kind))

    def _kept(self, document: Document) -> Document:
        self._cache.put(document.digest, document.data)
        return document

    def _document(self, descriptor: Descriptor) -> bytes:
        """Return an entry of an index or a configuration, from the cache if it is there."""
        data = self._cache.read(descriptor)
        if data is None:
            data = self._download_document(descriptor)
            self._cache.put(descriptor.digest, data)
        return data

    def _download_document(self, descriptor: Descriptor) -> bytes:
        if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
            return self._registry.document(descriptor)
        data, kind = self._registry.manifest(descriptor.digest)
        said = kind.partition(";")[0].strip().lower()
        if len(data) != descriptor.size or said not in NEUTRAL_TYPES | {descriptor.media_type}:
            why = (
                f"the index says {descriptor.size} bytes of {descriptor.media_type}, the registry {len(data)} of {said}"
            )
            raise Refused(
                "the manifest is not what the index says", where=f"{self._image}@{descriptor.digest}", why=why
            )
        return data

    def _fetch_layer(self, layer: Descriptor, progress: Progress | None) -> None:
        def report(done: int) -> None:
            if progress:
                progress(layer.digest, done, layer.size)

        if not self._cache.sound(layer):
            with self._cache.writer(layer.digest, layer.size, self._registry.aborted) as blob:
                if not blob.complete:
                    self._registry.download(layer, blob, report)
                    blob.commit()
        report(layer.size)

    def _wait(self, futures: list[Future[None]]) -> None:
        """Return when all are done; at the first failure, or when the user gives up, stop the others."""
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            self._registry.abort()
            raise
