"""Laws of the grammar of references: what has the parts is built from them, and parses back to them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appbox.oci.digest import Digest
from appbox.oci.reference import (
    ImageRef,
    OciArchive,
    OciLayout,
    RegistryImage,
    parse_image,
    parse_transport,
    split_host,
)

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
PORT = st.integers(1, 65535)
IPV6 = st.ip_addresses(v=6).map(lambda address: f"[{address}]")
HOST = st.one_of(
    st.lists(LABEL, min_size=2, max_size=4).map(".".join), st.just("localhost"), IPV6, st.ip_addresses(v=4).map(str)
)
REGISTRY = st.one_of(HOST, st.tuples(HOST, PORT).map(lambda pair: f"{pair[0]}:{pair[1]}"))
PART = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
REPOSITORY = st.lists(PART, min_size=2, max_size=4).map("/".join)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
NAME = st.from_regex(r"[A-Za-z0-9]{1,8}([._-][A-Za-z0-9]{1,4})?", fullmatch=True)
DIGEST = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}"),
    st.binary(min_size=64, max_size=64).map(lambda raw: f"sha512:{raw.hex()}"),
)


@given(REGISTRY, REPOSITORY, st.none() | TAG, st.none() | DIGEST)
def test_a_reference_has_the_parts_that_it_was_made_of(
    registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    text = f"{registry}/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    wanted = tag if tag or digest else "latest"
    ref = parse_transport(f"docker://{text}")
    assert ref == ImageRef(RegistryImage(registry, repository), wanted, Digest.parse(digest) if digest else None)
    assert parse_transport(str(ref)) == ref
    assert parse_image(f"{registry}/{repository}") == ref.image


@given(REGISTRY)
def test_a_registry_is_split_where_it_was_joined(registry: str) -> None:
    host, port = split_host(registry)
    shown = f"[{host}]" if ":" in host else host
    assert (f"{shown}:{port}" if port else shown) == registry


@given(st.text(st.characters(exclude_characters=":\0", exclude_categories=("C", "Z")), min_size=1), st.none() | NAME)
def test_paths_end_at_the_colon(path: str, ref: str | None) -> None:
    suffix = f":{ref}" if ref else ""
    assert parse_image(f"oci:{path}{suffix}") == OciLayout(path, ref)
    assert parse_image(f"oci-archive:{path}{suffix}") == OciArchive(path, ref)
