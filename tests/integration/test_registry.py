"""Pulling from the real docker-registry, and from one of our own that breaks in every way that networks know."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.model import Image, Platform
from appbox.oci.pull import RegistrySource
from appbox.oci.reference import RegistryImage
from appbox.oci.settings import Settings, Timing
from appbox.oci.source import open_source
from tests.ground import faulty
from tests.ground import registry as ground
from tests.ground.faulty import Faulty
from tests.ground.tiny import Content, layer

AMD64 = Platform("linux", "amd64")
PATIENCE = Timing(connect=2, read=0.5, drip=1, drip_rate=1024, first_delay=0.01)


class Client:
    """A client with its own home, cache and /etc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = Cache(str(folder / "cache"))
        self.environ = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")}

    def settings(self, timing: Timing = PATIENCE) -> Settings:
        return Settings(environ=self.environ, etc=str(self.folder / "etc"), timing=timing)

    def pull(self, name: str, version: str | None = "1", digest: Digest | None = None) -> Image:
        host, _, repository = name.partition("/")
        with open_source(RegistryImage(host, repository), self.cache, settings=self.settings()) as source:
            image = source.resolve(version, digest, AMD64)
            source.fetch(image)
            for entry in image.manifest.layers:
                with source.layer(image, entry) as stream:
                    assert entry.digest.matches(stream.read())
            return image

    def login(self, host: str, user: str = ground.USER, password: str = ground.PASSWORD) -> None:
        (self.folder / ".docker").mkdir(exist_ok=True)
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        (self.folder / ".docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))

    def trust(self, host: str, authority: str) -> None:
        folder = self.folder / "etc/containers/certs.d" / host
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.crt").write_bytes(Path(authority).read_bytes())

    def leftovers(self) -> list[str]:
        return os.listdir(self.folder / "cache/.partial")


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


@pytest.fixture
def content() -> Content:
    content = Content()
    random = os.urandom(3 << 20)  # does not compress, so that there is something to cut
    content.image("1", layers=(layer({"a": random}), layer({"b": b"b" * 100})))
    return content


@pytest.fixture
def bad(content: Content) -> Iterator[Faulty]:
    registry = Faulty(content)
    with faulty.serve(registry):
        yield registry


def big_layer(content: Content) -> str:
    return max(content.blobs, key=lambda digest: len(content.blobs[digest]))


@pytest.fixture
def layout(content: Content, tmp_path: Path) -> str:
    content.write_layout(str(tmp_path / "layout"))
    return f"oci:{tmp_path}/layout:1"


@pytest.mark.registry
@pytest.mark.parametrize("auth", ["", "basic", "token"])
@pytest.mark.parametrize("tls", [False, True])
def test_pull_from_the_real_registry(client: Client, layout: str, content: Content, auth: str, tls: bool) -> None:
    with ground.start(str(client.folder / "registry"), auth=auth, tls=tls) as registry:
        if auth == "token":
            client.login(registry.host)
        registry.push(layout, "team/app:1")
        if auth:
            client.login(registry.host)
        if tls:
            client.trust(registry.host, registry.authority)
            client.trust(registry.token_host or registry.host, registry.authority)
        image = client.pull(f"{registry.host}/team/app")
        assert str(image.digest) == content.tags["1"]
        assert client.leftovers() == []
        again = Client(client.folder / "second")
        again.environ = client.environ
        client.pull(f"{registry.host}/team/app")


@pytest.mark.registry
def test_skopeo_reads_the_cache(client: Client, layout: str) -> None:
    with ground.start(str(client.folder / "registry")) as registry:
        registry.push(layout, "team/app:1")
        image = client.pull(f"{registry.host}/team/app")
        out = client.folder / "out"
        ground.run(
            "skopeo", "--insecure-policy", "copy", f"oci:{client.folder}/cache:{image.reference}", f"oci:{out}:x"
        )
        assert (out / "blobs/sha256" / image.digest.hex).exists()


@pytest.mark.registry
def test_skopeo_reads_images_of_docker_in_the_cache(client: Client, layout: str) -> None:
    """It finds only OCI's media types in a layout; configuration and layers are the same blobs."""
    with ground.start(str(client.folder / "registry")) as registry:
        registry.push(layout, "team/app:1", "--format", "v2s2")
        image = client.pull(f"{registry.host}/team/app")
        assert image.manifest.media_type == "application/vnd.docker.distribution.manifest.v2+json"
        out = client.folder / "out"
        ground.run(
            "skopeo", "--insecure-policy", "copy", f"oci:{client.folder}/cache:{image.reference}", f"oci:{out}:x"
        )
        assert (out / "blobs/sha256" / image.manifest.config.digest.hex).exists()
        again = client.pull(f"{registry.host}/team/app")
        assert again.digest == image.digest


@pytest.mark.registry
def test_docker_schema_2_and_several_platforms(client: Client, content: Content) -> None:
    content.index("multi", content.image(architecture="amd64"), content.image(architecture="arm64"))
    content.write_layout(str(client.folder / "layout"))
    with ground.start(str(client.folder / "registry")) as registry:
        registry.push(f"oci:{client.folder}/layout:multi", "app:multi")
        registry.push(f"oci:{client.folder}/layout:1", "app:docker", "--format", "v2s2")
        assert client.pull(f"{registry.host}/app", "multi").index_digest is not None
        docker = client.pull(f"{registry.host}/app", "docker")
        assert docker.manifest.media_type == "application/vnd.docker.distribution.manifest.v2+json"
        pinned = client.pull(f"{registry.host}/app", None, docker.digest)
        assert pinned.config == docker.config


@pytest.mark.registry
def test_wrong_and_missing_credentials(client: Client, layout: str) -> None:
    with ground.start(str(client.folder / "registry"), auth="basic") as registry:
        registry.push(layout, "team/app:1")
        with pytest.raises(Unavailable, match="podman login"):
            client.pull(f"{registry.host}/team/app")
        client.login(registry.host, password="wrong")
        with pytest.raises(Unavailable, match="check the name and the credentials"):
            client.pull(f"{registry.host}/team/app")
        client.login(registry.host)
        with pytest.raises(Unavailable, match="has no "):
            client.pull(f"{registry.host}/team/none")


@pytest.mark.registry
def test_a_certificate_that_nobody_vouches_for_is_refused(client: Client, layout: str) -> None:
    with ground.start(str(client.folder / "registry"), tls=True) as registry:
        registry.push(layout, "team/app:1")
        with pytest.raises(Unavailable, match=r"certificate is not trusted: .*certs\.d"):
            client.pull(f"{registry.host}/team/app")
        (client.folder / "etc/containers").mkdir(parents=True)
        conf = f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        (client.folder / "etc/containers/registries.conf").write_text(conf)
        client.pull(f"{registry.host}/team/app")


@pytest.mark.registry
def test_a_blob_that_rots_in_the_real_registry_is_refused(client: Client, layout: str, content: Content) -> None:
    with ground.start(str(client.folder / "registry")) as registry:
        registry.push(layout, "team/app:1")
        path = Path(registry.blob_path(big_layer(content)))
        data = bytearray(path.read_bytes())
        data[1000] ^= 1
        path.write_bytes(data)
        with pytest.raises(Refused, match="does not have its digest"):
            client.pull(f"{registry.host}/team/app")
        assert client.leftovers() == []
        assert client.cache.index().manifests == ()


@pytest.mark.registry
def test_our_faulty_registry_is_a_registry_to_skopeo(client: Client, bad: Faulty) -> None:
    bad.auth, bad.challenge = "bearer", f'Bearer realm="http://{bad.host}/token",service="tests"'
    out = client.folder / "out"
    ground.run(
        "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--src-creds", f"{bad.user}:{bad.password}",
        f"docker://{bad.host}/a/b:1", f"oci:{out}:x",
    )  # fmt: skip
    assert (out / "blobs" / bad.content.tags["1"].replace(":", "/")).exists()


def test_a_cut_download_goes_on_where_it_was(client: Client, bad: Faulty) -> None:
    big = big_layer(bad.content)
    bad.break_next(big, faulty.cut(1000), faulty.cut(500_000, reset=True), faulty.cut(0))
    client.pull(f"{bad.host}/a/b")
    ranges = [request.headers.get("range") for request in bad.seen("GET", big)]
    assert ranges[:2] == [None, "bytes=1000-"]
    assert len(ranges) == 4
    assert int((ranges[3] or "").removeprefix("bytes=").removesuffix("-")) >= 1000


def test_a_server_without_ranges_begins_again(client: Client, bad: Faulty) -> None:
    big = big_layer(bad.content)
    bad.break_next(big, faulty.cut(1000), faulty.no_ranges)
    client.pull(f"{bad.host}/a/b")


def test_a_server_that_cannot_go_on_begins_again(client: Client, bad: Faulty) -> None:
    big = big_layer(bad.content)
    bad.break_next(big, faulty.cut(1000), faulty.status(416))
    client.pull(f"{bad.host}/a/b")
    assert bad.seen("GET", big)[2].headers.get("range") is None


@pytest.mark.parametrize("span", ["bytes 0-9/10", "bytes 999-1/*", "", "items 1000-2000/3000"])
def test_a_lie_about_the_range_does_not_reach_the_cache(client: Client, bad: Faulty, span: str) -> None:
    bad.break_next(big_layer(bad.content), faulty.cut(1000), faulty.header("Content-Range", span))
    client.pull(f"{bad.host}/a/b")


def test_the_cuts_are_bounded(client: Client, bad: Faulty) -> None:
    bad.break_next(big_layer(bad.content), *[faulty.cut(10)] * 50)
    with pytest.raises(Unavailable, match="connection to the registry broke"):
        client.pull(f"{bad.host}/a/b")
    assert len(bad.seen("GET", big_layer(bad.content))) == 5
    assert client.leftovers() == []


def test_a_stalled_server_is_given_up(client: Client, bad: Faulty) -> None:
    bad.break_next(big_layer(bad.content), *[faulty.stall(10, 3)] * 5)
    start = time.monotonic()
    with pytest.raises(Unavailable, match="stopped sending"):
        client.pull(f"{bad.host}/a/b")
    assert time.monotonic() - start < 10


def test_a_dripping_server_is_given_up(client: Client, bad: Faulty) -> None:
    bad.break_next("manifests", *[faulty.drip(0.05)] * 20)
    bad.faults["manifests"].insert(0, lambda request, answer: answer)
    start = time.monotonic()
    with pytest.raises(Unavailable, match="stopped sending"):
        client.pull(f"{bad.host}/a/b")
    assert time.monotonic() - start < 15


def test_an_endless_body_is_refused(client: Client, bad: Faulty) -> None:
    bad.break_next("manifests", lambda request, answer: answer, faulty.endless())
    with pytest.raises(Refused, match="larger than 4194304 bytes"):
        client.pull(f"{bad.host}/a/b")


def test_an_endless_header_is_given_up(client: Client, bad: Faulty) -> None:
    bad.break_next("manifests", lambda request, answer: answer, *[faulty.header("X", "x" * (1 << 20))] * 9)
    with pytest.raises(Unavailable, match="connection to the registry broke"):
        client.pull(f"{bad.host}/a/b")


def test_credentials_do_not_follow_a_redirect(client: Client, bad: Faulty) -> None:
    bad.auth = "basic"
    client.login(bad.host, bad.user, bad.password)
    elsewhere = Faulty(bad.content)
    with faulty.serve(elsewhere) as host:
        bad.break_next("blobs", *[faulty.redirect(f"http://{host}/v2/a/b/blobs/{big_layer(bad.content)}")] * 1)
        bad.faults = {big_layer(bad.content): bad.faults["blobs"]}
        client.pull(f"{bad.host}/a/b")
    assert elsewhere.requests
    assert all(request.authorization is None for request in elsewhere.requests)


def test_a_registry_on_ipv6(client: Client, content: Content) -> None:
    registry = Faulty(content)
    with faulty.serve(registry, "::1"):
        client.pull(f"{registry.host}/a/b")


def test_two_processes_and_threads_download_once(client: Client, bad: Faulty) -> None:
    bad.break_next(big_layer(bad.content), faulty.stall(1000, 0.3))
    errors: list[BaseException] = []

    def pull() -> None:
        other = Client(client.folder)
        try:
            other.pull(f"{bad.host}/a/b")
        except AppboxError as error:
            errors.append(error)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(bad.seen("GET", big_layer(bad.content))) == 2, "the stalled one and its continuation"


def test_a_killed_pull_leaves_nothing_behind_for_long(client: Client, bad: Faulty) -> None:
    bad.break_next(big_layer(bad.content), faulty.stall(1000, 5))
    code = (
        "import sys; from appbox.oci.source import Cache, open_source; from appbox.oci.reference import RegistryImage\n"
        "from appbox.oci.model import Platform\n"
        "with open_source(RegistryImage(sys.argv[1], 'a/b'), Cache(sys.argv[2])) as s:\n"
        "    s.fetch(s.resolve('1', None, Platform('linux', 'amd64')))"
    )
    argv = [sys.executable, "-c", code, bad.host, f"{client.folder}/cache"]
    with subprocess.Popen(argv) as process:
        while not bad.seen("GET", big_layer(bad.content)):
            time.sleep(0.02)
        time.sleep(0.1)
        process.kill()
    assert len(client.leftovers()) == 1
    client.pull(f"{bad.host}/a/b")
    assert client.leftovers() == []


def test_an_interrupted_pull_ends_at_once(client: Client, bad: Faulty) -> None:
    """A thread that waits for a stalled registry is woken, not waited for."""
    bad.break_next(big_layer(bad.content), faulty.stall(1000, 20))
    code = (
        "import sys; from appbox.oci.source import Cache, open_source; from appbox.oci.reference import RegistryImage\n"
        "from appbox.oci.model import Platform\n"
        "with open_source(RegistryImage(sys.argv[1], 'a/b'), Cache(sys.argv[2])) as s:\n"
        "    try: s.fetch(s.resolve('1', None, Platform('linux', 'amd64')))\n"
        "    except KeyboardInterrupt: sys.exit(130)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, bad.host, f"{client.folder}/cache"]) as process:
        while not bad.seen("GET", big_layer(bad.content)):
            time.sleep(0.02)
        time.sleep(0.2)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert time.monotonic() - start < 5
    assert client.leftovers() == []


def test_a_full_disk_is_said_and_leaves_nothing(client: Client, bad: Faulty) -> None:
    code = (
        "import resource, signal, sys; from appbox.oci.source import Cache, open_source\n"
        "from appbox.oci.reference import RegistryImage\n"
        "from appbox.oci.model import Platform; from appbox.errors import AppboxError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "with open_source(RegistryImage(sys.argv[1], 'a/b'), Cache(sys.argv[2])) as s:\n"
        "    try: s.fetch(s.resolve('1', None, Platform('linux', 'amd64')))\n"
        "    except AppboxError as error: print(error); sys.exit(error.exit_code)\n"
    )
    argv = [sys.executable, "-c", code, bad.host, f"{client.folder}/cache"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout == f"{client.folder}/cache: the cache cannot be written: File too large\n"
    assert client.leftovers() == []


def test_nothing_listens(client: Client) -> None:
    with pytest.raises(Unavailable, match=r"cannot be reached: connection refused") as caught:
        client.pull(f"127.0.0.1:{ground.free_port()}/a/b")
    assert caught.value.exit_code == 5


def test_plain_http_is_not_spoken_to_another_host(client: Client, content: Content) -> None:
    """A name that is not loopback is spoken to over TLS, wherever it leads."""
    registry = Faulty(content)
    with faulty.serve(registry) as host:
        port = host.rpartition(":")[2]
        settings = Settings(
            environ=client.environ,
            etc=str(client.folder / "etc"),
            timing=PATIENCE,
            look_up=lambda name, _: ["127.0.0.1"],
        )
        image = RegistryImage(f"registry.test:{port}", "a/b")
        with RegistrySource(image, client.cache, settings) as source, pytest.raises(Unavailable):
            source.resolve("1", None, AMD64)
    assert registry.requests == []


def test_a_realm_whose_name_leads_inside_is_refused(client: Client, content: Content) -> None:
    """The address that is looked at is the one that is connected to: a name cannot change its mind in between."""
    registry = Faulty(content, auth="bearer")
    inside = Faulty(Content(), tokens=registry.tokens)
    answers: dict[str, Any] = {"registry.test": ["127.0.0.1"], "auth.test": ["169.254.1.1"]}
    with faulty.serve(inside) as inner, faulty.serve(registry) as host:
        name = f"registry.test:{host.rpartition(':')[2]}"
        registry.realm = f"http://auth.test:{inner.rpartition(':')[2]}/token"
        (client.folder / "etc/containers").mkdir(parents=True)
        conf = "".join(f'[[registry]]\nprefix = "{p}"\ninsecure = true\n' for p in (name, registry.realm[7:-6]))
        (client.folder / "etc/containers/registries.conf").write_text(conf)
        settings = Settings(
            environ=client.environ, etc=str(client.folder / "etc"), timing=PATIENCE, look_up=lambda n, _: answers[n]
        )
        with RegistrySource(RegistryImage(name, "a/b"), client.cache, settings) as source:
            with pytest.raises(Refused, match=r"sends us to auth\.test: its address is link-local"):
                source.resolve("1", None, AMD64)
            answers["auth.test"] = ["127.0.0.1"]
            source.resolve("1", None, AMD64)


def test_through_a_proxy(client: Client, content: Content) -> None:
    """A proxy is spoken to with the whole URL; loopback and no_proxy go without it."""
    registry = Faulty(content)
    with faulty.serve(registry) as host:
        port = host.rpartition(":")[2]
        (client.folder / "etc/containers").mkdir(parents=True)
        (client.folder / "etc/containers/registries.conf").write_text(
            '[[registry]]\nprefix = "registry.test"\ninsecure = true\n'
        )
        client.environ |= {"http_proxy": f"http://127.0.0.1:{port}", "no_proxy": "10.0.0.0/8,other.test"}
        with RegistrySource(RegistryImage("registry.test", "a/b"), client.cache, client.settings()) as source:
            source.fetch(source.resolve("1", None, AMD64))
        inside = RegistryImage(host, "a/b")
        with RegistrySource(inside, Cache(f"{client.folder}/other"), client.settings()) as source:
            source.resolve("1", None, AMD64)
    proxied = [request.path.startswith("http://registry.test/v2/") for request in registry.requests]
    assert True in proxied
    assert False in proxied
