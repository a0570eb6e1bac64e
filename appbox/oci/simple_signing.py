"""What is signed of an image: manifests of signatures and their payloads, as cosign stores them. Pure.

Rules of cosign's SIGNATURE_SPEC ("Storage", "Payloads") and of containers-signature(5): a signature is a layer of the
manifest under the tag `sha256-HEX.sig`; the layer's blob says which digest is meant, an annotation has the signature
over that blob. Nothing here is believed before a key has vouched for the payload.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appbox.errors import AppboxError, Refused
from appbox.oci import json_document as fields
from appbox.oci.digest import Digest
from appbox.oci.json_document import parse_object
from appbox.oci.model import Descriptor, parse_artifact
from appbox.oci.reference import RegistryImage, parse_transport

PAYLOAD_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
CLAIM: Final = "cosign container image signature"
MANIFEST_LIMIT: Final = 1 << 20
"""Bytes of a manifest of signatures; each takes some 500, a certificate and its log entry some 8,000 more."""
PAYLOAD_LIMIT: Final = 64 << 10
"""Bytes of a payload; cosign writes some 250, and a few annotations."""
SIGNATURES: Final = 128
"""Signatures of one image that are looked at. Signing again adds one; nobody signs the same bytes that often."""
_BASE64_LIMIT: Final = 16 << 10  # of a signature; RSA of 16,384 bits has 2,732
_COMPANION = re.compile(r"sha256-[0-9a-f]{64}\.(sig|att|sbom)")
_KIND: Final = "kind"
_SIGNED_KINDS: Final = frozenset({"dev.cosignproject.cosign/sigs", "dev.cosignproject.cosign/atts"})


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature and the blob that it is over."""

    payload: Descriptor
    signature: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """What a payload says: `digest` is signed, under the name `reference` ("" when it names none)."""

    digest: str
    reference: str


def tag(digest: Digest) -> str:
    """Return the tag under which signatures of `digest` lie; Refused where no tag can be that long."""
    if digest.algorithm != "sha256":
        raise Refused(f"there can be no signature of a {digest.algorithm} digest: its tag would be too long")
    return f"{digest.algorithm}-{digest.hex}.sig"


def is_companion(annotations: Mapping[str, str], name: str) -> bool:
    """Tell whether an entry of a layout is no image but something about one: signatures, attestations, an SBOM.

    `name` is the entry's own name. Recognised are cosign's tags, and the kinds that `cosign save` notes.
    """
    return bool(_COMPANION.fullmatch(name)) or annotations.get(_KIND, "") in _SIGNED_KINDS


def is_signatures(annotations: Mapping[str, str]) -> bool:
    """Tell whether `cosign save` noted an entry of a layout as the signatures of the image beside it."""
    return annotations.get(_KIND) == "dev.cosignproject.cosign/sigs"


def parse_signatures(data: bytes, media_type: str) -> list[Signature]:
    """Return the signatures that a manifest lists; entries of other kinds are passed over.

    Refused for an index, for what is larger than `MANIFEST_LIMIT`, and for more than `SIGNATURES`.
    """
    if len(data) > MANIFEST_LIMIT:
        raise Refused(f"the manifest of the signatures is larger than {MANIFEST_LIMIT} bytes")
    layers = [layer for layer in parse_artifact(data, media_type) if layer.media_type == PAYLOAD_TYPE]
    if len(layers) > SIGNATURES:
        raise Refused(f"the image has {len(layers)} signatures", why=f"more than {SIGNATURES} are not looked at")
    found = [Signature(layer, _decoded(layer.annotations.get(SIGNATURE, ""))) for layer in layers]
    return [one for one in found if one.signature and one.payload.size <= PAYLOAD_LIMIT]


def _decoded(text: str) -> bytes:
    if len(text) > _BASE64_LIMIT:
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def parse_claim(payload: bytes) -> Claim:
    """Return what a payload says; Refused unless it is exactly what cosign signs.

    Unknown keys beside these might change the meaning of what is signed, so `critical` may have no others.
    """
    what = "the signed payload"
    document = parse_object(payload, what, limit=PAYLOAD_LIMIT)
    critical = fields.mapping(document, "critical", what)
    identity, image = (fields.mapping(critical, key, f"critical of {what}") for key in ("identity", "image"))
    for table, known in (
        (document, {"critical", "optional"}),
        (critical, {"identity", "image", "type"}),
        (identity, {"docker-reference"}),
        (image, {"docker-manifest-digest"}),
    ):
        if strange := sorted(set(table) - known):
            raise Refused(f"{what} has an unknown key", why=strange[0][:80])
    kind = fields.text(critical, "type", what)
    if kind != CLAIM:
        raise Refused(f"{what} is no signature of an image", why=f"its type is {kind[:80]!r}")
    reference = fields.text(identity, "docker-reference", what, default="")
    return Claim(fields.text(image, "docker-manifest-digest", what), reference)


def repository(reference: str) -> str:
    """Return the repository that a claim's reference names, in its normal form; the text itself when it names none."""
    try:
        image = parse_transport(f"docker://{reference.removeprefix('docker://')}").image
    except AppboxError:
        return reference
    return str(image) if isinstance(image, RegistryImage) else reference
