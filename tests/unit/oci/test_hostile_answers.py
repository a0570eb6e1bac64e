"""Answers that no registry should give: each ends in words, and none in a fault of ours."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from appbox.errors import Refused, Unavailable
from appbox.oci.contents import kind_of
from appbox.oci.model import parse_descriptor
from appbox.oci.settings import look_up
from appbox.oci.transport import web_url
from tests.ground import faulty
from tests.ground.tiny import OCI_INDEX, OCI_MANIFEST, layer, sha256
from tests.ground.world import World, digests

LONG_LABEL = "a" * 64
TARGETS = [
    "http://[::1",
    "javascript:1",
    "mailto:a@b",
    "https://xn--/",
    "https://cdn.test:99999/x",
    "https://cdn.test:-1/x",
    "https://user:geheim@cdn.test/x",
    f"https://{LONG_LABEL}.test/",
    "https://a..test/",
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.content.image("1", layers=(layer({"a": b"a" * 4096}), layer({"b": b"b" * 4096})))
    return world


@pytest.mark.parametrize("target", TARGETS)
def test_a_redirect_to_nowhere_is_refused_at_once(world: World, target: str) -> None:
    _, layers = digests(world.content)
    world.registry.break_next(layers[0], faulty.redirect(target))
    with pytest.raises(Refused, match="redirects to no URL") as caught:
        world.pull()
    assert world.waits == [], "asking again does not help"
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("target", TARGETS)
def test_an_upload_that_goes_on_nowhere_is_refused(world: World, target: str) -> None:
    data = b"blob"
    descriptor = world.content.blob(data, "a/b")
    world.content.blobs.clear()
    world.registry.break_next("POST uploads", *[faulty.status(202, Location=target)] * 9)
    with world.target() as registry, pytest.raises(Refused, match="redirects to no URL"):
        registry.upload(parse_descriptor(descriptor), lambda: io.BytesIO(data))


@pytest.mark.parametrize("realm", [f"https://{LONG_LABEL}.test/", "https://a..test/", "https://auth.test:99999/"])
def test_a_realm_that_is_nowhere_is_refused(world: World, realm: str) -> None:
    world.registry.auth, world.registry.realm = "bearer", realm
    with pytest.raises(Refused, match="token server is not a URL"):
        world.resolve()


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", "99999999999999999999"])
def test_ports_that_are_none(port: str) -> None:
    assert web_url(f"https://cdn.test:{port}/") is None
    assert web_url(f"//cdn.test:{port}/", httpx.URL("https://registry.test/v2/")) is None


@pytest.mark.parametrize("host", ["cdn.test", "cdn.test.", "1.2.3.4", "[::1]", "a" * 63 + ".test", "a_b.test"])
def test_hosts_that_are_some(host: str) -> None:
    assert web_url(f"https://{host}:65535/") is not None


@pytest.mark.parametrize("host", [f"{LONG_LABEL}.test", "a..test", ".test", "a" * 300])
def test_a_name_that_cannot_be_looked_up_is_not_there(host: str) -> None:
    with pytest.raises(OSError, match="no name of a host"):
        look_up(host, 443)


@pytest.mark.parametrize("said", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 2020 00:00:00 +9999999999999"])
def test_a_date_out_of_all_bounds_is_no_date(world: World, said: str) -> None:
    world.registry.break_next("manifests", faulty.status(429, Retry_After=said))
    world.pull()
    assert len(world.waits) == 1


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_registry_that_repeats_our_secret_is_not_quoted(world: World, auth: str) -> None:
    world.registry.auth = auth
    world.login()

    def echo(request: faulty.Request, answer: faulty.Answer) -> faulty.Answer:
        if request.authorization is None:
            return answer
        words = f"no access with {request.authorization}, which is appbox:secret"
        body = json.dumps({"errors": [{"code": "DENIED", "message": words}]}).encode()
        return faulty.Answer(403, {"Content-Length": str(len(body))}, body)

    world.registry.break_next("GET manifests", *[echo] * 9)
    with pytest.raises(Unavailable, match="no access with") as caught:
        world.pull()
    said = str(caught.value)
    if auth == "basic":
        assert "secret" not in said
    for secret in ("YXBwYm94OnNlY3JldA==", *world.registry.tokens):
        assert secret not in said


def renamed(world: World, document: dict[str, Any], kind: str) -> None:
    data = json.dumps(document).encode()
    world.content.manifests[sha256(data)] = (kind, data)
    world.content.tags["1"] = sha256(data)


def test_what_is_called_what_it_is_not_never_gets_into_the_cache(world: World) -> None:
    """The cache keeps no content types, so that it would be believed the next time."""
    renamed(world, {"schemaVersion": 2, "manifests": [world.content.image("2")]}, OCI_MANIFEST)
    for _ in range(2):
        with world.source() as source, pytest.raises(Refused, match="read in two ways"):
            source.top("1", None)
        with pytest.raises(Refused, match="read in two ways"):
            world.resolve()


@pytest.mark.parametrize(
    ("document", "said", "words"),
    [
        ({"schemaVersion": 2, "manifests": []}, OCI_MANIFEST, "read in two ways"),
        ({"schemaVersion": 2, "config": {}, "layers": []}, OCI_INDEX, "read in two ways"),
        ({"schemaVersion": 2, "manifests": [], "Layers": []}, OCI_INDEX, "read in two ways"),
        ({"schemaVersion": 1, "fsLayers": []}, "", "schema 1"),
        ({"fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
    ],
)
def test_copies_too_tell_an_index_from_a_manifest(document: dict[str, Any], said: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        kind_of(json.dumps(document).encode(), said)


def test_an_entry_of_an_unknown_kind_may_have_a_digest_of_an_unknown_kind(world: World) -> None:
    strange = {"mediaType": "application/x-new", "digest": f"blake3:{'a' * 64}", "size": 3}
    image = world.content.image("2")
    renamed(world, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [strange, image]}, OCI_INDEX)
    assert str(world.resolve().digest) == image["digest"]
    known = {**strange, "mediaType": OCI_MANIFEST}
    renamed(world, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [known, image]}, OCI_INDEX)
    with pytest.raises(Refused, match="blake3"):
        world.resolve()
