"""A registry of our own on loopback that can do what bad ones do: cut, stall, drip, lie, redirect, throttle, challenge.

Without faults it follows the distribution specification: pull with ranges, push in one piece and in chunks, mounts,
tags in pages. `tests/integration/test_registry_conformance.py` proves that against the real docker-registry.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.ground.tiny import Content
from tests.ground.uploads import SESSION, Uploads, problem

_KINDS = {"token": "token", "list": "list"}
_PATH = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/]+)")


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes = b""

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass
class Answer:
    """What the registry would say; a fault may change it before it is sent."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    send: Callable[[BaseHTTPRequestHandler, Answer], None] | None = None


Fault = Callable[[Request, Answer], Answer]


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request, answer: Answer(code, {**named, "Content-Length": str(len(body))}, body)


def redirect(url: str, code: int = 307) -> Fault:
    return status(code, Location=url)


def content_type(value: str) -> Fault:
    return lambda request, answer: Answer(answer.status, {**answer.headers, "Content-Type": value}, answer.body)


def body(data: bytes) -> Fault:
    return lambda request, answer: Answer(answer.status, {**answer.headers, "Content-Length": str(len(data))}, data)


def corrupt(position: int = 0) -> Fault:
    """Change one byte."""

    def apply(request: Request, answer: Answer) -> Answer:
        data = bytearray(answer.body)
        data[position] ^= 0x01
        return Answer(answer.status, answer.headers, bytes(data))

    return apply


def header(name: str, value: str) -> Fault:
    return lambda request, answer: Answer(answer.status, {**answer.headers, name: value}, answer.body, answer.send)


def cut(after: int, *, reset: bool = False) -> Fault:
    """Send `after` bytes of the body, then close the connection."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.wfile.write(answer.body[:after])
        handler.wfile.flush()
        if reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True

    return lambda request, answer: Answer(answer.status, answer.headers, answer.body, send)


def stall(after: int, seconds: float) -> Fault:
    """Send `after` bytes of the body, then nothing for a while."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.wfile.write(answer.body[:after])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return lambda request, answer: Answer(answer.status, answer.headers, answer.body, send)


def drip(pause: float) -> Fault:
    """Send the body a byte at a time."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        for position in range(len(answer.body)):
            handler.wfile.write(answer.body[position : position + 1])
            handler.wfile.flush()
            time.sleep(pause)

    return lambda request, answer: Answer(answer.status, answer.headers, answer.body, send)


def endless(kind: str = "application/json") -> Fault:
    """Send a body without an end, chunked."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        for _ in range(4096):
            handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        handler.close_connection = True

    headers = {"Transfer-Encoding": "chunked", "Content-Type": kind}
    return lambda request, answer: Answer(answer.status, headers, b"", send)


def no_ranges(request: Request, answer: Answer) -> Answer:
    """Answer 200 with everything, as a server does that does not know ranges."""
    whole = answer.headers.get("X-Whole", "")
    data = base64.b64decode(whole) if whole else answer.body
    return Answer(200, {"Content-Length": str(len(data))}, data)


def throttle(rate: int, block: int = 4096) -> Fault:
    """Send the body at `rate` bytes a second."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        for position in range(0, len(answer.body), block):
            handler.wfile.write(answer.body[position : position + block])
            handler.wfile.flush()
            time.sleep(block / rate)

    return lambda request, answer: Answer(answer.status, answer.headers, answer.body, send)


def interim(count: int) -> Fault:
    """Send interim answers before the real one never comes."""

    def send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        line = b"HTTP/1.1 103 Early Hints\r\nX-Filler: " + b"x" * 1000 + b"\r\n\r\n"
        for _ in range(count):
            handler.wfile.write(line)
        handler.close_connection = True

    return lambda request, answer: Answer(0, {}, b"", send)


@dataclass
class Faulty:
    """The registry. `faults` are used up one by one, by what is asked for: manifests, blobs, tags, uploads, token, v2,
    a digest, or a method and one of these ("PATCH uploads").
    """

    content: Content
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    auth: str = ""  # "", "basic" or "bearer"
    user: str = "appbox"
    password: str = "secret"
    realm: str = ""  # of the challenge; empty: our own
    token_life: int = 300  # seconds
    challenge: str = ""  # in the place of the usual one
    requests: list[Request] = field(default_factory=list)
    tokens: dict[str, float] = field(default_factory=dict)
    issued: int = 0
    host: str = ""
    missing: tuple[str, ...] = ("no/such",)  # repositories that are not there; every other one has `content`
    page: int = 0  # tags in one answer at most; 0: as many as are asked for
    token_methods: tuple[str, ...] = ()  # that the token server knows; empty: GET and POST
    interrupted: list[int] = field(default_factory=list)  # bytes of the next uploads' bodies that arrive

    def __post_init__(self) -> None:
        self.uploads = Uploads(self.content)
        self.lock = threading.Lock()

    def break_next(self, kind: str, *faults: Fault) -> None:
        self.faults.setdefault(kind, []).extend(faults)

    def seen(self, method: str, part: str) -> list[Request]:
        return [request for request in self.requests if request.method == method and part in request.path]

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        url = urlsplit(request.path)
        session = SESSION.fullmatch(url.path)
        match = None if session else _PATH.fullmatch(url.path)
        kind = "uploads" if session else match["kind"] if match else _KINDS.get(url.path.rpartition("/")[2], "v2")
        with self.lock:
            answer = (
                self._token(request, parse_qs(url.query)) if kind == "token" else self._guarded(request, match, kind)
            )
            for key in (match["reference"] if match else "", f"{request.method} {kind}", kind):
                if self.faults.get(key):
                    return self.faults[key].pop(0)(request, answer)
        return answer

    def _guarded(self, request: Request, match: re.Match[str] | None, kind: str) -> Answer:
        if self.auth and not self._allowed(request.authorization or ""):
            challenge = {"WWW-Authenticate": self._challenge()}
            return _json(401, _errors("UNAUTHORIZED", "authentication required"), challenge)
        if kind == "uploads":
            return Answer(*self.uploads.answer(request.method, request.path, request.headers, request.body, self.host))
        if kind == "list":
            return self._tags(request)
        if match is None:
            return _json(200 if request.path == "/v2/" else 404, {})
        if request.method == "PUT":
            path, reference = urlsplit(request.path).path, match["reference"]
            return Answer(*self.uploads.put_manifest(path, reference, request.headers, request.body, self.host))
        if request.method not in ("GET", "HEAD"):
            return Answer(*problem(405, "UNSUPPORTED", "The operation is unsupported."))
        return self._manifest(match) if match["kind"] == "manifests" else self._blob(request, match)

    def _tags(self, request: Request) -> Answer:
        url = urlsplit(request.path)
        repository = url.path.removeprefix("/v2/").removesuffix("/tags/list")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if repository in self.missing:
            return _json(404, _errors("NAME_UNKNOWN", "repository name not known to registry"))
        names = sorted(name for name in self.content.tags if name > query.get("last", ""))
        count = min(filter(None, (int(query.get("n", 0)), self.page)), default=len(names))
        page = names[:count]
        answer = _json(200, {"name": repository, "tags": page})
        if len(page) < len(names):
            last = f"/v2/{repository}/tags/list?last={page[-1]}&n={count}"
            answer.headers["Link"] = f'<{last}>; rel="next"'
        return answer

    def _allowed(self, authorization: str) -> bool:
        if self.auth == "basic":
            return authorization == _basic(self.user, self.password)
        return self.tokens.get(authorization.removeprefix("Bearer "), 0) > time.monotonic()

    def _challenge(self) -> str:
        if self.challenge:
            return self.challenge
        if self.auth == "basic":
            return 'Basic realm="Registry, of tests"'
        realm = self.realm or f"http://{self.host}/token"
        return f'Negotiate, Bearer realm="{realm}",service="tests, here",scope="repository:a/b:pull"'

    def _token(self, request: Request, query: dict[str, list[str]]) -> Answer:
        form = parse_qs(request.body.decode())
        if self.token_methods and request.method not in self.token_methods:
            return _json(405, {})
        if request.method == "POST":
            by_password = form.get("username") == [self.user] and form.get("password") == [self.password]
            allowed = form.get("refresh_token") == [self.password] or by_password
        else:
            allowed = request.authorization in (None, _basic(self.user, self.password)) and "service" in query
        if not allowed:
            return _json(401, _errors("UNAUTHORIZED", "wrong credentials"))
        self.issued += 1
        token = f"token-{self.issued}"
        self.tokens[token] = time.monotonic() + self.token_life
        return _json(200, {"token": token, "expires_in": max(1, self.token_life)})

    def _manifest(self, match: re.Match[str]) -> Answer:
        found = self.content.manifest(match["reference"])
        if found is None:
            return _json(404, _errors("MANIFEST_UNKNOWN", "manifest unknown"))
        digest, media_type, data = found
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "Content-Length": str(len(data))}
        return Answer(200, headers, data)

    def _blob(self, request: Request, match: re.Match[str]) -> Answer:
        data = self.content.blobs.get(match["reference"])
        if data is None:
            return _json(404, _errors("BLOB_UNKNOWN", "blob unknown to registry"))
        named = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": match["reference"]}
        asked = re.fullmatch(r"bytes=([0-9]+)-", request.headers.get("range", ""))
        if asked is None:
            return Answer(200, {**named, "Content-Length": str(len(data))}, data)
        start = int(asked[1])
        if start >= len(data):
            return _json(416, {})
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers = {**named, "Content-Range": span, "Content-Length": str(len(data) - start)}
        return Answer(206, {**headers, "X-Whole": base64.b64encode(data).decode()}, data[start:])


@contextmanager
def serve(registry: Faulty, address: str = "127.0.0.1", context: Any = None) -> Iterator[str]:
    """Serve `registry` and yield its host:port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _handle(self, registry)

        do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def handle_error(self, *args: object) -> None:
            pass  # a client that goes away is what some tests are about

    server = Server((address, 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    host = f"[{address}]" if ":" in address else address
    registry.host = f"{host}:{server.server_address[1]}"
    try:
        yield registry.host
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handle(handler: BaseHTTPRequestHandler, registry: Faulty) -> None:
    length = int(handler.headers.get("Content-Length") or 0)
    headers = {name.lower(): value for name, value in handler.headers.items()}
    if length and registry.interrupted and handler.command in ("PATCH", "PUT") and "/uploads/" in handler.path:
        _interrupt(handler, registry)
        return
    request = Request(handler.command, handler.path, headers, handler.rfile.read(length))
    answer = registry.answer(request)
    if answer.status:
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            if name != "X-Whole":
                handler.send_header(name, value)
        handler.end_headers()
    if handler.command == "HEAD":
        return
    if answer.send is not None:
        answer.send(handler, answer)
    else:
        handler.wfile.write(answer.body)


def _interrupt(handler: BaseHTTPRequestHandler, registry: Faulty) -> None:
    """Take a part of an upload's body and break off; a chunk's part is kept, as storages do."""
    part = handler.rfile.read(registry.interrupted.pop(0))
    session = SESSION.fullmatch(urlsplit(handler.path).path)
    headers = {name.lower(): value for name, value in handler.headers.items()}
    registry.requests.append(Request(handler.command, handler.path, headers))
    if session and handler.command == "PATCH":
        registry.uploads.open[session["session"]] += part
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _errors(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


def _json(code: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
    data = json.dumps(document).encode()
    return Answer(code, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}, data)
