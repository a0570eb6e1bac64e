"""What an index or a manifest of any kind refers to, for copying it as it is. Pure: bytes in, values out.

Wider than `model`: an index also lists attestations, signatures and artifacts, whose manifests name blobs just the same
(image specification, "Guidelines for Artifact Usage"; distribution specification, "Artifact Manifest").
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appbox.errors import Refused
from appbox.oci import json_document as fields
from appbox.oci.model import (
    INDEX_TYPES,
    LAYER_LIMIT,
    MANIFEST_TYPES,
    NEUTRAL_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    parse_descriptor,
    parse_index,
    refuse_ambiguous,
    refuse_schema1,
)

_WHAT = "the manifest"
_BLOB_KEYS = ("layers", "blobs")
ENTRY_LIMIT = 1024  # entries of one index; the widest images have some 30, each with an attestation


@dataclass(frozen=True, slots=True)
class Contents:
    """`entries` are documents of their own, `blobs` are not; both in the order of the document, none twice."""

    entries: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]


def kind_of(data: bytes, said: str) -> str:
    """Return the media type of a document that its sender calls `said`, if anything; `Refused` when it is another.

    Index and manifest are told apart by what is in them, too, and schema 1 is refused.
    """
    document = fields.parse_object(data, _WHAT)
    own = fields.text(document, "mediaType", _WHAT, default="")
    said = said.partition(";")[0].strip().lower()
    refuse_schema1(document, {said, own})
    if own and said not in NEUTRAL_TYPES and said != own:
        raise Refused("the manifest is not what it is called", why=f"{said} is called {own} inside")
    kind = own or (said if said not in NEUTRAL_TYPES else OCI_INDEX if "manifests" in document else OCI_MANIFEST)
    if kind in INDEX_TYPES | MANIFEST_TYPES:
        refuse_ambiguous(document, kind)
    return kind


def contents(data: bytes, media_type: str) -> Contents:
    """Return what the document refers to; `media_type` is that of its descriptor. Raises `Refused`.

    A document of a kind that is not known refers to nothing unless it has the form of a manifest.
    """
    if media_type not in INDEX_TYPES | MANIFEST_TYPES and not _is_object(data):
        return Contents((), ())
    document = fields.parse_object(data, _WHAT)
    if kind_of(data, media_type) in INDEX_TYPES or "manifests" in document:
        entries = _once(parse_index(data, media_type).manifests)
        if len(entries) > ENTRY_LIMIT:
            raise Refused(f"the index has more than {ENTRY_LIMIT} entries")
        return Contents(entries, ())
    found = [document[key] for key in ("config",) if document.get(key) is not None]
    for key in _BLOB_KEYS:
        found += fields.items(document, key, _WHAT, obligatory=False)
    if len(found) > LAYER_LIMIT + 1:
        raise Refused(f"the manifest has {len(found)} blobs", why=f"more than {LAYER_LIMIT}")
    return Contents((), _once(tuple(map(parse_descriptor, found))))


def _is_object(data: bytes) -> bool:
    try:
        fields.parse_object(data, _WHAT)
    except Refused:
        return False
    return True


def _once(descriptors: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Return the descriptors without repetition; the same digest with two sizes is refused."""
    found: dict[object, Descriptor] = {}
    for one in descriptors:
        if found.setdefault(one.digest, one).size != one.size:
            raise Refused("a digest has two sizes", where=str(one.digest), why=f"{found[one.digest].size}, {one.size}")
    return tuple(found.values())


def index_of(entries: Sequence[Descriptor]) -> bytes:
    """Return an OCI index of `entries`; the same entries always make the same bytes."""
    listed = [descriptor_data(one) for one in entries]
    return compact({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})


def manifest_of(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """Return an OCI manifest; the same parts always make the same bytes."""
    parts = {"config": descriptor_data(config), "layers": [descriptor_data(one) for one in layers]}
    return compact({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **parts})


def descriptor_data(descriptor: Descriptor) -> dict[str, Any]:
    """Return media type, digest, size and platform as JSON data."""
    data: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if platform := descriptor.platform:
        variant = {"variant": platform.variant} if platform.variant else {}
        data["platform"] = {"architecture": platform.architecture, "os": platform.os, **variant}
    return data


def compact(data: Mapping[str, Any]) -> bytes:
    """Return JSON data in as few bytes as it takes."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
