"""Where an image comes from: the one entry to registries, layouts and archives for the rest of appbox.

`resolve` reads a manifest and a configuration, `fetch` makes the layers available, `layer` opens one. Everything that
is handed out was verified against the digest that names it; layers of a layout are read in place, those of a registry
go through the cache.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Protocol, Self, TypeAlias

from appbox.errors import Refused
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.model import (
    Descriptor,
    Image,
    ImageManifest,
    Platform,
    check,
    parse_config,
    parse_document,
    select,
)
from appbox.oci.reference import DockerArchive, ImageName, ImageRef, OciArchive, OciLayout, RegistryImage
from appbox.oci.settings import Settings

INDEX_DEPTH = 3  # indexes inside of indexes; tools make one or two


class Progress(Protocol):
    """Told how far a layer is, from any thread, about every MiB and at its end. `total` is its size in bytes."""

    def __call__(self, digest: Digest, done: int, total: int) -> None: ...


Opener: TypeAlias = Callable[[Descriptor], BinaryIO]
"""Opens the compressed bytes of a layer; may be called several times for the same one."""


class Source(Protocol):
    """A place that holds one image or several versions of it. Use it in a `with` statement, or `close` it."""

    def resolve(self, version: str | None, digest: Digest | None, platform: Platform) -> Image:
        """Return the image for `platform`. `digest`, of an index or a manifest, decides over `version`.

        Manifest and configuration are in the cache afterwards. `Unavailable` when there is no such image, `Refused`
        when it is not what it claims to be.
        """
        ...

    def fetch(self, image: Image, progress: Progress | None = None) -> None:
        """Make every layer of `image` available and verify it by size and digest."""
        ...

    def top(self, version: str | None, digest: Digest | None) -> Document:
        """Return the index or manifest that is named, its bytes as they are. Raises as `resolve` does."""
        ...

    def tags(self) -> list[str]:
        """Return the versions that there are: a repository's tags, or those by which a layout or archive names images.

        Where the reference itself names one image, only its tag.
        """
        ...

    def entry(self, descriptor: Descriptor) -> bytes:
        """Return an entry of an index, verified, whatever kind of document it is."""
        ...

    def blob(self, descriptor: Descriptor, progress: Progress | None = None) -> BinaryIO:
        """Make one blob available and open it; the reader checks its digest. Any thread may call this."""
        ...

    def abort(self) -> None:
        """Make what is under way in other threads fail soon."""
        ...

    def layer(self, image: Image, descriptor: Descriptor) -> BinaryIO:
        """Open the compressed bytes of a fetched layer."""
        ...

    def arriving(self, image: Image, progress: Progress | None = None) -> AbstractContextManager[Opener]:
        """Make the layers available while they are read: inside, what it gives opens one, maybe still on its way.

        Leaving it waits until all of them are available. Whoever reads checks their digests, unless what was opened is
        an `Incoming` that is `checked`.
        """
        ...

    def recheck(self, image: Image) -> bool:
        """Look whether what was read was damaged here or on its way; return whether reading again may help."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class InPlace(ABC):
    """What sources have in common whose layers lie on this machine and are read where they lie."""

    @abstractmethod
    def fetch(self, image: Image, progress: Progress | None = None) -> None:
        """See `Source`."""

    @abstractmethod
    def layer(self, image: Image, descriptor: Descriptor) -> BinaryIO:
        """See `Source`."""

    @contextmanager
    def arriving(self, image: Image, progress: Progress | None = None) -> Iterator[Opener]:
        """Give what opens a layer; all is there already."""

        def open_(descriptor: Descriptor) -> BinaryIO:
            stream = self.layer(image, descriptor)
            if progress:
                progress(descriptor.digest, descriptor.size, descriptor.size)
            return stream

        yield open_

    def recheck(self, image: Image) -> bool:
        """Raise `Refused` for a layer that is damaged, which says it better than whoever stumbled over it."""
        self.fetch(image)
        return False


def open_source(
    ref: ImageName | ImageRef, cache: Cache, *, base_dir: str = ".", settings: Settings | None = None
) -> Source:
    """Return the source that `ref` names; relative paths of layouts start at `base_dir`. Touches no network yet."""
    name = ref.image if isinstance(ref, ImageRef) else ref
    # Each kind is imported when it is wanted: the registry client costs 70 ms, which a layout need not pay.
    if isinstance(name, RegistryImage):
        from appbox.oci.pull import RegistrySource  # noqa: PLC0415

        return RegistrySource(name, cache, settings or Settings())
    path = os.path.abspath(os.path.join(base_dir, name.path))
    if isinstance(name, DockerArchive):
        from appbox.oci.docker_archive import DockerArchiveSource  # noqa: PLC0415

        return DockerArchiveSource(path, name.ref, cache)
    from appbox.oci.layout import LayoutSource, open_archive, open_layout  # noqa: PLC0415

    store = open_layout(path) if isinstance(name, OciLayout) else open_archive(path, cache.path)
    return LayoutSource(store, name.ref, str(type(name)(path, name.ref)), cache)


Fetch: TypeAlias = Callable[[Descriptor], bytes]
"""Returns the verified bytes of a document: an index, a manifest or a configuration."""


@dataclass(frozen=True, slots=True)
class Document:
    """A verified index or manifest, and what its sender calls it."""

    digest: Digest
    data: bytes
    media_type: str = ""


def assemble(reference: str, top: Document, platform: Platform, fetch: Fetch) -> Image:
    """Return the image that `top` leads to: itself, or the entry of an index for `platform`."""
    digest, data, media_type, index_digest = top.digest, top.data, top.media_type, None
    for _ in range(INDEX_DEPTH + 1):
        document = parse_document(data, media_type)
        if isinstance(document, ImageManifest):
            config_bytes = fetch(document.config)
            config = parse_config(config_bytes)
            check(document, config, platform)
            return Image(reference, digest, index_digest, platform, document, config, data, config_bytes)
        index_digest = index_digest or digest
        entry = select(document, platform)
        data, digest, media_type = fetch(entry), entry.digest, entry.media_type
    raise Refused(f"the image's indexes are nested more than {INDEX_DEPTH} deep", where=reference)


__all__ = [
    "Cache",
    "Document",
    "Fetch",
    "Image",
    "OciArchive",
    "Progress",
    "Settings",
    "Source",
    "assemble",
    "open_source",
]
