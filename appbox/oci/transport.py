"""Bytes between a registry and us: connections, TLS, proxies, and the limits on all of them. Not here: what is said.

An `httpx.BaseTransport`, so that a test may put something else in its place. It adds to httpcore's connections:
- places: a request that a registry asked for (token, redirect) connects only to addresses of allowed kinds, and the
  address that was looked at is the one that is connected to;
- limits: every body is bounded, compressed transfer is not undone (a bomb), cookies are not kept;
- patience: not a byte for `read` seconds, or less than `drip_rate` over `drip` seconds of waiting, is the end;
- the head of an answer is bounded too, also when it is preceded by interim answers without an end.
"""

from __future__ import annotations

import contextlib
import glob
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import httpcore
import httpx

from appbox.errors import Refused, Unavailable
from appbox.oci import addresses
from appbox.oci.proxies import proxy_for
from appbox.oci.reference import DOCKER_HUB
from appbox.oci.settings import Settings, Timing

ERROR_LIMIT = 1 << 20  # bytes of an error's body
PLACES, LIMIT = "appbox.places", "appbox.limit"
"""Extensions of a request: kinds of addresses that it may go to; bytes that a successful answer may have, None: any."""
LOCATION = "appbox.location"
"""Extension of an answer: its Location header. httpx would make a URL of the header and stumble over what is none."""

# httpcore asks for 64 KiB at a time, and each time costs as much as hashing that.
READ_SIZE = 1 << 18
HEAD_LIMIT = 4 * READ_SIZE  # bytes until the end of an answer's head; h11 bounds one head, but not how many come
_head_left: ContextVar[int | None] = ContextVar("head_left", default=None)
_PORTS = {"http": 80, "https": 443}


def web_url(text: str, base: httpx.URL | None = None) -> httpx.URL | None:
    """Return the http or https URL that `text` is, maybe relative to `base`; None for anything else.

    A URL with a user and password is none: httpx would send them.
    """
    try:
        url = base.join(text) if base else httpx.URL(text)
        usable = url.scheme in _PORTS and _is_host(url.host) and not url.userinfo
        usable = usable and (url.port is None or 0 < url.port < 1 << 16)
    except (httpx.InvalidURL, ValueError):  # a host that IDNA forbids is a UnicodeError
        return None
    return url if usable else None


def _is_host(host: str) -> bool:
    """Tell whether a host has the lengths of an address or a name of the DNS (RFC 1035, section 2.3.4)."""
    return ":" in host or (len(host) <= 254 and all(0 < len(part) <= 63 for part in host.removesuffix(".").split(".")))


@dataclass(frozen=True, slots=True)
class Route:
    """How the requests for one origin travel; `places` are the kinds of addresses that they may go to."""

    scheme: str
    host: str
    port: int
    proxy: str | None
    places: frozenset[str]

    @property
    def authority(self) -> str:
        """The host as registries.conf and certs.d name it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def names(self) -> tuple[str, ...]:
        """All names that the host's directory in certs.d may have; Docker Hub's is the one that people write."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = (host,) if self.port == _PORTS[self.scheme] else ()
        return (*usual, f"{host}:{self.port}", *((DOCKER_HUB,) if host == f"registry-1.{DOCKER_HUB}" else ()))


class Transport(httpx.BaseTransport):
    """Sends each request over a pool of its route. `unverified` tells for which host[:port] TLS is not verified."""

    def __init__(
        self,
        settings: Settings,
        unverified: Callable[[str], bool],
        wire: Callable[[Route], httpx.BaseTransport] | None = None,
    ) -> None:
        self._settings, self._unverified = settings, unverified
        self._make, self._wires, self._lock = wire or self._wire, dict[Route, httpx.BaseTransport](), threading.Lock()
        self._streams: weakref.WeakSet[_Stream] = weakref.WeakSet()
        self._reached: dict[str, set[str]] = {}
        self._verified: ssl.SSLContext | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raise `httpx.TransportError`, or `Refused` for an address in a place that is not allowed."""
        route = self._route(request)
        with self._lock:
            wire = self._wires.get(route) or self._wires.setdefault(route, self._make(route))
        response = wire.handle_request(request)
        for header in ("content-encoding", "set-cookie"):
            response.headers.pop(header, None)
        if "location" in response.headers:
            response.extensions[LOCATION] = response.headers.pop("location")
        ok = response.status_code in (200, 206)
        limit = request.extensions.get(LIMIT) if ok else ERROR_LIMIT
        if limit is not None and isinstance(response.stream, httpx.SyncByteStream):
            response.stream = _Bounded(response.stream, limit, f"{request.url.copy_with(query=None)}", strict=ok)
        return response

    def close(self) -> None:
        """Close every connection."""
        for wire in self._wires.values():
            wire.close()

    def abort(self) -> None:
        """Wake every thread that waits for the network; its request fails."""
        for stream in list(self._streams):
            stream.abort()

    def reached(self, host: str) -> str | None:
        """Return the kind of address at which `host` was reached; None through a proxy, or when it changes."""
        kinds = self._reached.get(host, set())
        return next(iter(kinds)) if len(kinds) == 1 else None

    def _route(self, request: httpx.Request) -> Route:
        url, places = request.url, request.extensions.get(PLACES, addresses.EVERYWHERE)
        port = url.port or _PORTS[url.scheme]
        if (kind := addresses.literal_kind(url.host)) and kind not in places:
            raise _misplaced(url.host, kind)
        return Route(url.scheme, url.host, port, proxy_for(url.scheme, url.host, port, self._settings.environ), places)

    def _wire(self, route: Route) -> httpx.BaseTransport:
        reached = self._reached.setdefault(route.host, set())
        backend = _Backend(route, self._settings, self._streams, reached)
        context = self._context(route) if route.scheme == "https" else None
        if route.proxy is None:
            return _Wire(httpcore.ConnectionPool(ssl_context=context, network_backend=backend))
        return _Wire(_proxied(route.proxy, context, backend))

    def _context(self, route: Route) -> ssl.SSLContext:
        """Return the TLS rules for a host: the system's authorities and those of its certs.d directories."""
        special = [folder for folder in self._settings.certificates(route.names) if os.path.isdir(folder)]
        if self._unverified(route.authority):
            context = _trusting()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif special:
            context = _trusting()
        else:
            return self._shared_context()
        for folder in special:
            _load(context, folder)
        return context

    def _shared_context(self) -> ssl.SSLContext:
        # Reading all authorities takes 20 ms; the caller holds the lock.
        self._verified = self._verified or _trusting()
        return self._verified


class _Wire(httpx.BaseTransport):
    """A pool of httpcore connections with httpx's errors."""

    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        with _translated(), _bounded_head():
            response = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        stream = _Body(response)
        return httpx.Response(response.status, headers=response.headers, stream=stream, extensions=response.extensions)

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _translated():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _Bounded(httpx.SyncByteStream):
    """A body that may have `limit` bytes: beyond, a `strict` one is refused, another one (an error's) cut off."""

    def __init__(self, inner: httpx.SyncByteStream, limit: int, where: str, *, strict: bool) -> None:
        self._inner, self._limit, self._where, self._strict = inner, limit, where, strict

    def __iter__(self) -> Iterator[bytes]:
        left = self._limit
        for data in self._inner:
            if len(data) > left:
                if self._strict:
                    raise Refused(f"the answer is larger than {self._limit} bytes", where=self._where)
                yield data[:left]
                return
            left -= len(data)
            yield data

    def close(self) -> None:
        self._inner.close()


class _Backend(httpcore.NetworkBackend):
    """Connects to addresses that were looked at first, and to no others."""

    def __init__(self, route: Route, settings: Settings, streams: weakref.WeakSet[_Stream], reached: set[str]) -> None:
        self._route, self._settings, self._streams, self._reached = route, settings, streams, reached
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception | None = None
        for address in self._allowed(host, port):
            try:
                inner = self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = failure or error
                continue
            if self._route.proxy is None:
                self._reached.add(addresses.kind(address))
            return _Stream(inner, self._settings.timing, self._streams)
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def _allowed(self, host: str, port: int) -> Iterable[str]:
        try:
            found = self._settings.look_up(host, port)
        except OSError as error:
            raise httpcore.ConnectError(error.strerror or str(error)) from error
        # A proxy is the administrator's own word; what it connects to is out of sight.
        for address in found if self._route.proxy is None else ():
            if (kind := addresses.kind(address)) not in self._route.places:
                raise _misplaced(host, kind)
        return found


class _Stream(httpcore.NetworkStream):
    """A connection that gives up on a peer who only drips."""

    def __init__(self, inner: httpcore.NetworkStream, timing: Timing, streams: weakref.WeakSet[_Stream]) -> None:
        self._inner, self._timing, self._streams = inner, timing, streams
        self._waited, self._received, self._asked = 0.0, 0, False
        streams.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        start = time.monotonic()
        data = self._inner.read(max(max_bytes, READ_SIZE), timeout)
        # The wait for an answer is for thinking, which `timeout` bounds; only then is it slow.
        self._waited += 0.0 if self._asked else time.monotonic() - start
        self._received += len(data)
        self._asked = False
        if (left := _head_left.get()) is not None:
            if left < len(data):
                raise httpcore.RemoteProtocolError(f"the head of the answer is larger than {HEAD_LIMIT} bytes")
            _head_left.set(left - len(data))
        if self._waited > self._timing.drip:
            if self._received < self._waited * self._timing.drip_rate:
                raise httpcore.ReadTimeout(f"only {self._received} bytes came in {self._waited:.0f} s")
            self._waited, self._received = 0.0, 0
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._waited, self._received, self._asked = 0.0, 0, True
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._timing, self._streams)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def abort(self) -> None:
        connection = self._inner.get_extra_info("socket")
        with contextlib.suppress(OSError):
            # Of the plain socket below TLS: no farewell, only the end.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (httpcore.ConnectError, httpcore.ProxyError) as error:
        raise httpx.ConnectError(str(error)) from error
    except httpcore.ConnectTimeout as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except httpcore.TimeoutException as error:
        raise httpx.ReadTimeout(str(error)) from error
    except httpcore.RemoteProtocolError as error:
        raise httpx.RemoteProtocolError(str(error)) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise httpx.ReadError(str(error)) from error


@contextlib.contextmanager
def _bounded_head() -> Iterator[None]:
    """Count what this thread reads until the head of an answer is there."""
    token = _head_left.set(HEAD_LIMIT)
    try:
        yield
    finally:
        _head_left.reset(token)


def _misplaced(host: str, kind: str) -> Refused:
    why = f"its address is {kind}, and the registry's is not"
    return Refused(f"the registry sends us to {host}", why=why, hint="use a registry that you trust")


def _proxied(proxy: str, context: ssl.SSLContext | None, backend: httpcore.NetworkBackend) -> httpcore.HTTPProxy:
    user, password, address = _proxy_login(proxy)
    url = web_url(address)
    if url is None:
        scheme = address.partition("://")[0][:40]
        why = f"{scheme} is no kind of proxy that appbox speaks to" if scheme not in _PORTS else "this is no address"
        raise Unavailable("the proxy cannot be used", where=address[:200], why=why, hint="use http:// or https://")
    return httpcore.HTTPProxy(
        proxy_url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/"),
        proxy_auth=(user, password) if user else None,
        ssl_context=context,
        proxy_ssl_context=_trusting() if url.scheme == "https" else None,
        network_backend=backend,
    )


def _proxy_login(proxy: str) -> tuple[bytes, bytes, str]:
    """Take user and password out of a proxy's URL."""
    scheme, _, rest = proxy.partition("://")
    login, at, host = rest.rpartition("@")  # a password may have any character
    if not at:
        return b"", b"", proxy
    user, _, password = login.partition(":")
    return unquote_to_bytes(user), unquote_to_bytes(password), f"{scheme}://{host}"


def _trusting() -> ssl.SSLContext:
    """Return verifying TLS rules with the system's authorities, or Mozilla's where the system has none."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not (paths.capath and os.listdir(paths.capath)):
        import certifi  # noqa: PLC0415  (comes with httpx; rarely needed)

        context.load_verify_locations(certifi.where())
    return context


def _no_password() -> str:
    """Answer for a key that is encrypted: without this OpenSSL would ask on the terminal."""
    return ""


def _load(context: ssl.SSLContext, folder: str) -> None:
    """Add the authorities (*.crt) and client certificates (*.cert, *.key) of a certs.d directory."""
    try:
        for path in sorted(glob.glob(f"{glob.escape(folder)}/*.crt")):
            context.load_verify_locations(path)
        for path in sorted(glob.glob(f"{glob.escape(folder)}/*.cert")):
            context.load_cert_chain(path, f"{path.removesuffix('.cert')}.key", password=_no_password)
    except OSError as error:  # ssl.SSLError is one
        raise Unavailable("a certificate cannot be used", where=folder, why=str(error)) from error
