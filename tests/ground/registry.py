"""Debian's docker-registry on a loopback port: open, with htpasswd, with tokens signed by us, with TLS."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "appbox", "pass:word 1"
_HTPASSWD = "appbox:$2y$05$RcqagnnsGm9jS7gwyYOi8.PgDeJ6hrdlXSE37zO.DmH6PfLUuz6vK\n"  # bcrypt of PASSWORD
_START_LIMIT = 15.0  # seconds


@dataclass
class RealRegistry:
    host: str
    folder: str
    auth: str
    tls: bool
    token_host: str = ""
    token_requests: list[str] = field(default_factory=list)

    @property
    def authority(self) -> str:
        """The file with the certificate that vouches for the registry."""
        return f"{self.folder}/tls.crt"

    def push(self, source: str, name: str, *options: str) -> None:
        """Copy an image into the registry with skopeo; `source` has skopeo's syntax, `name` is REPOSITORY:TAG."""
        login = ["--dest-creds", f"{USER}:{PASSWORD}"] if self.auth else []
        run("skopeo", "--insecure-policy", "copy", "--all", *options, *login, "--dest-tls-verify=false", source,
            f"docker://{self.host}/{name}")  # fmt: skip

    def blob_path(self, digest: str) -> str:
        """The file in which the registry keeps a blob."""
        algorithm, _, digits = digest.partition(":")
        return f"{self.folder}/data/docker/registry/v2/blobs/{algorithm}/{digits[:2]}/{digits}/data"


@contextmanager
def start(folder: str, *, auth: str = "", tls: bool = False) -> Iterator[RealRegistry]:
    """Run a registry below `folder` on 127.0.0.1. `auth`: nothing, "basic" or "token"."""
    os.makedirs(folder, exist_ok=True)
    registry = RealRegistry(f"127.0.0.1:{free_port()}", folder, auth, tls)
    with ExitStack() as stack:
        if tls or auth == "token":
            certificate(folder)
        realm = stack.enter_context(_token_server(registry)) if auth == "token" else ""
        _write(f"{folder}/config.yml", json.dumps(_config(registry, realm)))  # JSON is YAML
        stack.enter_context(_running(registry))
        yield registry


def certificate(folder: str) -> None:
    """Make tls.key and a self-signed tls.crt for 127.0.0.1 in `folder`."""
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=appbox tests",
        "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", f"{folder}/tls.key",
        "-out", f"{folder}/tls.crt")  # fmt: skip


def server_context(folder: str) -> ssl.SSLContext:
    """Return the server side of TLS with the certificate in `folder`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
    return context


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*argv: str) -> bytes:
    """Run a program to its end; its words are in the error when it fails."""
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def _config(registry: RealRegistry, realm: str) -> dict[str, object]:
    folder = registry.folder
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/data"}},
        "http": {"addr": registry.host, "secret": "tests"},
    }
    if registry.tls:
        config["http"] = {
            "addr": registry.host,
            "secret": "tests",
            "tls": {"certificate": f"{folder}/tls.crt", "key": f"{folder}/tls.key"},
        }
    if registry.auth == "basic":
        _write(f"{folder}/htpasswd", _HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": f"{folder}/htpasswd"}}
    if registry.auth == "token":
        bundle = f"{folder}/tls.crt"
        config["auth"] = {
            "token": {"realm": realm, "service": "tests", "issuer": "appbox", "rootcertbundle": bundle}
        }  # fmt: skip
    return config


@contextmanager
def _running(registry: RealRegistry) -> Iterator[None]:
    with open(f"{registry.folder}/log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", f"{registry.folder}/config.yml"],
            stdout=log,
            stderr=log,
            env={"PATH": "/usr/bin"},
        )
    try:
        _wait(registry, process)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _wait(registry: RealRegistry, process: subprocess.Popen[bytes]) -> None:
    host, _, port = registry.host.rpartition(":")
    end = time.monotonic() + _START_LIMIT
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    with open(f"{registry.folder}/log", encoding="utf-8") as log:
        raise AssertionError(f"docker-registry does not start: {log.read()}")


@contextmanager
def _token_server(registry: RealRegistry) -> Iterator[str]:
    """Serve tokens to who knows the password, and yield the realm."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.token_requests.append(self.path)
            asked = parse_qs(urlsplit(self.path).query)
            expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            allowed = self.headers.get("Authorization") == expected
            data = (
                json.dumps({"token": _token(registry.folder, asked), "expires_in": 300}).encode() if allowed else b"{}"
            )
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.token_host = f"127.0.0.1:{server.server_address[1]}"
    if registry.tls:
        server.socket = server_context(registry.folder).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http{'s' if registry.tls else ''}://{registry.token_host}/token"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _token(folder: str, asked: dict[str, list[str]]) -> str:
    """Return a JWT for the scopes asked for, signed with the registry's key ("Token Authentication Implementation")."""
    access = []
    for scope in asked.get("scope", []):
        kind, name, actions = scope.split(":", 2)
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    with open(f"{folder}/tls.crt", encoding="ascii") as stream:
        der = "".join(stream.read().split("-----")[2].split())
    now = int(time.time())
    claims = {
        "iss": "appbox", "sub": USER, "aud": "tests", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": secrets.token_hex(8), "access": access,
    }  # fmt: skip
    parts = ({"typ": "JWT", "alg": "RS256", "x5c": [der]}, claims)
    signed = ".".join(_url64(json.dumps(part).encode()) for part in parts)
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", f"{folder}/tls.key"],
        input=signed.encode(),
        capture_output=True,
        check=True,
    )
    return f"{signed}.{_url64(done.stdout)}"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
