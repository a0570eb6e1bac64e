"""The registry client against a registry in memory, at the seam that httpx offers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.pull import RegistrySource
from appbox.oci.reference import RegistryImage
from appbox.oci.settings import Settings
from tests.ground import faulty
from tests.ground.tiny import OCI_MANIFEST, layer
from tests.ground.world import AMD64, HOST, World, digests


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.content.image("1", layers=(layer({"a": b"a" * 4096}), layer({"b": b"b" * 4096})))
    return world


def test_pull_fills_the_cache_and_lists_the_image(world: World) -> None:
    image = world.pull()
    assert str(image.digest) == world.content.tags["1"]
    assert image.reference == f"{HOST}/a/b:1"
    for entry in image.manifest.layers:
        with world.cache.open(entry.digest) as stream:
            assert stream.read() == world.content.blobs[str(entry.digest)]
    (listed,) = world.cache.index().manifests
    assert listed.digest == image.digest


def test_what_the_cache_has_is_not_asked_for_again(world: World) -> None:
    image = world.pull()
    world.sent.clear()
    assert world.pull() == image
    assert world.methods() == ["HEAD manifests"]
    world.sent.clear()
    assert world.pull(digest=image.digest) == image
    assert world.sent == []


def test_a_pinned_digest_may_be_the_index_or_the_manifest(world: World) -> None:
    manifest = world.content.image(architecture="amd64")
    index = world.content.index("2", manifest, world.content.image(architecture="arm64"))
    by_index = world.resolve("2", Digest.parse(index["digest"]))
    assert str(by_index.digest) == manifest["digest"]
    assert str(by_index.index_digest) == index["digest"]
    by_manifest = world.resolve(None, Digest.parse(manifest["digest"]))
    assert by_manifest.index_digest is None
    assert by_manifest.reference == f"{HOST}/a/b@{manifest['digest']}"


def test_a_platform_that_is_not_there_is_named_with_those_that_are(world: World) -> None:
    world.content.index("2", world.content.image(architecture="arm64"), world.content.image(architecture="s390x"))
    with pytest.raises(Unavailable, match=r"not made for linux/amd64: it is made for linux/arm64, linux/s390x"):
        world.resolve("2")


def test_a_missing_tag_is_unavailable_and_named(world: World) -> None:
    with pytest.raises(Unavailable, match=rf"no {HOST}/a/b:nope: manifest unknown"):
        world.resolve("nope")


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_every_blob_corrupted_in_turn_is_refused_and_not_kept(world: World, which: int) -> None:
    config, layers = digests(world.content)
    target = [world.content.tags["1"], config, *layers][which]
    world.registry.break_next(target if which else "manifests", *[faulty.corrupt(5)] * 2)
    if which == 0:  # the HEAD has no body to corrupt, so the first fault is spent on it
        world.registry.faults["manifests"].insert(0, lambda request, answer: answer)
    with pytest.raises(Refused, match="digest"):
        world.pull()
    assert not world.cache.has(Digest.parse(target))
    assert list((world.folder / "cache/.partial").glob("*")) == []


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_every_cached_blob_corrupted_in_turn_is_fetched_again(world: World, which: int) -> None:
    world.pull()
    config, layers = digests(world.content)
    target = [world.content.tags["1"], config, *layers][which]
    path = world.folder / "cache/blobs" / target.replace(":", "/")
    good = path.read_bytes()
    for bad in (b"x" + good[1:], good[:-1], b"", good + b"x"):
        path.write_bytes(bad)
        world.cache = Cache(str(world.folder / "cache"))
        world.pull()
        assert path.read_bytes() == good


def test_a_blob_of_another_size_is_refused_before_it_is_read(world: World) -> None:
    _, layers = digests(world.content)
    world.registry.break_next(layers[0], faulty.header("Content-Length", "99"))
    with pytest.raises(Refused, match=r"sends 99 bytes, not \d+"):
        world.pull()


def test_a_blob_without_a_length_that_goes_on_is_refused(world: World) -> None:
    _, layers = digests(world.content)
    longer = world.content.blobs[layers[0]] + b"x"
    world.registry.break_next(layers[0], lambda request, answer: faulty.Answer(200, {}, longer))
    with pytest.raises(Refused, match="longer than its"):
        world.pull()


def test_throttling_is_obeyed(world: World) -> None:
    later = faulty.status(429, Retry_After="7")
    world.registry.break_next("manifests", later, later)
    world.pull()
    assert len(world.waits) == 2
    assert all(7 <= wait <= 10.5 for wait in world.waits)


def test_retries_are_bounded_in_number_and_time(world: World) -> None:
    world.registry.break_next("manifests", *[faulty.status(503, Retry_After="86400")] * 9)
    with pytest.raises(Unavailable, match=r"it answered 503"):
        world.resolve()
    assert world.waits == [60.0] * 4


def test_retry_after_a_date_in_the_past_means_now(world: World) -> None:
    world.registry.break_next("manifests", faulty.status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"))
    world.resolve()
    assert world.waits == [0.0]


def test_an_unreachable_registry_is_said_at_once(world: World) -> None:
    world.host = "elsewhere.test"
    source = world.source()
    world.host = HOST
    with source, pytest.raises(Unavailable, match="cannot be reached: no such host") as caught:
        source.resolve("1", None, AMD64)
    assert caught.value.exit_code == 5
    assert world.waits == []


def test_basic_authentication(world: World) -> None:
    world.registry.auth = "basic"
    world.login()
    world.pull()
    anonymous = [request for request in world.sent if "Authorization" not in request.headers]
    assert len(anonymous) == 1, "only the first request goes without"


def test_without_credentials_the_error_says_how_to_log_in(world: World) -> None:
    world.registry.auth = "basic"
    with pytest.raises(Unavailable, match=rf"refuses access .*401 \(authentication required\).*podman login {HOST}"):
        world.resolve()


def test_wrong_credentials_are_not_repeated_for_ever(world: World) -> None:
    world.registry.auth = "basic"
    world.login(auth=base64.b64encode(b"appbox:wrong").decode())
    with pytest.raises(Unavailable, match="check the name and the credentials"):
        world.resolve()
    assert len(world.sent) <= 5


def test_bearer_token_once_for_a_pull(world: World) -> None:
    world.registry.auth = "bearer"
    world.login()
    world.pull()
    (asked,) = [request for request in world.sent if request.url.host == "auth.test"]
    assert dict(asked.url.params) == {"service": "tests, here", "scope": "repository:a/b:pull"}
    assert asked.headers["Authorization"].startswith("Basic ")
    assert all("Basic" not in r.headers.get("Authorization", "") for r in world.sent if r.url.host == HOST)


def test_a_token_that_ends_in_the_middle_is_renewed(world: World) -> None:
    world.registry.auth = "bearer"
    _, layers = digests(world.content)

    def forget(request: faulty.Request, answer: faulty.Answer) -> faulty.Answer:
        world.registry.tokens.clear()
        return faulty.status(503)(request, answer)

    world.registry.break_next(layers[0], forget)
    world.pull()


def test_anonymous_token(world: World) -> None:
    world.registry.auth = "bearer"
    world.pull()
    (asked,) = [request for request in world.sent if request.url.host == "auth.test"]
    assert "Authorization" not in asked.headers


def test_a_refresh_token_is_posted(world: World) -> None:
    world.registry.auth = "bearer"
    world.login(identitytoken="secret")
    world.pull()
    (asked,) = [request for request in world.sent if request.url.host == "auth.test"]
    assert asked.method == "POST"
    assert "Authorization" not in asked.headers


def test_a_busy_token_server_is_asked_again(world: World) -> None:
    world.registry.auth = "bearer"
    world.registry.break_next("token", faulty.status(429, Retry_After="3"))
    world.resolve()
    assert len(world.waits) == 1


def test_a_token_body_is_bounded(world: World) -> None:
    world.registry.auth = "bearer"
    world.registry.break_next("token", faulty.body(b'{"token": "' + b"x" * (1 << 20) + b'"}'))
    with pytest.raises(Refused, match="larger than 1048576 bytes"):
        world.resolve()


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"token": 1}', b'{"token": "a b"}', b'{"token": "a\\nb"}', b"\xff"])
def test_a_strange_token_answer_is_refused(world: World, answer: bytes) -> None:
    world.registry.auth = "bearer"
    world.registry.break_next("token", faulty.body(answer))
    with pytest.raises(Refused, match="answer of the token server"):
        world.resolve()


@pytest.mark.parametrize(
    "realm",
    [
        "https://127.0.0.1/token",
        "https://localhost/token",
        "https://x.localhost/token",
        "https://[::1]/token",
        "https://0.0.0.0/token",
        "https://169.254.169.254/latest",
        "https://[fe80::1]/",
        "https://10.0.0.1/token",
        "https://[::ffff:127.0.0.1]/token",
        "https://[64:ff9b::7f00:1]/token",
        "http://auth.test/token",
        "ftp://auth.test/",
        "https://user:pass@auth.test/token",
        "https://xn--/",
        "/token",
        "https://",
    ],
)
def test_a_hostile_realm_is_refused_and_gets_nothing(world: World, realm: str) -> None:
    world.registry.auth = "bearer"
    world.registry.realm = realm
    world.login()
    with pytest.raises(Refused, match=r"the registry sends us to|the registry's token server"):
        world.resolve()
    assert {request.url.host for request in world.sent} == {HOST}


def test_a_redirect_gets_no_credentials(world: World) -> None:
    world.registry.auth = "basic"
    world.login()
    _, layers = digests(world.content)
    data = world.content.blobs[layers[0]]
    world.others["cdn.test"] = lambda request: httpx.Response(200, stream=httpx.ByteStream(data))
    world.registry.break_next(layers[0], lambda request, answer: answer, faulty.redirect("https://cdn.test/x?sig=1"))
    world.registry.faults[layers[0]].pop(0)
    world.pull()
    (away,) = [request for request in world.sent if request.url.host == "cdn.test"]
    assert "Authorization" not in away.headers
    assert "Cookie" not in away.headers


def test_a_challenge_of_a_redirect_target_is_not_answered(world: World) -> None:
    world.registry.auth = "basic"
    world.login()
    _, layers = digests(world.content)
    world.others["evil.test"] = lambda request: httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
    world.registry.break_next(layers[0], faulty.redirect("https://evil.test/"))
    with pytest.raises(Unavailable):
        world.pull()
    assert all("Authorization" not in r.headers for r in world.sent if r.url.host == "evil.test")


@pytest.mark.parametrize(
    "target",
    ["http://cdn.test/x", "https://127.0.0.1/x", "https://169.254.169.254/x", "file:///etc/passwd", "https://a:b@c/"],
)
def test_a_hostile_redirect_is_refused(world: World, target: str) -> None:
    _, layers = digests(world.content)
    world.registry.break_next(layers[0], faulty.redirect(target))
    with pytest.raises(Refused, match=r"redirects|sends us to"):
        world.pull()


def test_redirects_are_bounded(world: World) -> None:
    world.others["cdn.test"] = lambda request: httpx.Response(302, headers={"Location": str(request.url)})
    _, layers = digests(world.content)
    world.registry.break_next(layers[0], faulty.redirect("https://cdn.test/x"))
    with pytest.raises(Refused, match="more than 5 times"):
        world.pull()


def test_foreign_layers_come_without_credentials(world: World) -> None:
    content = world.content
    data = content.blobs.pop(digests(content)[1][-1])
    found = content.manifest("1")
    assert found
    manifest = json.loads(found[2])
    manifest["layers"][-1]["urls"] = ["http://plain.test/", "https://foreign.test/layer"]
    content.document(manifest, OCI_MANIFEST, "1")
    world.registry.auth = "basic"
    world.login()
    world.others["foreign.test"] = lambda request: httpx.Response(200, stream=httpx.ByteStream(data))
    world.pull()
    (away,) = [request for request in world.sent if request.url.host == "foreign.test"]
    assert "Authorization" not in away.headers


def test_an_index_sent_as_a_manifest_is_refused(world: World) -> None:
    index = world.content.index("2", world.content.image())
    world.registry.break_next("manifests", lambda r, a: a, faulty.content_type(OCI_MANIFEST))
    with pytest.raises(Refused, match="not what it is called"):
        world.resolve("2")
    assert world.content.manifest(index["digest"])


def test_an_entry_of_an_index_that_is_something_else_is_refused(world: World) -> None:
    inner = world.content.index("", world.content.image())
    entry = {**inner, "mediaType": OCI_MANIFEST, "platform": {"os": "linux", "architecture": "amd64"}}
    world.content.index("2", entry)
    with pytest.raises(Refused, match=r"not what the index says|not what it is called"):
        world.resolve("2")


def test_nested_indexes_are_bounded(world: World) -> None:
    entry = world.content.image()
    for _ in range(4):
        entry = world.content.index("deep", entry)
    with pytest.raises(Refused, match="nested more than 3 deep"):
        world.resolve("deep")


def test_compressed_transfer_is_not_undone(world: World) -> None:
    world.registry.break_next("manifests", lambda r, a: a, faulty.header("Content-Encoding", "gzip"))
    world.resolve()


def test_a_large_error_body_is_cut_off(world: World) -> None:
    world.registry.break_next("manifests", *[faulty.status(403, b" " * (2 << 20))] * 2)
    with pytest.raises(Unavailable, match="it answered 403"):
        world.resolve()


def test_a_manifest_is_bounded(world: World) -> None:
    world.registry.break_next("manifests", lambda r, a: a, faulty.body(b" " * ((4 << 20) + 1)))
    with pytest.raises(Refused, match="larger than 4194304 bytes"):
        world.resolve()


def test_docker_hub_is_asked_under_its_real_name(tmp_path: Path) -> None:
    world = World(tmp_path, "registry-1.docker.io")
    world.content.image("1")
    world.registry.auth = "basic"
    world.login("https://index.docker.io/v1/")
    source = world.source("library/nginx")
    with RegistrySource(
        RegistryImage("docker.io", "library/nginx"), world.cache, source._registry._settings, wire=world.wire
    ) as hub:
        assert hub.resolve("1", None, AMD64).reference == "docker.io/library/nginx:1"
    source.close()
    assert world.sent[0].url.path == "/v2/library/nginx/manifests/1"


def test_plain_http_is_for_loopback_and_insecure_registries_only(tmp_path: Path) -> None:
    for host, conf, first in (
        ("registry.test:5000", "", "https"),
        ("10.1.2.3:5000", "", "https"),
        ("127.0.0.1:5000", "", "http"),
        ("[::1]:5000", "", "http"),
        ("localhost", "", "http"),
        ("registry.test:5000", '[[registry]]\nlocation = "registry.test:5000"\ninsecure = true', "https"),
    ):
        world = World(tmp_path / host / str(len(conf)), host)
        world.content.image("1")
        world.configure(conf)
        world.resolve()
        assert world.sent[0].url.scheme == first, host


def test_an_insecure_registry_may_fall_back_and_another_may_not(tmp_path: Path) -> None:
    for conf, works in (("", False), ('[[registry]]\nprefix = "registry.test/a"\ninsecure = true', True)):
        world = World(tmp_path / str(works))
        world.content.image("1")
        world.configure(conf)
        plain = world.handle

        def no_tls(request: httpx.Request, plain: Any = plain) -> httpx.Response:
            if request.url.scheme == "https":
                raise httpx.ConnectError("wrong version number")
            return plain(request)  # type: ignore[no-any-return]

        world.handle = no_tls  # type: ignore[method-assign]
        if works:
            assert world.resolve().reference == f"{HOST}/a/b:1"
        else:
            with pytest.raises(Unavailable, match="wrong version number"):
                world.resolve()


def test_a_blocked_registry_is_not_asked(world: World) -> None:
    world.configure(f'[[registry]]\nprefix = "{HOST}"\nblocked = true')
    with pytest.raises(Unavailable, match="blocked"):
        world.resolve()
    assert world.sent == []


def test_a_location_takes_the_place_of_a_prefix(world: World) -> None:
    world.configure(f'[[registry]]\nprefix = "other.test/x"\nlocation = "{HOST}/a"')
    settings = Settings(environ=world.environ, etc=str(world.folder / "etc"), look_up=world.look_up)
    with RegistrySource(RegistryImage("other.test", "x/b"), world.cache, settings, wire=world.wire) as source:
        assert source.resolve("1", None, AMD64).reference == "other.test/x/b:1"


def test_a_credential_helper_is_asked_or_named(world: World) -> None:
    world.registry.auth = "basic"
    (world.folder / ".docker").mkdir()
    (world.folder / ".docker/config.json").write_text(json.dumps({"credsStore": "pass"}))
    with pytest.raises(Unavailable, match="docker-credential-pass is not installed"):
        world.resolve()
    calls: list[tuple[list[str], bytes]] = []

    def helper(argv: Any, data: bytes) -> str:
        calls.append((list(argv), data))
        return json.dumps({"Username": "appbox", "Secret": "secret"})

    settings = Settings(environ=world.environ, etc=str(world.folder / "etc"), helper=helper, look_up=world.look_up)
    with RegistrySource(RegistryImage(HOST, "a/b"), world.cache, settings, wire=world.wire) as source:
        source.resolve("1", None, AMD64)
    assert calls == [(["docker-credential-pass", "get"], HOST.encode())]


def test_no_secret_is_in_an_error(world: World) -> None:
    world.registry.auth = "basic"
    world.login(auth=base64.b64encode(b"appbox:hunter2hunter2").decode())
    with pytest.raises(AppboxError) as caught:
        world.resolve()
    assert "hunter2" not in repr(caught.value)
    assert "hunter2" not in str(caught.value)
