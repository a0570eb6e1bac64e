"""Archives as `docker save` and `podman save` write them, as a source of images.

`manifest.json` lists images: a configuration, the layers lowest first, and names (Docker Image Specification v1.2,
"Combined Image JSON + Filesystem Changeset Format"). There is no manifest with digests, so one is made of the files as
they are stored: a plain layer has its diff_id for a digest, a compressed one that of its bytes. So the same archive
always has the same digests, and everything is checked again where it is read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from appbox.errors import Refused, Unavailable, UsageError
from appbox.oci import json_document as fields
from appbox.oci.archive import Archive
from appbox.oci.cache import Cache, digest_of
from appbox.oci.contents import manifest_of
from appbox.oci.digest import Digest
from appbox.oci.expand import compression_of
from appbox.oci.image_config import parse_config
from appbox.oci.json_document import DOCUMENT_LIMIT
from appbox.oci.model import LAYER_LIMIT, OCI_CONFIG, OCI_MANIFEST, Descriptor, Image, Platform
from appbox.oci.reference import DockerArchive, docker_name, tags_of
from appbox.oci.source import Document, InPlace, Progress, assemble

IMAGE_LIMIT: Final = 1024
"""Images of one archive."""
_WHAT: Final = "manifest.json of the archive"
_MEDIA_TYPES: Final = {
    "plain": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
_CHANGED_HINT: Final = "the archive has changed: run the same command again"
_BLOB: Final = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class _Item:
    """An image of `manifest.json`: names of members, and RepoTags written out."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


class DockerArchiveSource(InPlace):
    """The images of one archive; `ref` is a whole NAME:TAG, or @N for the Nth."""

    def __init__(self, path: str, ref: str | None, cache: Cache) -> None:
        self._where, self._ref, self._cache = path, ref, cache
        self._archive = Archive(path, cache.path)
        self._members: dict[Digest, str] = {}
        self._stored: dict[str, Digest] = {}

    def resolve(self, version: str | None, digest: Digest | None, platform: Platform) -> Image:
        """Return the image that the archive's own REF names, else the tag `version`, else the only one."""
        top = self.top(version, digest)
        image = assemble(str(DockerArchive(self._where, self._ref)), top, platform, self._document)
        if digest not in (None, image.digest):
            why = f"it has {image.digest}"
            raise Refused("the image does not have the digest asked for", where=image.reference, why=why)
        return image

    def top(self, version: str | None, digest: Digest | None) -> Document:
        """Return the manifest that is made for the image that is named."""
        items = _items(self._read("manifest.json"), self._where)
        if digest is not None and self._ref is None:
            made = (self._manifest(item) for item in items)
            if found := next((one for one in made if one.digest == digest), None):
                return found
        return self._manifest(self._choose(items, version))

    def tags(self) -> list[str]:
        """Return the tags by which images are named, or that of the one that the reference names."""
        items = _items(self._read("manifest.json"), self._where)
        if self._ref is not None:
            return tags_of(self._choose(items, None).names if self._ref.startswith("@") else [self._ref])
        return tags_of(name for item in items for name in item.names)

    def entry(self, descriptor: Descriptor) -> bytes:
        """Return a document by its digest; archives have no indexes, so only the manifest's own."""
        return self._document(descriptor)

    def blob(self, descriptor: Descriptor, progress: Progress | None = None) -> BinaryIO:
        """Open a configuration or layer in place; its size was looked at, its digest is for the reader to check."""
        del progress  # whoever reads it tells more
        return self._open(self._member(descriptor.digest))

    def abort(self) -> None:
        """Nothing here waits."""

    def fetch(self, image: Image, progress: Progress | None = None) -> None:
        """Read every layer once and raise `Unavailable` for a missing, `Refused` for a wrong one."""
        for layer in dict.fromkeys(image.manifest.layers):
            with self.layer(image, layer) as stream:
                found = digest_of(stream, layer.digest)
            if found != layer.digest:
                where = f"{self._where}: {self._members[layer.digest]}"
                raise Refused(
                    "the layer does not have its digest", where=where, why=f"{found} instead of {layer.digest}"
                )
            if progress:
                progress(layer.digest, layer.size, layer.size)

    def layer(self, image: Image, descriptor: Descriptor) -> BinaryIO:
        """Open a layer in place; its digest is for the reader to check again."""
        del image
        return self.blob(descriptor)

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _choose(self, items: Sequence[_Item], version: str | None) -> _Item:
        """Return the image that is meant; a version is a tag, and fits an image without any name."""
        found = list(items)
        if self._ref is not None and self._ref.startswith("@"):
            found = list(items[int(self._ref[1:]) :][:1])
        elif self._ref is not None:
            found = [item for item in items if self._ref in item.names]
        elif version is not None:
            tagged = [item for item in items if any(name.endswith(f":{version}") for name in item.names)]
            found = tagged or [item for item in items if not item.names]
        if len(found) == 1:
            return found[0]
        wanted = self._ref or version
        what = f"the archive has no image {wanted!r}" if wanted and not found else "the archive has several images"
        names = ", ".join(", ".join(item.names) or f"@{at}" for at, item in enumerate(items[:20]))
        hint = "name one behind the path, as in docker-archive:FILE:NAME:TAG or docker-archive:FILE:@0"
        raise Unavailable(
            what if items else "the archive has no image", where=self._where, why=f"it has {names}"[:1000], hint=hint
        )

    def _manifest(self, item: _Item) -> Document:
        config_bytes = self._read(item.config)
        config = Descriptor(OCI_CONFIG, Digest.of(config_bytes), len(config_bytes))
        self._members[config.digest] = item.config
        diff_ids = parse_config(config_bytes).diff_ids
        if len(diff_ids) != len(item.layers):
            why = f"{len(item.layers)} layers for {len(diff_ids)} in the configuration"
            raise Refused(f"{_WHAT} and the configuration disagree", where=self._where, why=why)
        layers = [self._layer(name, diff_id) for name, diff_id in zip(item.layers, diff_ids, strict=True)]
        data = manifest_of(config, layers)
        digest = Digest.of(data)
        if not self._cache.has(digest):
            self._cache.put(digest, data)
        return Document(digest, data, OCI_MANIFEST)

    def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        with self._open(name) as stream:
            compression = compression_of(stream.read(4))
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            digest = diff_id if compression == "plain" else self._digest(name, stream)
        self._members[digest] = name
        return Descriptor(_MEDIA_TYPES[compression], digest, size)

    def _digest(self, name: str, stream: BinaryIO) -> Digest:
        """Return the digest of a compressed layer: what its name says, which is checked later, or what it has."""
        name = self._archive.target(name)
        if (match := _BLOB.fullmatch(name)) is not None:
            return Digest(match[1], match[2])
        if name not in self._stored:
            self._stored[name] = digest_of(stream, Digest("sha256", "0" * 64))
        return self._stored[name]

    def _member(self, digest: Digest) -> str:
        """Return the file with a digest; also when the image was resolved by another source of the same archive."""
        if digest not in self._members:
            for item in _items(self._read("manifest.json"), self._where):
                self._manifest(item)
        if digest not in self._members:
            why = f"nothing in it has the digest {digest}"
            raise Unavailable("the archive lacks a blob", where=self._where, why=why, hint=_CHANGED_HINT)
        return self._members[digest]

    def _document(self, descriptor: Descriptor) -> bytes:
        data = self._read(self._member(descriptor.digest))
        if len(data) != descriptor.size or not descriptor.digest.matches(data):
            raise Refused("the blob does not have its size and digest", where=self._where, why=str(descriptor.digest))
        if not self._cache.has(descriptor.digest):
            self._cache.put(descriptor.digest, data)
        return data

    def _read(self, name: str) -> bytes:
        with self._open(name) as stream:
            data = stream.read(DOCUMENT_LIMIT + 1)
        if len(data) > DOCUMENT_LIMIT:
            raise Refused(f"{name} is larger than {DOCUMENT_LIMIT} bytes", where=self._where)
        return data

    def _open(self, name: str) -> BinaryIO:
        stream = self._archive.open(name)
        if stream is None:
            what = "this is no archive of docker save" if name == "manifest.json" else "the archive lacks a file"
            hint = "an archive of an OCI layout is oci-archive:FILE" if self._archive.open("index.json") else ""
            raise Unavailable(what, where=self._where, why=f"it has no {name[:200]}", hint=hint)
        return stream


def _items(data: bytes, where: str) -> tuple[_Item, ...]:
    listed = fields.parse_list(data, _WHAT)
    if len(listed) > IMAGE_LIMIT:
        raise Refused(f"the archive has more than {IMAGE_LIMIT} images", where=where)
    return tuple(map(_item, listed))


def _item(value: Any) -> _Item:
    if not isinstance(value, dict):
        raise Refused(f"an entry of {_WHAT} is not an object")
    layers = fields.texts(value, "Layers", _WHAT)
    if len(layers) > LAYER_LIMIT:
        raise Refused(f"the image has {len(layers)} layers", why=f"more than {LAYER_LIMIT}")
    config = fields.text(value, "Config", _WHAT)
    for name in (config, *layers):
        if not name or name.startswith("/") or ".." in name.split("/"):
            raise Refused(f"{_WHAT} names a file outside of the archive", why=repr(name[:200]))
    return _Item(config, layers, tuple(_names(fields.texts(value, "RepoTags", _WHAT))))


def _names(tags: Sequence[str]) -> Iterator[str]:
    """Yield the names written out, as a reference has them; what is none can be named by its position only."""
    for tag in tags:
        with contextlib.suppress(UsageError):
            yield docker_name(tag)
