"""Docker's manifests as OCI's: the same image under the media types that readers of OCI layouts look for. No effects.

containers/image and umoci pass over entries of a layout whose types are Docker's. Configuration and layers have the
same form under both names and keep their bytes; only manifests and indexes change, and with them their digests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from appbox.oci import json_document as fields
from appbox.oci.contents import compact
from appbox.oci.digest import Digest
from appbox.oci.model import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)
from appbox.oci.source import Document

_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_OCI_FOREIGN: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_TYPES: Final[Mapping[str, str]] = {
    _LAYER: _OCI_LAYER,
    _FOREIGN: _OCI_FOREIGN,
    DOCKER_INDEX: OCI_INDEX,
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_CONFIG: OCI_CONFIG,
    **{
        f"{docker}.{how}": f"{oci}+{how}"
        for docker, oci in ((_LAYER, _OCI_LAYER), (_FOREIGN, _OCI_FOREIGN))
        for how in ("gzip", "zstd")
    },
}


def as_oci(documents: Sequence[Document]) -> tuple[Document, ...]:
    """Return the documents with OCI's media types; each stands behind those that it refers to.

    What has no Docker type in it keeps its bytes; documents of other kinds are left alone.
    """
    made: dict[Digest, Document] = {}
    for document in documents:
        made[document.digest] = _converted(document, made)
    return tuple(made.values())


def _converted(document: Document, made: Mapping[Digest, Document]) -> Document:
    kind = OCI_TYPES.get(document.media_type, document.media_type)
    if kind not in (OCI_INDEX, OCI_MANIFEST):
        return document
    body = fields.parse_object(document.data, "the manifest")
    if kind == OCI_INDEX:
        changed: dict[str, Any] = {
            "manifests": [_entry(one, made) for one in fields.items(body, "manifests", "the index")]
        }
    else:
        changed = {}
        if body.get("config") is not None:
            changed["config"] = _typed(fields.mapping(body, "config", "the manifest"))
        if body.get("layers") is not None:
            changed["layers"] = [_typed(one) for one in fields.items(body, "layers", "the manifest")]
    if kind == document.media_type and all(body.get(key) == value for key, value in changed.items()):
        return document
    data = compact({**body, "mediaType": kind, **changed})
    return Document(Digest.of(data, document.digest.algorithm), data, kind)


def _typed(descriptor: dict[str, Any]) -> dict[str, Any]:
    kind = descriptor.get("mediaType")
    return {**descriptor, "mediaType": OCI_TYPES.get(str(kind), kind)}


def _entry(descriptor: dict[str, Any], made: Mapping[Digest, Document]) -> dict[str, Any]:
    document = made[Digest.parse(str(descriptor.get("digest")))]
    return {**descriptor, "mediaType": document.media_type, "digest": str(document.digest), "size": len(document.data)}
