"""Pushing into the real docker-registry, and over a network that breaks."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from appbox.errors import Unavailable
from appbox.oci import push
from appbox.oci.digest import Digest
from appbox.oci.model import Descriptor
from appbox.oci.push import RegistryTarget
from appbox.oci.reference import RegistryImage
from appbox.oci.registry import Registry
from appbox.oci.settings import Settings, Timing
from tests.ground import faulty
from tests.ground import registry as ground
from tests.ground.faulty import Faulty
from tests.ground.tiny import OCI_LAYER, OCI_MANIFEST, Content, layer

PATIENCE = Timing(connect=2, read=2, drip=2, drip_rate=1024, first_delay=0.01)
SIZE = 5 << 20


class Client:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def settings(self) -> Settings:
        environ = {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder / "run")}
        return Settings(environ=environ, etc=str(self.folder / "etc"), timing=PATIENCE)

    def target(self, host: str, repository: str = "team/app") -> RegistryTarget:
        return RegistryTarget(RegistryImage(host, repository), self.settings())

    def login(self, host: str) -> None:
        (self.folder / ".docker").mkdir(exist_ok=True)
        auth = base64.b64encode(f"{ground.USER}:{ground.PASSWORD}".encode()).decode()
        (self.folder / ".docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))

    def trust(self, host: str, authority: str) -> None:
        folder = self.folder / "etc/docker/certs.d" / host
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.crt").write_bytes(Path(authority).read_bytes())


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


@pytest.fixture
def blob(tmp_path: Path) -> tuple[Path, Descriptor]:
    data = os.urandom(SIZE)
    path = tmp_path / "blob"
    path.write_bytes(data)
    return path, Descriptor(OCI_LAYER, Digest.of(data), len(data))


@pytest.fixture
def bad() -> Iterator[Faulty]:
    registry = Faulty(Content())
    with faulty.serve(registry):
        yield registry


@pytest.mark.registry
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("auth", "tls"), [("", False), ("", True), ("basic", False), ("token", False), ("token", True)]
)
def test_an_image_goes_to_the_real_registry(  # noqa: PLR0917
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, auth: str, tls: bool, chunked: bool
) -> None:
    monkeypatch.setattr(push, "CHUNK", 1 << 20)
    content = Content()
    content.image("1", layers=(layer({"a": os.urandom(SIZE)}), layer({"b": b"b"})))
    with ground.start(str(client.folder / "registry"), auth=auth, tls=tls) as registry:
        if auth:
            client.login(registry.host)
        for host in filter(None, (registry.host, registry.token_host)):
            if tls:
                client.trust(host, registry.authority)
        with client.target(registry.host) as target:
            for digest, data in content.blobs.items():
                descriptor = Descriptor(OCI_LAYER, Digest.parse(digest), len(data))
                path = tmp_path / digest
                path.write_bytes(data)
                assert not target.has(descriptor)
                target.upload(descriptor, partial(open, path, "rb"), chunked=chunked)
                assert target.has(descriptor)
            digest, media_type, data = content.manifest("1") or ("", "", b"")
            assert not target.has_manifest(Digest.parse(digest))
            assert str(target.put_manifest(data, media_type, "1")) == digest
            assert target.has_manifest(Digest.parse(digest))
        with client.target(registry.host, "other/app") as target:
            (first, *_) = content.blobs
            assert target.mount(Descriptor(OCI_LAYER, Digest.parse(first), len(content.blobs[first])), "team/app")
            assert not target.mount(Descriptor(OCI_LAYER, Digest.of(b"none"), 4), "team/app")
        reader = Registry(RegistryImage(registry.host, "team/app"), client.settings())
        assert reader.tags() == ["1"]
        assert reader.manifest("1") == (data, media_type)
        reader.close()
        login = ["--creds", f"{ground.USER}:{ground.PASSWORD}"] if auth else []
        shown = ground.run(
            "skopeo", "inspect", "--tls-verify=false", "--raw", *login, f"docker://{registry.host}/team/app:1"
        )
        assert shown == data


@pytest.mark.registry
def test_the_real_registry_says_what_it_does_not_want(client: Client, blob: tuple[Path, Descriptor]) -> None:
    path, descriptor = blob
    with ground.start(str(client.folder / "registry"), auth="basic") as registry:
        with client.target(registry.host) as target, pytest.raises(Unavailable, match=r"refuses access .*podman login"):
            target.upload(descriptor, partial(open, path, "rb"))
        client.login(registry.host)
        missing = {"mediaType": OCI_LAYER, "digest": str(descriptor.digest), "size": SIZE}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": missing, "layers": []})
        with (
            client.target(registry.host) as target,
            pytest.raises(Unavailable, match=r"not take the manifest .*400"),
        ):
            target.put_manifest(manifest.encode(), OCI_MANIFEST, "1")


def test_a_chunk_that_is_cut_goes_on_where_it_was(
    client: Client, bad: Faulty, blob: tuple[Path, Descriptor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "CHUNK", 2 << 20)
    path, descriptor = blob
    bad.interrupted += [300_000, 100_000, 0]
    with client.target(bad.host) as target:
        target.upload(descriptor, partial(open, path, "rb"), chunked=True)
    assert bad.content.blobs[str(descriptor.digest)] == path.read_bytes()
    spans = [request.headers["content-range"] for request in bad.seen("PATCH", "uploads")]
    assert [span.partition("-")[0] for span in spans[:4]] == ["0", "300000", "400000", "400000"]


def test_an_upload_that_is_cut_begins_again(client: Client, bad: Faulty, blob: tuple[Path, Descriptor]) -> None:
    path, descriptor = blob
    bad.interrupted += [300_000, 100]
    with client.target(bad.host) as target:
        target.upload(descriptor, partial(open, path, "rb"))
    assert bad.content.blobs[str(descriptor.digest)] == path.read_bytes()
    assert bad.uploads.open == {}, "what was begun before is cancelled"


def test_the_cuts_are_bounded(client: Client, bad: Faulty, blob: tuple[Path, Descriptor]) -> None:
    path, descriptor = blob
    for chunked in (False, True):
        bad.interrupted[:] = [10] * 50
        with client.target(bad.host) as target, pytest.raises(Unavailable, match="connection to the registry broke"):
            target.upload(descriptor, partial(open, path, "rb"), chunked=chunked)
        assert len(bad.interrupted) == 45
        assert bad.content.blobs == {}


def test_a_token_that_ends_in_the_middle(
    client: Client, bad: Faulty, blob: tuple[Path, Descriptor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "CHUNK", 1 << 20)
    path, descriptor = blob
    bad.auth = "bearer"

    def forget(request: faulty.Request, answer: faulty.Answer) -> faulty.Answer:
        bad.tokens.clear()
        return answer

    bad.break_next("PATCH uploads", *[forget] * 5)
    with client.target(bad.host) as target:
        target.upload(descriptor, partial(open, path, "rb"), chunked=True)
    assert bad.content.blobs[str(descriptor.digest)] == path.read_bytes()


@pytest.mark.registry
def test_skopeo_pushes_to_our_faulty_registry(client: Client, bad: Faulty, tmp_path: Path) -> None:
    content = Content()
    content.image("1", layers=(layer({"a": os.urandom(SIZE)}),))
    content.write_layout(str(tmp_path / "layout"))
    ground.run(
        "skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:1",
        f"docker://{bad.host}/team/app:1",
    )  # fmt: skip
    assert bad.content.tags["1"] == content.tags["1"]
    assert bad.content.blobs == content.blobs
