"""Whether a key made a signature: the only place that computes with keys. Needs the package `cryptography`.

The schemes are those that cosign verifies with a public key: ECDSA, RSA with PKCS #1 v1.5, and Ed25519 over the bytes
themselves. The hash is SHA-256, as the specification of cosign's signatures wants it; for P-384 and P-521 also the hash
of the curve's size, with which newer versions of cosign sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from appbox.errors import HostLacks
from appbox.oci.public_key import BadKeyError, PublicKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

RSA_BITS: Final = range(2048, 16385)
"""Sizes of RSA keys: below they are broken, above they only cost time."""


def load(key: PublicKey) -> PublicKeyTypes:
    """Return a key ready for use; `BadKeyError` when its numbers are no key, `HostLacks` without `cryptography`."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  (30 ms, and optional)
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415
    except ImportError as error:
        raise HostLacks(
            "signatures of images cannot be verified",
            why="the Python package cryptography is missing",
            hint="pip install 'appbox[signatures]', or install python3-cryptography",
        ) from error
    try:
        loaded = load_der_public_key(key.der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKeyError("is not a public key: its numbers are wrong") from error
    if isinstance(loaded, rsa.RSAPublicKey) and loaded.key_size not in RSA_BITS:
        raise BadKeyError(f"is an RSA key of {loaded.key_size} bits", "take one of at least 2048 bits")
    return loaded


def made_by(key: PublicKey, signature: bytes, payload: bytes) -> bool:
    """Tell whether `key` made `signature` over `payload`. Raises as `load`."""
    loaded = load(key)
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa  # noqa: PLC0415

    more: dict[str, hashes.HashAlgorithm] = {"ecdsa-p384": hashes.SHA384(), "ecdsa-p521": hashes.SHA512()}
    for algorithm in (hashes.SHA256(), more.get(key.kind)):
        if algorithm is None:
            continue
        try:
            if isinstance(loaded, ec.EllipticCurvePublicKey):
                loaded.verify(signature, payload, ec.ECDSA(algorithm))
            elif isinstance(loaded, rsa.RSAPublicKey):
                loaded.verify(signature, payload, padding.PKCS1v15(), algorithm)
            elif isinstance(loaded, ed25519.Ed25519PublicKey):
                loaded.verify(signature, payload)
            else:
                raise BadKeyError("is a key of a kind that cannot be used", "take an ECDSA, Ed25519 or RSA key")
        except InvalidSignature:
            continue
        return True
    return False
