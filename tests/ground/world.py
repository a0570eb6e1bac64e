"""A registry in memory behind the wire that httpx offers, other hosts beside it, and a client with a cache."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.model import Image, Platform
from appbox.oci.pull import RegistrySource
from appbox.oci.push import RegistryTarget
from appbox.oci.reference import RegistryImage
from appbox.oci.registry import Registry
from appbox.oci.settings import Settings, Timing
from appbox.oci.transport import Route
from tests.ground import faulty
from tests.ground.faulty import Faulty
from tests.ground.tiny import Content

AMD64 = Platform("linux", "amd64")
HOST = "registry.test"
PUBLIC = "8.8.8.8"


class World:
    """One registry behind the wire, other hosts beside it, and a client with a cache."""

    def __init__(self, folder: Path, host: str = HOST) -> None:
        self.folder, self.host = folder, host
        self.content = Content()
        self.registry = Faulty(self.content, host=host, realm="https://auth.test/token")
        self.registry.uploads.scheme = "https"
        self.others: dict[str, Callable[[httpx.Request], httpx.Response]] = {}
        self.hosts: dict[str, Faulty] = {}
        self.sent: list[httpx.Request] = []
        self.waits: list[float] = []
        self.notes: list[str] = []
        self.addresses: dict[str, list[str]] = {}
        self.environ = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
        self.cache = Cache(str(folder / "cache"))

    def handle(self, request: httpx.Request) -> httpx.Response:
        # A copy: httpx adds the credentials to the same request when it is sent again.
        self.sent.append(httpx.Request(request.method, request.url, headers=request.headers.copy()))
        authority = request.url.netloc.decode()
        if authority in self.others:
            return self.others[authority](request)
        registry = self.hosts.get(authority, self.registry)
        if authority not in (self.host, "auth.test", *self.hosts):
            raise httpx.ConnectError(f"no such host: {authority}")
        headers = {name.lower(): value for name, value in request.headers.items()}
        target = request.url.raw_path.decode()
        answer = registry.answer(faulty.Request(request.method, target, headers, request.read()))
        body = b"" if request.method == "HEAD" else answer.body
        shown = {k: v for k, v in answer.headers.items() if k != "X-Whole"}
        return httpx.Response(answer.status, headers=shown, stream=httpx.ByteStream(body))

    def look_up(self, host: str, port: int) -> list[str]:
        return self.addresses.get(host, [PUBLIC])

    def also(self, host: str, content: Content | None = None) -> Faulty:
        """Put another registry behind the wire: with the same content, unless with its own."""
        self.hosts[host] = Faulty(content or self.content, host=host, realm=f"https://{host}/token")
        return self.hosts[host]

    def settings(self, **timing: Any) -> Settings:
        return Settings(
            environ=self.environ,
            uid=0,
            etc=str(self.folder / "etc"),
            timing=Timing(sleep=self.waits.append, **timing),
            look_up=self.look_up,
            tell=self.notes.append,
        )

    def source(self, repository: str = "a/b", **timing: Any) -> RegistrySource:
        image = RegistryImage(self.host, repository)
        return RegistrySource(image, self.cache, self.settings(**timing), wire=self.wire)

    def client(self, repository: str = "a/b") -> Registry:
        return Registry(RegistryImage(self.host, repository), self.settings(), wire=self.wire)

    def target(self, repository: str = "a/b") -> RegistryTarget:
        return RegistryTarget(RegistryImage(self.host, repository), self.settings(), wire=self.wire)

    def wire(self, route: Route) -> httpx.BaseTransport:
        return httpx.MockTransport(self.handle)

    def resolve(self, version: str | None = "1", digest: Digest | None = None, platform: Platform = AMD64) -> Image:
        with self.source() as source:
            return source.resolve(version, digest, platform)

    def pull(self, version: str | None = "1", digest: Digest | None = None) -> Image:
        with self.source() as source:
            image = source.resolve(version, digest, AMD64)
            source.fetch(image)
            return image

    def login(self, name: str = "", **entry: str) -> None:
        (self.folder / "containers").mkdir(exist_ok=True)
        entry = entry or {"auth": base64.b64encode(b"appbox:secret").decode()}
        (self.folder / "containers/auth.json").write_text(json.dumps({"auths": {name or self.host: entry}}))

    def configure(self, text: str) -> None:
        (self.folder / "etc/containers").mkdir(parents=True, exist_ok=True)
        (self.folder / "etc/containers/registries.conf").write_text(text)

    def methods(self) -> list[str]:
        return [f"{request.method} {request.url.path.rpartition('/')[0].rpartition('/')[2]}" for request in self.sent]


def digests(content: Content, tag: str = "1") -> tuple[str, list[str]]:
    """Return the digests of the configuration and of the layers of a tag."""
    found = content.manifest(tag)
    assert found
    manifest = json.loads(found[2])
    return manifest["config"]["digest"], [entry["digest"] for entry in manifest["layers"]]
