"""A repository of a registry as a source of images, with the cache between them. Not here: HTTP.

A tag costs one HEAD when the cache has what it means, a pinned digest that the cache has costs nothing at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from appbox.errors import Missing, Refused, UsageError
from appbox.oci.arrival import Arrival
from appbox.oci.cache import BlobWriter, Cache
from appbox.oci.contents import kind_of
from appbox.oci.digest import Digest
from appbox.oci.limits import HELD_COMPRESSED
from appbox.oci.model import DOCKER_MANIFEST, INDEX_TYPES, MANIFEST_TYPES, NEUTRAL_TYPES, Descriptor, Image, Platform
from appbox.oci.reference import RegistryImage, check_tag
from appbox.oci.registry import Registry
from appbox.oci.settings import Settings
from appbox.oci.source import Document, Opener, Progress, assemble

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
        self._connect = partial(Registry, image, settings, wire=wire)
        self._registry = self._connect()

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
        for layer in image.manifest.layers:
            self._cache.sound(layer)  # drops what is not
        with self.arriving(image, progress):
            pass

    @contextmanager
    def arriving(self, image: Image, progress: Progress | None = None) -> Iterator[Opener]:
        """Download the layers, several at once, while the caller reads them; they are in the cache afterwards."""
        layers = list({layer.digest: layer for layer in image.manifest.layers}.values())
        arrivals = {layer.digest: Arrival() for layer in layers}
        with contextlib.ExitStack() as stack:
            for arrival in arrivals.values():
                stack.callback(arrival.close)
            pool = stack.enter_context(ThreadPoolExecutor(PARALLEL, thread_name_prefix="layer"))
            futures = [pool.submit(self._bring, layer, arrivals[layer.digest], progress) for layer in _in_turn(layers)]
            try:
                yield lambda descriptor: arrivals[descriptor.digest].open()
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                for future in futures:
                    future.cancel()
                self._registry.abort()
                raise
        self._cache.settle()
        self._list(image)

    def _list(self, image: Image) -> None:
        """List the image, which is whole now, in the cache's index.

        One of Docker's is listed under OCI's media types, as skopeo and umoci look for no others in a layout.
        """
        listed = image.descriptor()
        if listed.media_type == DOCKER_MANIFEST:
            from appbox.oci.conversion import as_oci  # noqa: PLC0415 - few registries have them still

            (document,) = as_oci([Document(image.digest, image.manifest_bytes, listed.media_type)])
            self._cache.put(document.digest, document.data)
            kind, digest, size = document.media_type, document.digest, len(document.data)
            listed = replace(listed, media_type=kind, digest=digest, size=size)
        self._cache.name(image.reference, listed)

    def recheck(self, image: Image) -> bool:
        """Drop the layers that rotted in the cache, and bring those that a mirror may have lied in.

        Return whether there were any: who reads a layer while it comes in may stumble over a lie before it ends.
        """
        layers = dict.fromkeys(image.manifest.layers)
        kept = [layer for layer in layers if self._cache.has(layer.digest)]
        rotten = [layer for layer in kept if not self._cache.sound(layer)]
        doubtful = [layer for layer in layers if self._registry.doubts(layer.digest)]
        if not rotten and not doubtful:
            return False
        self._registry.close()
        self._registry = self._connect()  # what failed has ended the downloads beside it for good
        for layer in doubtful:
            self.blob(layer).close()
        return True

    def top(self, version: str | None, digest: Digest | None) -> Document:
        """Return the index or manifest with `digest`, or else the one that the tag `version` means now."""
        if digest is not None:
            return self._pinned(digest)
        if version is None:
            raise UsageError(f"{self._image} needs a version or a digest")
        return self._tagged(check_tag(version))

    def tags(self) -> list[str]:
        """Return the tags of the repository."""
        return self._registry.tags()

    def said(self, tag: str) -> Digest | None:
        """Return what the registry says that a tag means now; None when it does not say. Costs no metered pull."""
        return self._registry.head(check_tag(tag))

    def entry(self, descriptor: Descriptor) -> bytes:
        """Return an entry of an index, from the cache if it is there."""
        if descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES:
            return self._document(descriptor)
        data = self._cache.read(descriptor)
        if data is None:
            data, _ = self._registry.manifest(descriptor.digest)
            if len(data) != descriptor.size:
                why = f"it has {len(data)} bytes, not {descriptor.size}"
                raise Refused(
                    "the manifest does not have its size", where=f"{self._image}@{descriptor.digest}", why=why
                )
            self._cache.put(descriptor.digest, data)
        return data

    def blob(self, descriptor: Descriptor, progress: Progress | None = None) -> BinaryIO:
        """Bring one blob into the cache and open it."""
        self._cache.sound(descriptor)  # drops it when it is not
        with contextlib.closing(Arrival()) as arrival:
            self._bring(descriptor, arrival, progress)
        return self._cache.open(descriptor.digest)

    def companions(self, tag: str) -> list[Document]:
        """Return the manifest under another tag of the repository, [] for none; it does not go into the cache."""
        try:
            data, kind = self._registry.manifest(check_tag(tag))
        except Missing:
            return []
        return [Document(Digest.of(data), data, kind)]

    def small_blob(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified by size and digest; it does not go into the cache."""
        return self._registry.document(descriptor)

    def abort(self) -> None:
        """Make what is under way in other threads fail soon."""
        self._registry.abort()

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
        kind_of(document.data, document.media_type)  # the cache does not keep what a registry has called it
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

    def _bring(self, layer: Descriptor, arrival: Arrival, progress: Progress | None) -> None:
        """Download a layer unless it is in the cache; its readers get the error, too, when that fails."""

        def report(done: int) -> None:
            if progress:
                progress(layer.digest, done, layer.size)

        try:
            with self._cache.writer(layer.digest, layer.size, self._registry.aborted) as blob:
                if blob.complete:
                    arrival.stored(lambda: self._cache.open(layer.digest))
                else:
                    self._registry.download(layer, _Followed(blob, arrival), report)
                    arrival.finish()
                    blob.commit()
        except BaseException as error:
            arrival.fail(error)
            raise
        report(layer.size)


class _Followed:
    """A blob being written whose arrival is told about it."""

    def __init__(self, blob: BlobWriter, arrival: Arrival) -> None:
        self._blob, self._arrival = blob, arrival
        self.size = blob.size
        arrival.begin(blob.fileno())

    @property
    def done(self) -> int:
        return self._blob.done

    def write(self, data: bytes) -> None:
        self._blob.write(data)
        self._arrival.advance(self._blob.done)

    def restart(self) -> None:
        if self._blob.done:
            self._arrival.start_over()
            self._blob.restart()

    def verify(self) -> None:
        self._blob.verify()


def _in_turn(layers: Sequence[Descriptor]) -> list[Descriptor]:
    """Return the layers in the order in which to ask for them: the small ones tell early what they hide of others."""
    return sorted(layers, key=lambda layer: layer.size > HELD_COMPRESSED)
