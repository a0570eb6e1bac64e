from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import AppboxError, UsageError
from appbox.oci.digest import Digest
from appbox.oci.reference import (
    DockerArchive,
    ImageRef,
    OciArchive,
    OciLayout,
    RegistryImage,
    check_tag,
    parse_image,
    parse_transport,
    split_host,
)

D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "registry", "repository"),
    [
        ("docker.io/valkey/valkey", "docker.io", "valkey/valkey"),
        ("docker.io/nginx", "docker.io", "library/nginx"),
        ("index.docker.io/nginx", "docker.io", "library/nginx"),
        ("registry-1.docker.io/library/nginx", "docker.io", "library/nginx"),
        ("docker://nginx", "docker.io", "library/nginx"),
        ("docker://valkey/valkey", "docker.io", "valkey/valkey"),
        ("docker://quay.io/a/b/c", "quay.io", "a/b/c"),
        ("localhost/x", "localhost", "x"),
        ("localhost:5000/x", "localhost:5000", "x"),
        ("127.0.0.1:5000/x__y/a--b.c", "127.0.0.1:5000", "x__y/a--b.c"),
        ("Registry.Example/x", "registry.example", "x"),
        ("[::1]:5000/x", "[::1]:5000", "x"),
        ("[2001:DB8:0:0::1]/x", "[2001:db8::1]", "x"),
    ],
)
def test_registry_images(text: str, registry: str, repository: str) -> None:
    image = parse_image(text)
    assert image == RegistryImage(registry, repository)
    assert parse_image(str(image)) == image


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("oci:/srv/x", OciLayout("/srv/x")),
        ("oci:x:9.0.0", OciLayout("x", "9.0.0")),
        ("oci:./x y:docker.io/valkey/valkey:9.0.0", OciLayout("./x y", "docker.io/valkey/valkey:9.0.0")),
        ("oci:x:", OciLayout("x")),
        ("oci:///x", OciLayout("///x")),
        ("oci-archive:/x.tar", OciArchive("/x.tar")),
        ("oci-archive:x.tar:a--b", OciArchive("x.tar", "a--b")),
        ("docker-archive:/x.tar", DockerArchive("/x.tar")),
        ("docker-archive:x.tar:busybox", DockerArchive("x.tar", "docker.io/library/busybox:latest")),
        ("docker-archive:x.tar:h.io:5/a/b:1", DockerArchive("x.tar", "h.io:5/a/b:1")),
        ("docker-archive:x.tar:@0", DockerArchive("x.tar", "@0")),
        ("docker-archive:x.tar:", DockerArchive("x.tar")),
    ],
)
def test_layouts_and_archives(text: str, image: object) -> None:
    assert parse_image(text) == image
    assert parse_image(str(image)) == image
    assert parse_transport(text) == ImageRef(image)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("valkey/valkey", "names no registry; write docker.io/valkey/valkey"),
        ("nginx", "names no registry; write docker.io/library/nginx"),
        ("docker.io/valkey/valkey:9.0.0", 'the tag belongs in version = "9.0.0"'),
        ("valkey:9.0.0", 'the tag belongs in version = "9.0.0"'),
        (f"docker.io/x@{D}", f'the digest belongs in digest = "{D}"'),
        (f"docker.io/x:1@{D}", "the digest belongs in digest"),
        ("docker.io/Valkey", "is not a repository; write library/valkey"),
        ("docker.io/", "is not a repository"),
        ("docker.io//x", "is not a repository"),
        ("docker.io/a/../b", "is not a repository"),
        ("docker.io/a___b", "is not a repository"),
        ("docker.io/a/", "is not a repository"),
        ("docker.io/" + "a" * 256, "longer than 255"),
        ("docker.io:0/x", "is not a port"),
        ("docker.io:65536/x", "is not a port"),
        ("docker.io:x/x", "is not a registry"),
        ("-a.b/x", "is not a host name"),
        ("a_b.c/x", "is not a host name"),
        ("a..b/x", "is not a host name"),
        ("user@h.com/x", "has a digest"),
        ("[::1/x", "is not a registry"),
        ("[1:2]/x", "is not an IPv6 address"),
        ("https://docker.io/x", "names no transport; write docker.io/x"),
        ("dockr://x", "names no transport"),
        ("dir:/x", "dir: is not supported"),
        ("containers-storage:x", "is not supported"),
        ("docker-archive:", "names no path"),
        ("docker-archive:x.tar:@", "not the name of an image in an archive"),
        ("docker-archive:x.tar:@-1", "not the name of an image in an archive"),
        ("docker-archive:x.tar:@01", "not the name of an image in an archive"),
        ("docker-archive:x.tar:busybox@0", "not the name of an image in an archive"),
        ("docker-archive:x.tar:@0:busybox", "not the name of an image in an archive"),
        (f"docker-archive:x.tar:busybox:1@{D}", "not the name of an image in an archive"),
        ("docker-archive:x.tar:UPPER", "is not a repository"),
        ("docker-archive:x.tar:a:.b", "is not a tag"),
        ("-", "from or written to a pipe"),
        ("oci-archive:-", "from or written to a pipe"),
        ("oci:", "names no path"),
        ("oci:x:a b", "not the name of an image"),
        ("oci:x:../y", "not the name of an image"),
        ("docker.io/x\n", "control character"),
        ("oci:x\0y", "control character"),
    ],
)
def test_what_a_manifest_may_not_say(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_image(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("docker://nginx", "docker://docker.io/library/nginx:latest"),
        ("docker://quay.io/a/b:1", "docker://quay.io/a/b:1"),
        ("quay.io/a/b:1", "docker://quay.io/a/b:1"),
        (f"docker://quay.io/a/b@{D}", f"docker://quay.io/a/b@{D}"),
        (f"docker://quay.io:443/a/b:1@{D}", f"docker://quay.io:443/a/b:1@{D}"),
        ("docker://[::1]:5000/a:b", "docker://[::1]:5000/a:b"),
    ],
)
def test_references_of_the_image_tool(text: str, whole: str) -> None:
    ref = parse_transport(text)
    assert str(ref) == whole
    assert parse_transport(whole) == ref


def test_a_reference_has_a_tag_and_a_digest() -> None:
    ref = parse_transport(f"docker://h.com:1/a:t@{D}")
    assert ref == ImageRef(RegistryImage("h.com:1", "a"), "t", Digest.parse(D))


@pytest.mark.parametrize(
    "text", ["docker://a:", "docker://a:.x", "docker://a@sha256:1", "docker://a@", "docker://a:b:c", "a"]
)
def test_what_the_image_tool_refuses(text: str) -> None:
    with pytest.raises(AppboxError):
        parse_transport(text)


def test_tags() -> None:
    assert check_tag("9.0.0-alpine_3") == "9.0.0-alpine_3"
    for tag in ("", "-a", ".a", "a/b", "a" * 129, "a\n", "\u00e4"):
        with pytest.raises(UsageError):
            check_tag(tag)


def test_hosts_are_split() -> None:
    assert split_host("[::1]:5000") == ("::1", 5000)
    assert split_host("[::1]") == ("::1", None)
    assert split_host("h:1") == ("h", 1)
    assert split_host("h") == ("h", None)


_ALPHABET = "ab0.:/@[]-_oci docker\x00é"


@given(st.one_of(st.text(), st.text(alphabet=_ALPHABET), st.from_regex(r"[a-z.]{1,9}(:[0-9]{1,5})?/[a-z/_.-]{1,9}")))
def test_any_text_is_a_reference_that_parses_back_or_an_error(text: str) -> None:
    for parse in (parse_image, parse_transport):
        try:
            parsed = parse(text)
        except AppboxError:
            continue
        assert parse(str(parsed)) == parsed
