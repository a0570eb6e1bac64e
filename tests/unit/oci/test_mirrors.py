"""Mirrors, locations and prefixes of registries.conf, with registries in memory behind several hosts."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from appbox.errors import Refused, Unavailable
from appbox.layers import unpack_image
from appbox.oci import registries
from appbox.oci.digest import Digest
from appbox.oci.model import Platform
from appbox.oci.pull import RegistrySource
from appbox.oci.reference import RegistryImage
from appbox.oci.registries import Mirror, Rule, Rules
from appbox.oci.unpack import IdMap
from tests.ground import faulty
from tests.ground.faulty import Answer, Request
from tests.ground.tiny import Content, layer
from tests.ground.world import AMD64, HOST, World, digests

TWO = """
[[registry]]
prefix = "registry.test/a"
[[registry.mirror]]
location = "one.test/copy"
[[registry.mirror]]
location = "two.test:5000"
"""

CONTRADICTION = """
[[registry]]
prefix = "a"
mirror-by-digest-only = true
[[registry.mirror]]
location = "b"
pull-from-mirror = "all"
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.content.image("1", layers=(layer({"a": b"a" * 4096}), layer({"b": b"b" * 4096})))
    world.configure(TWO)
    return world


def unpacked(world: World, folder: Path) -> dict[str, bytes]:
    """Unpack the image while it comes in, and return its files."""
    root = folder / "rootfs"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with world.source() as source:
            image = source.resolve("1", None, AMD64)
            unpack_image(source, image, fd, IdMap(os.geteuid(), 1), durable=False)
    finally:
        os.close(fd)
    return {path.name: path.read_bytes() for path in root.iterdir()}


def asked(world: World) -> list[str]:
    """The hosts that were asked, each time in a row once."""
    hosts = [request.url.netloc.decode() for request in world.sent]
    return [host for before, host in zip(["", *hosts], hosts, strict=False) if host != before]


def test_the_first_mirror_is_asked_alone(world: World) -> None:
    world.also("one.test")
    world.also("two.test:5000")
    world.pull()
    assert asked(world) == ["one.test"]
    assert world.sent[0].url.path == "/v2/copy/b/manifests/1"
    assert world.notes == []


def test_one_that_cannot_be_reached_is_passed_over_and_said_once(world: World) -> None:
    world.also("two.test:5000")
    world.pull()
    assert asked(world) == ["one.test", "two.test:5000"]
    assert [request.url.path for request in world.sent][1].startswith("/v2/b/manifests/")
    (note,) = world.notes
    assert note.startswith("the mirror one.test of registry.test/a/b is passed over: the registry cannot be")


def test_the_registry_itself_is_the_last(world: World) -> None:
    image = world.pull()
    assert asked(world) == ["one.test", "two.test:5000", HOST]
    assert image.reference == f"{HOST}/a/b:1"
    assert len(world.notes) == 2


def test_a_mirror_without_the_image_is_passed_over(world: World) -> None:
    world.also("one.test", Content())
    world.pull()
    assert "one.test" in world.notes[0]
    assert asked(world)[-1] == HOST


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_mirror_that_refuses_is_passed_over(world: World, status: int) -> None:
    world.also("one.test").break_next("manifests", *[faulty.status(status)] * 9)
    world.pull()
    assert str(status) in world.notes[0] or status == 404


def test_a_mirror_that_fails_in_a_layer_is_passed_over(world: World) -> None:
    mirror = world.also("one.test")
    layers = sorted(world.content.blobs, key=lambda digest: len(world.content.blobs[digest]))
    for digest in layers:
        mirror.break_next(digest, *[faulty.status(500)] * 9)
    world.pull()
    assert len([note for note in world.notes if "one.test" in note]) == 1


@pytest.mark.parametrize("which", range(2))
def test_a_mirror_that_lies_about_a_document_is_passed_over_and_said(world: World, which: int) -> None:
    found = world.content.manifest("1")
    assert found
    config, _ = digests(world.content)
    mirror = world.also("one.test")
    mirror.break_next((found[0], config)[which], *[faulty.corrupt(5)] * 9)
    image = world.pull()
    assert "digest" in world.notes[0]
    assert asked(world)[-1] == HOST
    for entry in image.manifest.layers:
        assert world.cache.sound(entry)


@pytest.mark.parametrize("lie", [faulty.corrupt(0), faulty.corrupt(60), faulty.corrupt(-1)])
def test_a_mirror_that_lies_in_a_layer_is_passed_over(world: World, lie: faulty.Fault) -> None:
    _, layers = digests(world.content)
    world.also("one.test").break_next(layers[1], *[lie] * 9)
    image = world.pull()
    assert "one.test" in world.notes[0]
    assert "does not have its digest" in world.notes[0]
    assert all(world.cache.sound(entry) for entry in image.manifest.layers)


@pytest.mark.parametrize("at", [0, 5, 60, -1])
def test_what_is_unpacked_while_a_mirror_lies_comes_out_right(world: World, tmp_path: Path, at: int) -> None:
    """The lie may be noticed by who reads the layer before its end is there."""
    _, layers = digests(world.content)
    world.also("one.test").break_next(layers[1], *[faulty.corrupt(at)] * 9)
    assert unpacked(world, tmp_path) == {"a": b"a" * 4096, "b": b"b" * 4096}


def test_a_lie_is_remembered_when_the_truth_has_come_since(world: World) -> None:
    """Who has stumbled over the lie may say so only then."""
    _, layers = digests(world.content)
    world.also("one.test").break_next(layers[1], *[faulty.corrupt(5)] * 9)
    with world.source() as source:
        image = source.resolve("1", None, AMD64)
        source.fetch(image)
        assert source.recheck(image)
        source.fetch(image)
        assert not source.recheck(image)


def test_all_that_mirrors_and_registry_say_is_refused_when_all_lie(world: World, tmp_path: Path) -> None:
    _, layers = digests(world.content)
    for registry in (world.also("one.test"), world.also("two.test:5000"), world.registry):
        registry.break_next(layers[1], *[faulty.corrupt(5)] * 9)
    with pytest.raises(Refused):
        unpacked(world, tmp_path)
    assert not world.cache.has(Digest.parse(layers[1]))
    assert list((world.folder / "cache/.partial").glob("*")) == []


def test_the_beginning_that_a_lying_mirror_sent_is_not_gone_on_from(world: World, tmp_path: Path) -> None:
    _, layers = digests(world.content)
    data = world.content.blobs[layers[1]]

    def cut(request: Request, answer: Answer) -> Answer:
        return Answer(200, {"Content-Length": str(len(data))}, bytes(50))

    world.also("one.test").break_next(layers[1], *[cut, *[faulty.status(500)] * 4] * 2)
    world.pull()
    assert unpacked(world, tmp_path) == {"a": b"a" * 4096, "b": b"b" * 4096}


def test_a_mirror_that_lies_about_a_size_is_passed_over(world: World) -> None:
    _, layers = digests(world.content)
    world.also("one.test").break_next(layers[1], faulty.header("Content-Length", "99"))
    world.pull()
    assert "sends 99 bytes" in world.notes[0]


def test_a_layer_that_a_mirror_lacks_comes_from_the_next_and_the_others_from_it(world: World) -> None:
    _, layers = digests(world.content)
    mirror = world.also("one.test")
    mirror.break_next(layers[0], faulty.status(404))
    world.pull()
    assert world.notes[0].startswith("the mirror two.test:5000"), "one that served the image is not complained of"
    assert [request.url.host for request in world.sent if layers[1] in request.url.path] == ["one.test"]
    assert [request.url.host for request in world.sent if layers[0] in request.url.path][-1] == HOST


def test_a_download_that_a_mirror_broke_off_goes_on_elsewhere(world: World) -> None:
    world.configure(TWO.rpartition("[[registry.mirror]]")[0])
    _, layers = digests(world.content)
    data = world.content.blobs[layers[1]]

    def cut(request: Request, answer: Answer) -> Answer:
        return Answer(200, {"Content-Length": str(len(data))}, data[:50])

    world.also("one.test").break_next(layers[1], cut, *[faulty.status(500)] * 9)
    world.pull()
    (last,) = [request for request in world.sent if layers[1] in request.url.path and request.url.host == HOST]
    assert last.headers["Range"] == "bytes=50-"


def test_when_all_fail_all_are_named(world: World) -> None:
    world.registry.break_next("manifests", *[faulty.status(403)] * 9)
    with pytest.raises(Unavailable, match=r"403.*the mirror one\.test: .*the mirror two\.test:5000: "):
        world.resolve()


@pytest.mark.parametrize(
    ("line", "by_tag", "by_digest"),
    [
        ('pull-from-mirror = "all"', ["one.test"], ["one.test"]),
        ('pull-from-mirror = "digest-only"', [HOST, "one.test"], ["one.test"]),
        ('pull-from-mirror = "tag-only"', ["one.test"], [HOST]),
    ],
)
def test_which_mirror_is_asked_for_what(world: World, line: str, by_tag: list[str], by_digest: list[str]) -> None:
    world.also("one.test")
    world.configure(f'[[registry]]\nprefix = "{HOST}"\n[[registry.mirror]]\nlocation = "one.test"\n{line}\n')
    image = world.pull()
    assert asked(world) == by_tag
    world.sent.clear()
    world.cache.drop(image.digest)
    for entry in (image.manifest.config, *image.manifest.layers):
        world.cache.drop(entry.digest)
    world.pull(digest=image.digest)
    assert asked(world) == by_digest


def test_mirror_by_digest_only(world: World) -> None:
    world.also("one.test")
    rule = f'[[registry]]\nprefix = "{HOST}"\nmirror-by-digest-only = true\n'
    world.configure(f'{rule}[[registry.mirror]]\nlocation = "one.test"\n')
    world.pull()
    assert asked(world) == [HOST, "one.test"], "the tag is the registry's, the rest the mirror's"


def test_credentials_are_those_of_the_mirror(world: World) -> None:
    mirror = world.also("one.test")
    mirror.auth, mirror.user, mirror.password = "basic", "mirror", "m"
    world.registry.auth = "basic"
    world.login("one.test", username="mirror", password="m")
    world.pull()
    assert asked(world) == ["one.test"]
    world.login(HOST, username="appbox", password="secret")
    world.cache = type(world.cache)(str(world.folder / "other"))
    world.sent.clear()
    world.pull()
    assert asked(world)[0] == "one.test"
    assert asked(world)[-1] == HOST
    one = [request for request in world.sent if request.url.host == "one.test"]
    assert all("Authorization" not in request.headers for request in one)


def test_only_an_insecure_mirror_may_speak_plain_http(world: World) -> None:
    for insecure in (False, True):
        world.also("one.test")
        world.configure(
            f'[[registry]]\nprefix = "{HOST}"\n[[registry.mirror]]\nlocation = "one.test"\n'
            f"insecure = {str(insecure).lower()}\n"
        )
        handle = world.handle

        def no_tls(request: httpx.Request, handle: object = handle) -> httpx.Response:
            if request.url.scheme == "https" and request.url.host == "one.test":
                raise httpx.ConnectError("no TLS here")
            return World.handle(world, request)

        world.handle = no_tls  # type: ignore[method-assign]
        world.sent.clear()
        world.resolve()
        assert asked(world)[-1] == ("one.test" if insecure else HOST)
        world.handle = handle  # type: ignore[method-assign]


def test_a_location_and_its_own_insecure(tmp_path: Path) -> None:
    rule = Rule("a.test", "b.test:5000/x", insecure=True)
    place = Rules((rule,)).place(RegistryImage("a.test", "y/z"))
    assert place.image == RegistryImage("b.test:5000", "x/y/z")
    assert place.insecure


@pytest.mark.parametrize(
    ("prefix", "location", "name", "place"),
    [
        ("*.example.com", "mirror.test/x", "a.example.com/b", "mirror.test/x/b"),
        ("*.example.com", "mirror.test", "a.b.example.com:5000/b", "mirror.test:5000/b"),
        ("*.example.com", "", "a.example.com/b", "a.example.com/b"),
        ("*.example.com", "mirror.test", "example.com/b", "example.com/b"),
        ("*.example.com", "mirror.test", "badexample.com/b", "badexample.com/b"),
        ("*.example.com", "mirror.test", "a.example.com.evil.test/b", "a.example.com.evil.test/b"),
        ("docker.io/library", "mirror.test/hub", "docker.io/library/nginx", "mirror.test/hub/nginx"),
        ("docker.io", "mirror.test", "docker.io/library/nginx", "mirror.test/library/nginx"),
        ("quay.io/team/app", "mirror.test/else", "quay.io/team/app", "mirror.test/else"),
        ("quay.io/team/app", "mirror.test/else", "quay.io/team/apple", "quay.io/team/apple"),
        ("example.com", "mirror.test", "example.com:5000/x", "example.com:5000/x"),
        ("a.test", "[::1]:5000", "a.test/b", "[::1]:5000/b"),
    ],
)
def test_prefixes_are_rewritten(prefix: str, location: str, name: str, place: str) -> None:
    registry, _, repository = name.partition("/")
    rules = Rules((Rule(prefix, location), Rule("*.test", insecure=True)))
    assert str(rules.place(RegistryImage(registry, repository)).image) == place
    mirrored = Rules((Rule(prefix, mirrors=(Mirror(location),)),)) if location else Rules()
    expected = [place] if place != name else []
    assert [str(one.image) for one in mirrored.mirrors(RegistryImage(registry, repository))] == expected


def test_the_longest_prefix_counts(world: World) -> None:
    rules = Rules((Rule("a.test", blocked=True), Rule("a.test/open"), Rule("*.b.test", blocked=True), Rule("x.b.test")))
    rules.place(RegistryImage("a.test", "open/x"))
    rules.place(RegistryImage("x.b.test", "x"))
    for host in ("a.test", "y.b.test"):
        with pytest.raises(Unavailable, match="blocked"):
            rules.place(RegistryImage(host, "x"))


def test_one_tag_or_digest_may_be_blocked(world: World) -> None:
    digest = world.content.tags["1"]
    for name in (f"{HOST}/a/b:1", f"{HOST}/a/b@{digest}"):
        world.configure(f'[[registry]]\nprefix = "{name}"\nblocked = true')
        world.sent.clear()
        with pytest.raises(Unavailable, match="blocked"):
            world.resolve()
        assert not [request for request in world.sent if request.method == "GET"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[registry]]\nprefix = "a"\n[[registry.mirror]]\ninsecure = true', "needs a location"),
        ('[[registry]]\nprefix = "a"\nmirror = 1', "must be a list of tables"),
        ('[[registry]]\nprefix = "a"\n[[registry.mirror]]\nlocation = 1', "needs a location"),
        ('[[registry]]\nprefix = "a"\n[[registry.mirror]]\nlocation = "b"\ninsecure = 1', "insecure must be true"),
        ('[[registry]]\nprefix = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "x"', "must be all"),
        ('[[registry]]\nprefix = "a"\nmirror-by-digest-only = 1', "mirror-by-digest-only must be true or false"),
        (CONTRADICTION, "contradicts"),
    ],
)
def test_a_bad_mirror_is_named(text: str, words: str) -> None:
    with pytest.raises(Unavailable, match=rf"^/etc/x: .*{words}"):
        registries.parse(text.encode(), "/etc/x")


def test_a_location_that_leads_nowhere_is_named(world: World) -> None:
    for location in ("https://mirror.test", "oci:dir", "mirror"):
        world.configure(f'[[registry]]\nprefix = "{HOST}"\n[[registry.mirror]]\nlocation = "{location}"')
        with pytest.raises(Unavailable, match="has a bad location"):
            world.source()


def test_a_mirror_that_redirects_to_plain_http_is_passed_over(world: World) -> None:
    world.also("one.test").break_next("manifests", *[faulty.redirect("http://cdn.test/")] * 9)
    world.resolve()
    assert "from https to http" in world.notes[0]


def test_a_registry_that_lies_is_still_refused(world: World) -> None:
    world.configure("")
    world.registry.break_next(next(iter(world.content.blobs)), *[faulty.corrupt(5)] * 9)
    with pytest.raises(Refused):
        world.pull()


def test_docker_hub_has_mirrors_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.content.image("1")
    world.also("mirror.test")
    world.configure('[[registry]]\nprefix = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.test/hub"')
    hub = RegistryImage("docker.io", "library/nginx")
    with RegistrySource(hub, world.cache, world.settings(), wire=world.wire) as source:
        assert source.resolve("1", None, Platform("linux", "amd64")).reference == "docker.io/library/nginx:1"
    assert world.sent[0].url.path == "/v2/hub/library/nginx/manifests/1"
