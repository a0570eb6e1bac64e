"""Pushing into a registry in memory: what is sent, what is checked, and what goes wrong."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci import push
from appbox.oci.digest import Digest
from appbox.oci.model import Descriptor
from tests.ground import faulty
from tests.ground.faulty import Answer, Request
from tests.ground.tiny import OCI_LAYER, OCI_MANIFEST, Content
from tests.ground.world import HOST, World

DATA = bytes(range(256)) * 1024 * 12  # 3 MiB


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(params=[False, True], ids=["whole", "chunked"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(push, "CHUNK", 1 << 20)
    return bool(request.param)


def described(data: bytes = DATA, algorithm: str = "sha256") -> Descriptor:
    return Descriptor(OCI_LAYER, Digest.of(data, algorithm), len(data))


def opened(data: bytes = DATA) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(data)


def sent(world: World) -> list[str]:
    return [f"{r.method} {re.sub('session-[0-9]+', 'N', r.url.path.removeprefix('/v2/a/b/'))}" for r in world.sent]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("data", [b"", b"x", DATA, DATA + b"x"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_blob_arrives(world: World, chunked: bool, data: bytes, algorithm: str, relative: bool) -> None:
    world.registry.uploads.relative = relative
    reports: list[int] = []
    with world.target() as target:
        assert not target.has(described(data, algorithm))
        target.upload(described(data, algorithm), opened(data), reports.append, chunked=chunked)
        assert target.has(described(data, algorithm))
        assert not target.has(Descriptor(OCI_LAYER, Digest.of(data, algorithm), len(data) + 1))
    assert world.registry.content.blobs[str(Digest.of(data, algorithm))] == data
    assert reports[-1] == len(data)
    assert reports == sorted(reports)
    assert world.registry.uploads.open == {}


def test_what_is_sent_whole(world: World) -> None:
    with world.target() as target:
        target.upload(described(), opened())
    assert sent(world) == ["POST blobs/uploads/", "PUT blobs/uploads/N"]
    put = world.sent[-1]
    assert put.headers["Content-Length"] == str(len(DATA))
    assert put.headers["Content-Type"] == "application/octet-stream"
    assert dict(put.url.params) == {"state": "0", "digest": str(Digest.of(DATA))}


def test_what_is_sent_in_chunks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "CHUNK", 2 << 20)
    with world.target() as target:
        target.upload(described(), opened(), chunked=True)
    assert sent(world) == ["POST blobs/uploads/", *["PATCH blobs/uploads/N"] * 2, "PUT blobs/uploads/N"]
    spans = [request.headers.get("Content-Range") for request in world.sent]
    assert spans == [None, "0-2097151", "2097152-3145727", None]
    assert [request.url.params.get("state") for request in world.sent][1:] == ["0", "2097152", "3145728"]


def test_a_registry_may_want_larger_chunks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "CHUNK", 1 << 16)
    world.registry.uploads.least = 2 << 20
    with world.target() as target:
        target.upload(described(), opened(), chunked=True)
    assert [request.headers.get("Content-Range") for request in world.sent][1] == "0-2097151"


@pytest.mark.parametrize("wrong", [DATA[:-1], DATA + b"x", DATA[:-1] + b"x", b""])
def test_what_is_not_as_described_is_never_finished(world: World, chunked: bool, wrong: bytes) -> None:
    with world.target() as target, pytest.raises(Refused, match="not what its descriptor says") as caught:
        target.upload(described(), opened(wrong), chunked=chunked)
    assert caught.value.exit_code == 6
    assert world.registry.content.blobs == {}
    assert world.registry.uploads.open == {}, "the upload was cancelled"


def test_an_empty_blob_that_is_not_empty_is_refused(world: World, chunked: bool) -> None:
    with world.target() as target, pytest.raises(Refused):
        target.upload(described(b""), opened(b"x"), chunked=chunked)
    assert world.registry.content.blobs == {}


def test_a_token_that_ends_in_the_middle_of_an_upload(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "CHUNK", 1 << 20)
    world.registry.auth = "bearer"
    world.login()
    streams: list[BinaryIO] = []

    def open_it() -> BinaryIO:
        streams.append(io.BytesIO(DATA))
        return streams[-1]

    def forget(request: Request, answer: Answer) -> Answer:
        world.registry.tokens.clear()
        return answer

    world.registry.break_next("PATCH uploads", forget)
    with world.target() as target:
        target.upload(described(), open_it, chunked=True)
    assert world.registry.content.blobs[str(Digest.of(DATA))] == DATA
    tokens = [request for request in world.sent if request.url.host == "auth.test"]
    assert [request.url.params["scope"] for request in tokens] == ["repository:a/b:pull,push"] * 2
    assert all(stream.closed for stream in streams)


def test_mounting(world: World) -> None:
    other = Content()
    other.blob(DATA, OCI_LAYER)
    world.registry.uploads.others["library/x"] = other
    with world.target() as target:
        assert target.mount(described(), "library/x")
        assert not target.mount(described(b"other"), "library/x")
        target.upload(described(b"other"), opened(b"other"))
        assert not target.mount(described(b"more"), "library/x")
    assert set(world.registry.content.blobs) == {str(Digest.of(DATA)), str(Digest.of(b"other"))}
    posts = [one for one in sent(world) if one.startswith("POST")]
    assert len(posts) == 3, "what a refused mount had opened was used"
    assert world.registry.uploads.open == {}, "and cancelled when it was not"


def test_a_mount_asks_for_a_token_for_both_repositories(world: World) -> None:
    world.registry.auth = "bearer"
    world.login()
    with world.target() as target:
        target.has(described())
        target.mount(described(), "library/x")
        target.has(described())
    scopes = [r.url.params.get_list("scope") for r in world.sent if r.url.host == "auth.test"]
    assert scopes == [["repository:a/b:pull,push"], ["repository:a/b:pull,push", "repository:library/x:pull"]]


@pytest.mark.parametrize("reference", ["1", "digest"])
def test_manifests(world: World, reference: str) -> None:
    data = b'{"schemaVersion":2}'
    digest = Digest.of(data)
    with world.target() as target:
        assert not target.has_manifest(digest)
        assert target.put_manifest(data, OCI_MANIFEST, digest if reference == "digest" else reference) == digest
        assert target.has_manifest(digest)
    assert world.registry.content.manifests[str(digest)] == (OCI_MANIFEST, data)
    with world.target() as target, pytest.raises(Refused, match="does not have its digest"):
        target.put_manifest(data + b" ", OCI_MANIFEST, digest)


def test_a_registry_that_stored_something_else_is_refused(world: World) -> None:
    lie = faulty.header("Docker-Content-Digest", f"sha256:{'0' * 64}")
    world.registry.break_next("PUT manifests", lie)
    with world.target() as target, pytest.raises(Refused, match="has stored another manifest"):
        target.put_manifest(b"{}", OCI_MANIFEST, "1")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "refuses access .*podman login"),
        (403, "refuses access"),
        (405, "takes no blob .*read-only"),
        (404, "did not take the blob .*read-only"),
        (413, "did not take the blob .*413"),
    ],
)
def test_a_registry_that_does_not_want_it(world: World, status: int, words: str) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"read-only"}]}'
    world.registry.break_next("POST uploads", faulty.status(status, body))
    with world.target() as target, pytest.raises(Unavailable, match=words):
        target.upload(described(), opened())
    assert len(world.sent) == 1
    world.registry.break_next("PUT manifests", faulty.status(status, body))
    with world.target() as target, pytest.raises(Unavailable, match=words.replace("blob", "manifest")):
        target.put_manifest(b"{}", OCI_MANIFEST, "1")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("http://registry.test/x", "from https to http"),
        ("https://127.0.0.1/x", "sends us to 127"),
        ("https://169.254.169.254/x", "sends us to 169"),
        ("ftp://x/", "no URL"),
        ("https://u:p@x/", "no URL"),
    ],
)
def test_an_upload_that_is_led_astray_is_refused(world: World, place: str, words: str) -> None:
    world.registry.break_next("POST uploads", faulty.status(202, Location=place))
    with world.target() as target, pytest.raises(Refused, match=words):
        target.upload(described(), opened())


def test_an_upload_without_a_place_is_refused(world: World) -> None:
    world.registry.break_next("POST uploads", faulty.status(202))
    with world.target() as target, pytest.raises(Refused, match="does not say where the upload goes on"):
        target.upload(described(), opened())


def test_credentials_do_not_go_to_where_an_upload_is_sent(world: World) -> None:
    world.registry.auth = "basic"
    world.login()
    got: list[bytes] = []

    def storage(request: httpx.Request) -> httpx.Response:
        got.append(request.read())
        return httpx.Response(201)

    world.others["storage.test"] = storage
    there = faulty.status(202, Location="https://storage.test/bucket?sig=a%2Fb")
    world.registry.break_next("POST uploads", lambda r, a: a, there)  # the first one is the 401
    with world.target() as target:
        target.upload(described(), opened())
    (away,) = [request for request in world.sent if request.url.host == "storage.test"]
    assert "Authorization" not in away.headers
    assert away.url.query == b"sig=a%2Fb&digest=" + str(Digest.of(DATA)).encode()
    assert got == [DATA]


def test_passing_failures_are_tried_again_and_bounded(world: World, chunked: bool) -> None:
    world.registry.break_next("POST uploads", *[faulty.status(503, Retry_After="3")] * 2)
    with world.target() as target:
        target.upload(described(), opened(), chunked=chunked)
    assert len(world.waits) == 2
    assert all(3 <= wait <= 4.5 for wait in world.waits)
    world.registry.break_next("POST uploads", *[faulty.status(500)] * 9)
    with world.target() as target, pytest.raises(Unavailable, match="it answered 500"):
        target.upload(described(b"x"), opened(b"x"), chunked=chunked)


def test_chunks_that_never_come_to_an_end_are_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on, beginning again and going on is no progress."""
    monkeypatch.setattr(push, "CHUNK", 2 << 20)
    world.registry.break_next("PATCH uploads", *[lambda r, a: a, faulty.status(416)] * 50)
    world.registry.break_next("GET uploads", *[faulty.status(404)] * 50)
    with world.target() as target, pytest.raises(Unavailable, match="go on elsewhere"):
        target.upload(described(), opened(), chunked=True)
    assert len([one for one in sent(world) if one.startswith("PATCH")]) <= 12


def test_a_chunk_that_was_not_kept_whole_goes_on_from_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "CHUNK", 2 << 20)

    def half(request: Request, answer: Answer) -> Answer:
        del world.registry.uploads.open["session-1"][1_000_000:]
        return Answer(202, {**answer.headers, "Range": "0-999999"}, b"")

    world.registry.break_next("PATCH uploads", half)
    with world.target() as target:
        target.upload(described(), opened(), chunked=True)
    assert world.registry.content.blobs[str(Digest.of(DATA))] == DATA
    spans = [r.headers.get("Content-Range") for r in world.sent if r.method == "PATCH"]
    assert spans == ["0-2097151", "1000000-3097151", "3097152-3145727"]


def test_an_answer_that_was_lost_is_not_a_blob_that_was_lost(world: World, chunked: bool) -> None:
    world.registry.break_next("PUT uploads", faulty.status(502))
    with world.target() as target:
        target.upload(described(), opened(), chunked=chunked)
    assert len([one for one in sent(world) if one.startswith("PUT")]) == 1
    assert sent(world)[-1] == f"HEAD blobs/{described().digest}"


def test_a_stream_that_cannot_seek(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "CHUNK", 1 << 20)
    world.registry.break_next("PATCH uploads", lambda r, a: a, faulty.status(500))

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with world.target() as target:
        target.upload(described(), lambda: Pipe(DATA), chunked=True)
    assert world.registry.content.blobs[str(Digest.of(DATA))] == DATA


def test_an_abort_ends_an_upload(world: World, chunked: bool) -> None:
    with world.target() as target:
        target.abort()
        assert target.aborted()
        with pytest.raises(AppboxError, match="cancelled"):
            target.upload(described(), opened(), chunked=chunked)
    assert world.registry.content.blobs == {}


def test_a_blocked_registry_is_not_written_to(world: World) -> None:
    world.configure(f'[[registry]]\nprefix = "{HOST}"\nblocked = true')
    with pytest.raises(Unavailable, match="blocked"):
        world.target()


def test_mirrors_are_not_written_to(world: World) -> None:
    world.also("mirror.test")
    world.configure(f'[[registry]]\nprefix = "{HOST}"\n[[registry.mirror]]\nlocation = "mirror.test"')
    with world.target() as target:
        target.upload(described(), opened())
    assert {request.url.host for request in world.sent} == {HOST}


def test_no_more_than_a_block_is_in_memory(world: World) -> None:
    """A large blob is read a part at a time, however often it is sent."""
    largest = 0

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal largest
            assert size is not None
            assert size > 0
            largest = max(largest, size)
            return super().read(size)

    with world.target() as target:
        target.upload(described(), lambda: Watched(DATA))
    assert largest == 1 << 20
    assert hashlib.sha256(DATA).hexdigest() == Digest.of(DATA).hex
