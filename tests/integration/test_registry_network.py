"""What a network and those on it can do to the client: heads without an end, tokens that end, names that change."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from appbox.errors import Refused, Unavailable
from appbox.oci.cache import Cache
from appbox.oci.model import Image, Platform
from appbox.oci.pull import RegistrySource
from appbox.oci.reference import RegistryImage
from appbox.oci.registry import Registry
from appbox.oci.settings import Settings, Timing
from tests.ground import faulty
from tests.ground import registry as ground
from tests.ground.faulty import Answer, Faulty, Request
from tests.ground.tiny import Content, layer
from tests.ground.world import digests

AMD64 = Platform("linux", "amd64")
PATIENCE = Timing(connect=2, read=0.5, drip=1, drip_rate=1024, first_delay=0.01)


class Client:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = Cache(str(folder / "cache"))
        self.environ = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")}
        self.look_up: Callable[[str, int], Sequence[str]] = lambda name, _: [name.strip("[]")]

    def settings(self) -> Settings:
        return Settings(environ=self.environ, etc=str(self.folder / "etc"), timing=PATIENCE, look_up=self.look_up)

    def pull(self, host: str) -> Image:
        with RegistrySource(RegistryImage(host, "a/b"), self.cache, self.settings()) as source:
            image = source.resolve("1", None, AMD64)
            source.fetch(image)
            return image

    def configure(self, text: str) -> None:
        (self.folder / "etc/containers").mkdir(parents=True, exist_ok=True)
        (self.folder / "etc/containers/registries.conf").write_text(text)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


@pytest.fixture
def content() -> Content:
    content = Content()
    content.image("1", layers=(layer({"a": os.urandom(3 << 20)}), layer({"b": b"b" * 100})))
    return content


@pytest.fixture
def bad(content: Content) -> Iterator[Faulty]:
    registry = Faulty(content)
    with faulty.serve(registry):
        yield registry


def big_layer(content: Content) -> str:
    return max(content.blobs, key=lambda digest: len(content.blobs[digest]))


def test_interim_answers_without_an_end_are_given_up(client: Client, bad: Faulty) -> None:
    bad.break_next("GET manifests", *[faulty.interim(20_000)] * 9)
    start = time.monotonic()
    with pytest.raises(Unavailable, match="the head of the answer is larger than 1048576 bytes"):
        client.pull(bad.host)
    assert time.monotonic() - start < 10


def test_some_interim_answers_are_passed_over(client: Client, bad: Faulty) -> None:
    def early(request: Request, answer: Answer) -> Answer:
        def send(handler: object, _: Answer) -> None:
            writer = handler.wfile  # type: ignore[attr-defined]
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 5)
            writer.write(b"HTTP/1.1 200 OK\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in answer.headers.items()))
            writer.write(b"\r\n" + (b"" if request.method == "HEAD" else answer.body))

        return Answer(0, {}, answer.body, send)

    bad.break_next("GET manifests", early)
    client.pull(bad.host)


def test_a_token_that_ends_in_the_middle_of_a_layer(client: Client, bad: Faulty) -> None:
    """The connection is cut, the token is spent, and the rest of the layer still comes."""
    bad.auth = "bearer"
    bad.content.image("1", layers=(layer({"a": os.urandom(3 << 20)}),))
    big = digests(bad.content)[1][0]

    def cut_and_forget(request: Request, answer: Answer) -> Answer:
        bad.tokens.clear()
        return faulty.cut(1_000_000)(request, answer)

    bad.break_next(big, cut_and_forget)
    client.pull(bad.host)
    asked = [(r.headers.get("range"), (r.authorization or "")[:14]) for r in bad.seen("GET", big)]
    assert [span for span, _ in asked] == [None, "bytes=1000000-", "bytes=1000000-"]
    assert asked[1][1] == asked[0][1] != asked[2][1]


def test_a_slow_registry_that_keeps_the_least_pace_is_borne(client: Client, bad: Faulty) -> None:
    bad.break_next(big_layer(bad.content), faulty.throttle(2 << 20, 1 << 16))
    client.pull(bad.host)


@pytest.mark.parametrize(
    "answer",
    [
        {"Retry-After": "-1"},
        {"Retry-After": "99999999999999999999"},
        {"Retry-After": "soon"},
        {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"},
        {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"},
        {"Retry-After": "\u00b2"},
        {"Retry-After": "1.5"},
    ],
)
def test_an_absurd_retry_after_is_bounded(client: Client, bad: Faulty, answer: dict[str, str]) -> None:
    waits: list[float] = []
    timing = Timing(connect=2, read=2, sleep=waits.append)
    bad.break_next("manifests", lambda r, a: Answer(429, {**answer, "Content-Length": "0"}))
    settings = Settings(environ=client.environ, etc=str(client.folder / "etc"), timing=timing)
    registry = Registry(RegistryImage(bad.host, "a/b"), settings)
    registry.head("1")
    registry.close()
    assert len(waits) == 1
    assert 0 <= waits[0] <= 60


def test_a_registry_is_where_it_was_reached(client: Client, content: Content) -> None:
    """A name that also leads inside, once it is asked again, does not make the inside the registry's own place."""
    registry = Faulty(content, auth="bearer")
    with faulty.serve(registry, "127.0.0.1") as host:
        name = f"registry.test:{host.rpartition(':')[2]}"
        client.configure(f'[[registry]]\nprefix = "registry.test"\ninsecure = true\n[[registry]]\nprefix = "{name}"\n'
                         'insecure = true\n[[registry]]\nprefix = "10.0.0.1"\ninsecure = true\n')  # fmt: skip
        registry.realm = "http://10.0.0.1/token"
        asked = (request for request in registry.requests if "manifests" in request.path)
        client.look_up = lambda name, _: ["10.0.0.1" if any(asked) else "127.0.0.1"]
        with pytest.raises(Refused, match=r"sends us to 10\.0\.0\.1: its address is private"):
            client.pull(name)


@pytest.mark.parametrize("url", ["https://10.0.0.1/layer", "https://169.254.169.254/", "https://192.168.1.1/"])
def test_a_foreign_layer_does_not_lead_inside(client: Client, bad: Faulty, url: str) -> None:
    found = bad.content.manifest("1")
    assert found
    manifest = json.loads(found[2])
    manifest["layers"][0]["urls"] = [url]
    bad.content.document(manifest, found[1], "1")
    del bad.content.blobs[manifest["layers"][0]["digest"]]
    with pytest.raises(Refused, match="sends us to"):
        client.pull(bad.host)


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://127.0.0.1:1",
        "socks5h://user:secret@p",
        "ftp://p",
        "http://",
        "http://user:top/secret@p:port",
        "http://user:top?secret@",
        "ftp://user:top#secret@p:1",
    ],
)
def test_a_proxy_that_is_none_of_http_is_refused_in_words(client: Client, proxy: str) -> None:
    client.environ["all_proxy"] = proxy
    with pytest.raises(Unavailable, match=r"the proxy cannot be used: .*use http:// or https://") as caught:
        client.pull("registry.test")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("base", ["etc/containers", "etc/docker", ".config/containers"])
def test_directories_of_authorities_and_client_certificates(client: Client, content: Content, base: str) -> None:
    """As docker and podman have them: NAME.crt vouches, NAME.cert with NAME.key is what we show."""
    server, own = client.folder / "server", client.folder / "own"
    for folder in (server, own):
        folder.mkdir()
        ground.certificate(str(folder))
    context = ground.server_context(str(server))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(own / "tls.crt")
    registry = Faulty(content)
    with faulty.serve(registry, context=context) as host:
        with pytest.raises(Unavailable, match="certificate is not trusted"):
            client.pull(host)
        folder = client.folder / base / "certs.d" / host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes((server / "tls.crt").read_bytes())
        with pytest.raises(Unavailable):
            client.pull(host)
        (folder / "client.cert").write_bytes((own / "tls.crt").read_bytes())
        with pytest.raises(Unavailable, match="a certificate cannot be used"):
            client.pull(host)
        (folder / "client.key").write_bytes((own / "tls.key").read_bytes())
        client.pull(host)
        (folder / "ca.crt").write_bytes(b"no certificate")
        with pytest.raises(Unavailable, match="a certificate cannot be used"):
            Client(client.folder).pull(host)
    assert registry.seen("GET", "blobs")


def test_the_bytes_of_a_real_proxy_login_are_its_own(client: Client, content: Content) -> None:
    """A proxy gets its own credentials, the registry does not."""
    registry = Faulty(content)
    with faulty.serve(registry) as host:
        client.configure('[[registry]]\nprefix = "registry.test"\ninsecure = true\n')
        client.environ |= {"http_proxy": f"http://us%40er:p%3Aw@{host}"}
        client.environ["https_proxy"] = client.environ["http_proxy"]
        client.pull("registry.test")
    sent = {request.headers.get("proxy-authorization") for request in registry.requests}
    assert sent == {"Basic dXNAZXI6cDp3"}
    assert {request.authorization for request in registry.requests} == {None}
