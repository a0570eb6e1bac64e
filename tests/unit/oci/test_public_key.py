"""Keys by their form, without any cryptography, and the same keys at work."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import given
from hypothesis import strategies as st

from appbox.oci import public_key, signature
from appbox.oci.public_key import BadKeyError
from tests.ground import cosign

KINDS = {"p256": "ecdsa-p256", "p384": "ecdsa-p384", "p521": "ecdsa-p521", "ed25519": "ed25519", "rsa2048": "rsa"}
KEYS = {kind: cosign.key(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_known_by_its_form_and_verifies(kind: str) -> None:
    made = KEYS[kind]
    key = public_key.parse(b"a note\n" + made.pem, "x.pub")
    assert key.kind == KINDS[kind]
    der = made.private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert key.fingerprint == f"sha256:{hashlib.sha256(der).hexdigest()}"
    signed = made.sign(b"payload")
    assert signature.made_by(key, signed, b"payload")
    assert not signature.made_by(key, signed, b"payloaD")
    assert not signature.made_by(key, signed[:-1] + bytes([signed[-1] ^ 1]), b"payload")
    assert not signature.made_by(key, b"", b"payload")
    for other, key_of_other in KEYS.items():
        if other != kind:
            assert not signature.made_by(public_key.parse(key_of_other.pem, "y"), signed, b"payload")


@pytest.mark.parametrize(("kind", "algorithm"), [("p384", hashes.SHA384()), ("p521", hashes.SHA512())])
def test_larger_curves_may_use_their_own_hash(kind: str, algorithm: hashes.HashAlgorithm) -> None:
    key = public_key.parse(KEYS[kind].pem, "x.pub")
    assert signature.made_by(key, KEYS[kind].sign(b"p", algorithm), b"p")


def test_a_weak_hash_counts_for_nothing() -> None:
    key = public_key.parse(KEYS["p256"].pem, "x.pub")
    assert not signature.made_by(key, KEYS["p256"].sign(b"p", hashes.SHA224()), b"p")


P256 = KEYS["p256"].pem
DER = public_key.parse(P256, "").der


def pem(der: bytes) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a public key in PEM"),
        (b"\xff\xfe", "is not a public key in PEM"),
        (KEYS["p256"].private_pem, "is a private key"),
        (P256 + KEYS["p256"].private_pem, "is a private key"),
        (P256 + KEYS["p384"].pem, "several keys"),
        (P256.replace(b"PUBLIC KEY", b"CERTIFICATE"), "is a certificate"),
        (P256.replace(b"PUBLIC KEY", b"RSA PUBLIC KEY"), "old form"),
        (P256.replace(b"PUBLIC KEY", b"PGP PUBLIC KEY BLOCK"), "PGP"),
        (P256.replace(b"PUBLIC KEY", b"THING"), "is a thing, not a public key"),
        (P256.replace(b"END PUBLIC", b"END OTHER"), "is not a public key in PEM"),
        (pem(DER).replace(b"MF", b"!!"), "base64"),
        (pem(DER[:40]), "damaged"),
        (pem(b""), "damaged"),
        (pem(DER + b"\0"), "damaged"),
        (pem(b"\0" + DER[1:]), "damaged"),
        (cosign.key("k1").pem, "curve"),
    ],
)
def test_what_is_no_key_is_said_in_words(data: bytes, words: str) -> None:
    with pytest.raises(BadKeyError) as error:
        public_key.parse(data, "x.pub")
    assert words in error.value.message
    assert error.value.hint


def test_a_key_whose_numbers_are_wrong_is_found_when_it_is_loaded() -> None:
    key = public_key.parse(P256, "x.pub")
    off = public_key.PublicKey(key.name, key.kind, key.der[:-1] + bytes([key.der[-1] ^ 1]))
    with pytest.raises(BadKeyError, match="numbers are wrong"):
        signature.load(off)


def test_a_short_rsa_key_is_refused() -> None:
    key = public_key.parse(cosign.key("rsa1024").pem, "x.pub")
    with pytest.raises(BadKeyError, match="1024 bits"):
        signature.load(key)


@given(st.binary(max_size=200))
def test_any_content_is_taken_or_refused_in_words(der: bytes) -> None:
    with pytest.raises(BadKeyError):
        public_key.parse(pem(der), "x.pub")
