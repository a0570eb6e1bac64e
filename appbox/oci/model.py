"""Indexes, manifests and configurations of images, and the choice of a platform. Pure: bytes in, values out.

Rules of the image specification ("Image Manifest", "Image Index", "Content Descriptors") and of Docker's "Image
Manifest Version 2, Schema 2". A document is taken only when content type, `mediaType` and body say the same kind
(CVE-2021-41190): never is an index read as a manifest or a manifest as an index.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appbox.errors import Refused, Unavailable
from appbox.oci import json_document as fields
from appbox.oci.digest import HEX_LENGTH, Digest
from appbox.oci.image_config import History, ImageConfig, parse_config
from appbox.oci.json_document import DOCUMENT_LIMIT, parse_object
from appbox.oci.platform import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
LAYER_COMPRESSION: Mapping[str, str] = {  # media type -> plain, gzip or zstd
    **dict.fromkeys((_OCI_LAYER, _OCI_FOREIGN, _DOCKER_LAYER, _DOCKER_FOREIGN), "plain"),
    **{f"{kind}+{how}": how for kind in (_OCI_LAYER, _OCI_FOREIGN) for how in ("gzip", "zstd")},
    **{f"{kind}.{how}": how for kind in (_DOCKER_LAYER, _DOCKER_FOREIGN) for how in ("gzip", "zstd")},
}
LAYER_LIMIT = 1024  # layers of one image; Docker makes at most 127

_SCHEMA1_TYPES = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
# What file servers say of any JSON; it says nothing about the kind, so the body has to.
NEUTRAL_TYPES = frozenset({"", "application/json", "application/octet-stream", "text/plain"})
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
# Fields that belong to one kind only; compared in lower case, since parsers in Go do not look at the case of keys.
_INDEX_KEYS = frozenset({"manifests"})
_MANIFEST_KEYS = frozenset({"config", "layers"})
_SCHEMA1_KEYS = frozenset({"fslayers", "history"})


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is: media type, digest, size in bytes."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """The manifests of one image for several platforms."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """The parts of an image for one platform; `layers` has the lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose manifest and configuration were read and verified; its layers may still be elsewhere.

    `reference` is what a person calls it; `digest` that of the manifest; `index_digest` that of the index through
    which the platform was chosen, when there was one.
    """

    reference: str
    digest: Digest
    index_digest: Digest | None
    platform: Platform
    manifest: ImageManifest
    config: ImageConfig
    manifest_bytes: bytes
    config_bytes: bytes

    def descriptor(self) -> Descriptor:
        """Return the descriptor of the image's manifest."""
        media_type, size = self.manifest.media_type, len(self.manifest_bytes)
        return Descriptor(media_type, self.digest, size, platform=self.config.platform)


def parse_document(data: bytes, media_type: str = "") -> Index | ImageManifest:
    """Return the index or the manifest in `data`; `media_type` is what its sender or descriptor calls it.

    Entries of an index that only newer tools can read are left out. Raises `Refused` for a document that is neither,
    that could be read as both, or that is not what it is called.
    """
    return _parse(data, media_type, _is_beyond)


def _parse(data: bytes, media_type: str, left_out: Callable[[object], bool]) -> Index | ImageManifest:
    document = parse_object(data, "the image's manifest")
    said = media_type.partition(";")[0].strip().lower()
    kind = _kind(document, said)
    if kind in INDEX_TYPES:
        entries = [one for one in fields.items(document, "manifests", "the image's index") if not left_out(one)]
        return Index(kind, tuple(map(parse_descriptor, entries)), _annotations(document))
    return _manifest(document, kind)


def _is_beyond(entry: object) -> bool:
    """Tell an entry that nobody could choose and that only newer tools can read: of another kind, and so its digest."""
    if not isinstance(entry, dict) or not isinstance(digest := entry.get("digest"), str):
        return False
    kind, algorithm = entry.get("mediaType"), digest.partition(":")[0]
    return isinstance(kind, str) and kind not in INDEX_TYPES | MANIFEST_TYPES and algorithm not in HEX_LENGTH


def parse_index(data: bytes, media_type: str = "") -> Index:
    """Return the index in `data` with all its entries; a manifest is refused."""
    parsed = _parse(data, media_type, lambda entry: False)
    if not isinstance(parsed, Index):
        raise Refused("an image's manifest stands where an index is expected")
    return parsed


def parse_manifest(data: bytes, media_type: str = "") -> ImageManifest:
    """Return the manifest in `data`; an index is refused."""
    parsed = parse_document(data, media_type)
    if not isinstance(parsed, ImageManifest):
        raise Refused("an index stands where an image's manifest is expected")
    return parsed


def parse_artifact(data: bytes, media_type: str = "") -> tuple[Descriptor, ...]:
    """Return the layers of a manifest that need not be a container image's: of signatures, say. An index is refused."""
    document = parse_object(data, "the manifest")
    if _kind(document, media_type.partition(";")[0].strip().lower()) in INDEX_TYPES:
        raise Refused("an index stands where a manifest is expected")
    found = fields.items(document, "layers", "the manifest")
    if len(found) > LAYER_LIMIT:
        raise Refused(f"the manifest has {len(found)} layers", why=f"more than {LAYER_LIMIT}")
    return tuple(map(parse_descriptor, found))


def select(index: Index, platform: Platform) -> Descriptor:
    """Return the entry of `index` that suits `platform` best; raise `Unavailable`, listing what there is.

    Entries of other kinds (attestations, artifacts) are passed over. A lone entry without a platform is taken: the
    image's configuration, which says for what it is, is checked later.
    """
    known = [entry for entry in index.manifests if entry.media_type in MANIFEST_TYPES | INDEX_TYPES]
    ranks = ((platform.rank(entry.platform), entry) for entry in known if entry.platform)
    ranked = [(rank, entry) for rank, entry in ranks if rank is not None]
    if ranked:
        return max(ranked, key=lambda pair: pair[0])[1]  # the first of equals
    unnamed = [entry for entry in known if entry.platform is None]
    if len(unnamed) == 1:
        return unnamed[0]
    there = sorted({str(entry.platform) for entry in known if entry.platform} - {"unknown/unknown"})
    why = f"it is made for {', '.join(there)}" if there else "it lists no platform"
    raise Unavailable(f"the image is not made for {platform}", why=why)


def check(manifest: ImageManifest, config: ImageConfig, platform: Platform) -> None:
    """Raise `Refused` unless the two belong together, and `Unavailable` unless they are for `platform`."""
    layers, diff_ids = len(manifest.layers), len(config.diff_ids)
    if layers != diff_ids:
        raise Refused(f"the image's manifest has {layers} layers, its configuration {diff_ids}")
    if platform.rank(config.platform) is None:
        raise Unavailable(f"the image is not made for {platform}", why=f"it is for {config.platform}")


def _kind(document: Mapping[str, Any], said: str) -> str:
    """Return the one media type that sender, `mediaType` and body agree on."""
    own = fields.text(document, "mediaType", "the image's manifest", default="")
    refuse_schema1(document, {said, own})
    if fields.number(document, "schemaVersion", "the image's manifest") != 2:
        raise Refused(f"schemaVersion {document['schemaVersion']} of the image's manifest is unknown")
    if own and said not in NEUTRAL_TYPES and said != own:
        raise Refused("the image's manifest is not what it is called", why=f"{said} is called {own} inside")
    kind = own or (said if said not in NEUTRAL_TYPES else _kind_of_body(document))
    if kind not in INDEX_TYPES | MANIFEST_TYPES:
        raise Refused("this is not a container image", why=f"its media type is {kind[:130]}")
    refuse_ambiguous(document, kind)
    return kind


def refuse_ambiguous(document: Mapping[str, Any], kind: str) -> None:
    """Raise `Refused` for an index or manifest with what belongs to another kind."""
    body = {key.lower() for key in document} & (_INDEX_KEYS | _MANIFEST_KEYS | _SCHEMA1_KEYS)
    if body - (_INDEX_KEYS if kind in INDEX_TYPES else _MANIFEST_KEYS):
        raise Refused("the image's manifest could be read in two ways", why=f"{kind} has {', '.join(sorted(body))}")


def _kind_of_body(document: Mapping[str, Any]) -> str:
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def refuse_schema1(document: Mapping[str, Any], types: set[str]) -> None:
    """Raise `Refused` for a manifest of schema 1, which `types` or its own version say that it is."""
    version = document.get("schemaVersion")
    if types & _SCHEMA1_TYPES or (version == 1 and not isinstance(version, bool)):
        hint = "pull and push it once with a current podman or docker, or use a newer tag"
        raise Refused("the image has a manifest of schema 1, which cannot be verified", hint=hint)


def _manifest(document: Mapping[str, Any], kind: str) -> ImageManifest:
    what = "the image's manifest"
    config = parse_descriptor(document.get("config"))
    layers = tuple(map(parse_descriptor, fields.items(document, "layers", what)))
    if config.media_type not in CONFIG_TYPES:
        raise Refused("this is not a container image", why=f"its configuration is {config.media_type}")
    if config.size > DOCUMENT_LIMIT:
        raise Refused(f"the image's configuration is larger than {DOCUMENT_LIMIT} bytes")
    if len(layers) > LAYER_LIMIT:
        raise Refused(f"the image has {len(layers)} layers", why=f"more than {LAYER_LIMIT}")
    for layer in layers:
        _refuse_strange_layer(layer)
    return ImageManifest(kind, config, layers, _annotations(document))


def _refuse_strange_layer(layer: Descriptor) -> None:
    if layer.media_type.endswith("+encrypted"):
        raise Refused("the image has an encrypted layer", where=str(layer.digest), why="encryption is not supported")
    if layer.media_type not in LAYER_COMPRESSION:
        why = f"a layer is {layer.media_type}"
        what, hint = "the image has a layer that is no part of a root file system", "only image copy --all takes it"
        raise Refused(what, where=str(layer.digest), why=why, hint=hint)


def parse_descriptor(value: object) -> Descriptor:
    """Return the descriptor in a JSON value; raise `Refused` for anything else."""
    what = "a descriptor in the image's manifest"
    if not isinstance(value, dict):
        raise Refused(f"{what} is not an object")
    media_type = fields.text(value, "mediaType", what)
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise Refused(f"mediaType of {what} is malformed", why=repr(media_type[:130]))
    digest = Digest.parse(fields.text(value, "digest", what))
    size, urls = fields.number(value, "size", what), fields.texts(value, "urls", what)
    return Descriptor(media_type, digest, size, urls, _annotations(value), _platform(value))


def _platform(value: Mapping[str, Any]) -> Platform | None:
    table = fields.mapping(value, "platform", "a descriptor in the image's manifest")
    if not table:
        return None
    os, architecture, variant = (
        fields.text(table, key, "platform of a descriptor", default="") for key in ("os", "architecture", "variant")
    )
    return Platform.normal(os or "unknown", architecture or "unknown", variant)


def _annotations(table: Mapping[str, Any]) -> dict[str, str]:
    return fields.text_map(table, "annotations", "the image's manifest")


__all__ = [
    "Descriptor",
    "History",
    "Image",
    "ImageConfig",
    "ImageManifest",
    "Index",
    "Platform",
    "check",
    "parse_artifact",
    "parse_config",
    "parse_descriptor",
    "parse_document",
    "parse_index",
    "parse_manifest",
    "select",
]
