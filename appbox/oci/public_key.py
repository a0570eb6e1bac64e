"""Public keys that sign images: PEM text in, a value out. What a signature is worth is `oci.signature`'s to say. Pure.

A key is a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in PEM, as `cosign public-key`, `cosign generate-key-pair` and
`openssl pkey -pubout` write it. Only its frame is read here, so that a manifest can be checked without any
cryptography installed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Final, Literal

SIZE_LIMIT: Final = 64 << 10
"""Bytes of a key's file; the largest RSA key that anybody makes takes 3 kB."""

Kind = Literal["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa"]

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,64})-----\s*(.*?)\s*-----END \1-----", re.DOTALL)
_MAKE = "write it with cosign public-key --key KEY, or openssl pkey -pubout"
_OTHERS: Final = {
    "CERTIFICATE": ("is a certificate, and only keys are taken", "openssl x509 -noout -pubkey -in FILE shows its key"),
    "RSA PUBLIC KEY": ("is an RSA key of the old form (PKCS #1)", "openssl rsa -RSAPublicKey_in -pubout converts it"),
    "PGP PUBLIC KEY BLOCK": ("is a key of PGP, which signs no image for cosign", _MAKE),
}
# Object identifiers in DER, of algorithms (RFC 5480, RFC 8017, RFC 8410) and of curves.
_RSA, _EC, _ED25519 = (bytes.fromhex(text) for text in ("2a864886f70d010101", "2a8648ce3d0201", "2b6570"))
_CURVES: Final[dict[bytes, Kind]] = {
    bytes.fromhex("2a8648ce3d030107"): "ecdsa-p256",
    bytes.fromhex("2b81040022"): "ecdsa-p384",
    bytes.fromhex("2b81040023"): "ecdsa-p521",
}
_SEQUENCE, _OBJECT, _BITS = 0x30, 0x06, 0x03


class BadKeyError(ValueError):
    """The text is no public key that can be used."""

    def __init__(self, message: str, hint: str = _MAKE) -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`name` is what its user calls it, as a rule a path; keys are the same when their bytes are."""

    name: str = field(compare=False)
    kind: Kind
    der: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """`sha256:` and the hex of the key's DER: what `openssl pkey -pubin -outform DER | sha256sum` prints."""
        return f"sha256:{hashlib.sha256(self.der).hexdigest()}"


def parse(data: bytes, name: str) -> PublicKey:
    """Return the one key in the PEM file `data`; raise `BadKeyError` with words for its user."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise BadKeyError("is not a public key in PEM") from None
    blocks = _BLOCK.findall(text)
    secret = [label for label, _ in blocks if "PRIVATE" in label]
    if secret:
        raise BadKeyError("is a private key, which must not be here", f"keep it secret; {_MAKE}")
    if not blocks:
        raise BadKeyError("is not a public key in PEM")
    if len(blocks) > 1:
        raise BadKeyError("holds several keys", "put each key into a file of its own")
    label, body = blocks[0]
    if label != "PUBLIC KEY":
        raise BadKeyError(*_OTHERS.get(label, (f"is a {label.lower()}, not a public key", _MAKE)))
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadKeyError("is not a public key in PEM: its base64 is damaged") from None
    return PublicKey(name, _kind(der), der)


def _kind(der: bytes) -> Kind:
    """Return what kind of key is in a SubjectPublicKeyInfo."""
    whole, rest = _element(der, _SEQUENCE)
    algorithm, bits = _element(whole, _SEQUENCE)
    key, after = _element(bits, _BITS)
    name, parameters = _element(algorithm, _OBJECT)
    if rest or after or not key:
        raise _damaged()
    if name == _RSA:
        return "rsa"
    if name == _ED25519:
        return "ed25519"
    if name != _EC:
        raise BadKeyError("is a key of a kind that cannot be used", "take an ECDSA, Ed25519 or RSA key")
    curve, _ = _element(parameters, _OBJECT)
    if curve not in _CURVES:
        raise BadKeyError("is an ECDSA key on a curve that cannot be used", "take P-256, P-384 or P-521")
    return _CURVES[curve]


def _element(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split the DER element with `tag` off `data`: its content, and what follows (X.690, definite lengths only)."""
    if len(data) < 2 or data[0] != tag:
        raise _damaged()
    length, start = data[1], 2
    if length >= 0x80:
        start += length & 0x7F
        if not 1 <= length & 0x7F <= 3 or len(data) < start:
            raise _damaged()
        length = int.from_bytes(data[2:start])
    if len(data) < start + length:
        raise _damaged()
    return data[start : start + length], data[start + length :]


def _damaged() -> BadKeyError:
    return BadKeyError("is not a public key in PEM: its content is damaged")
