"""Where an image comes from: the one entry to registries, layouts and archives for the rest of appbox.

`resolve` reads a manifest and a configuration, `fetch` makes the layers available, `layer` opens one. Everything that
is handed out was verified against the digest that names it; layers of a layout are read in place, those of a registry
go through the cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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
from appbox.oci.reference import ImageName, ImageRef, OciArchive, OciLayout, RegistryImage
from appbox.oci.settings import Settings

INDEX_DEPTH = 3  # indexes inside of indexes; tools make one or two


class Progress(Protocol):
    """Told how far a layer is, from any thread, about every MiB and at its end. `total` is its size in bytes."""

    def __call__(self, digest: Digest, done: int, total: int) -> None: ...


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

    def layer(self, image: Image, descriptor: Descriptor) -> BinaryIO:
        """Open the compressed bytes of a fetched layer."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(
    ref: ImageName | ImageRef, cache: Cache, *, base_dir: str = ".", settings: Settings | None = None
) -> Source:
    """Return the source that `ref` names; relative paths of layouts start at `base_dir`. Touches no network yet."""
    name = ref.image if isinstance(ref, ImageRef) else ref
    # Each kind is imported when it is wanted: the registry client costs 70 ms, which a layout need not pay.
    if isinstance(name, RegistryImage):
        from appbox.oci.pull import RegistrySource  # noqa: PLC0415

        return RegistrySource(name, cache, settings or Settings())
    from appbox.oci.layout import LayoutSource, open_archive, open_layout  # noqa: PLC0415

    path = os.path.abspath(os.path.join(base_dir, name.path))
    store = open_layout(path) if isinstance(name, OciLayout) else open_archive(path)
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
