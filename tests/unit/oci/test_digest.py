from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import Refused
from appbox.oci.digest import Digest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_parses_back_to_itself(algorithm: str) -> None:
    text = f"{algorithm}:{hashlib.new(algorithm, b'x').hexdigest()}"
    assert str(Digest.parse(text)) == text
    assert Digest.parse(text) == Digest.of(b"x", algorithm)
    assert Digest.parse(text).matches(b"x")
    assert not Digest.parse(text).matches(b"y")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 63 + "\n",
        "sha256:" + "\u0661" * 64,
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
        "sha384:" + "a" * 96,
        "md5:" + "a" * 32,
        " sha256:" + "a" * 64,
        "sha256:../../etc/passwd" + "a" * 48,
        "a" * 64,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        Digest.parse(text)


@given(st.text())
def test_any_text_is_a_digest_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        assert str(Digest.parse(text)) == text
