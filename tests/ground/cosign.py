"""Keys, and signatures as cosign stores them (SIGNATURE_SPEC): made here, apart from the product."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from tests.ground.tiny import OCI_CONFIG, OCI_MANIFEST, Content

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "k1": ec.SECP256K1()}


@dataclass(frozen=True)
class Key:
    private: Any

    @property
    def pem(self) -> bytes:
        """The public key."""
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return bytes(self.private.public_key().public_bytes(encoding, form))

    @property
    def private_pem(self) -> bytes:
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return bytes(self.private.private_bytes(encoding, form, serialization.NoEncryption()))

    def sign(self, payload: bytes, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
        algorithm = algorithm or hashes.SHA256()
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(payload, ec.ECDSA(algorithm))
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(payload, padding.PKCS1v15(), algorithm)
        return bytes(self.private.sign(payload))

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.pem)
        return path


def key(kind: str = "p256") -> Key:
    """Make a key: p256, p384, p521, k1 (which nobody should take), ed25519, rsa2048, rsa1024."""
    if kind in CURVES:
        return Key(ec.generate_private_key(CURVES[kind]))
    if kind == "ed25519":
        return Key(ed25519.Ed25519PrivateKey.generate())
    return Key(rsa.generate_private_key(65537, int(kind.removeprefix("rsa"))))


def tag(digest: str) -> str:
    return f"{digest.replace(':', '-')}.sig"


def claim(digest: str, reference: str = "", **changes: Any) -> bytes:
    """Return a payload; `changes` replace keys of `critical`."""
    critical = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": {**critical, **changes}, "optional": None}).encode()


def signature(content: Content, payload: bytes, signed: bytes, *, kind: str = PAYLOAD) -> dict[str, Any]:
    """Store a payload and return the layer that has it with its signature."""
    return {**content.blob(payload, kind), "annotations": {ANNOTATION: base64.b64encode(signed).decode()}}


def attach(content: Content, digest: str, *layers: dict[str, Any]) -> str:
    """Put signatures beside the image with `digest`, in the place of what was there; return the tag."""
    config = content.blob(b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}', OCI_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": list(layers)}
    content.document(manifest, OCI_MANIFEST, tag(digest))
    return tag(digest)


def sign(content: Content, digest: str, *keys: Key, reference: str = "") -> str:
    """Sign `digest` as `cosign sign --key` does; return the tag."""
    payload = claim(digest, reference)
    return attach(content, digest, *(signature(content, payload, one.sign(payload)) for one in keys))
