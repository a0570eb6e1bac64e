"""One repository of a registry, read over HTTP (OCI distribution specification, "Pull"). Not here: the cache.

Every answer is bounded, and a digest is always computed from the bytes, never taken from a header. A request that fails
for a passing reason is made again, a download goes on where it was cut. Redirects are followed here rather than by
httpx: without credentials, never from TLS to plain HTTP, a few at most.

Plain HTTP is for loopback, where it is tried first (TLS servers answer it at once, while some plain ones wait for the
rest of a TLS greeting), and for registries that registries.conf calls insecure, where TLS is tried first.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

import httpx

from appbox import __version__
from appbox.errors import AppboxError, Refused, Unavailable, UsageError
from appbox.oci import addresses, credentials, registries, retry
from appbox.oci.auth import BusyError, RegistryAuth
from appbox.oci.cache import CHUNK, BlobWriter
from appbox.oci.digest import Digest
from appbox.oci.json_document import DOCUMENT_LIMIT
from appbox.oci.model import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from appbox.oci.reference import RegistryImage, split_host
from appbox.oci.settings import Settings
from appbox.oci.transport import LIMIT, PLACES, Route, Transport, web_url

REDIRECT_LIMIT = 5  # content networks need one or two
PROGRESS: Final = 1 << 20  # bytes after which a download that is cut again has its tries anew
_ACCEPT = {"Accept": ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")

T = TypeVar("T")
Report = Callable[[int], None]
"""Told the bytes that a download has so far."""


class CutError(httpx.TransportError):
    """A body ended early or does not continue where it should; asking again may help."""


class Registry:
    """The repository that `image` names. Thread-safe; `close` it. `wire` takes the place of the network in tests."""

    def __init__(
        self, image: RegistryImage, settings: Settings, *, wire: Callable[[Route], httpx.BaseTransport] | None = None
    ) -> None:
        self.image, self._settings, self._rules = image, settings, registries.load(settings)
        self._place = self._rules.place(image)
        self._host, self._insecure = self._place.endpoint(), self._rules.insecure(str(self._place))
        self._transport = Transport(settings, self._unverified, wire)
        timing = settings.timing
        self._client = httpx.Client(
            transport=self._transport,
            trust_env=False,
            timeout=httpx.Timeout(timing.read, connect=timing.connect, pool=None),
            headers={"User-Agent": f"appbox/{__version__}", "Accept-Encoding": "identity"},
        )
        self._found = credentials.Found()
        self._auth = RegistryAuth(
            f"repository:{self._place.repository}:pull", self._credentials, self._token_places, self._plain_http
        )
        self._base: httpx.URL | None = None
        if web_url(f"https://{self._host}") is None:
            raise UsageError(f"{self._host!r} is not a host name", where=str(image))
        self._reached = False
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def abort(self) -> None:
        """Make every request that is under way in other threads fail soon."""
        self._stopped.set()
        self._transport.abort()

    def aborted(self) -> bool:
        """Tell whether `abort` was called."""
        return self._stopped.is_set()

    def head(self, tag: str) -> Digest | None:
        """Return the digest that the registry says a tag has; None when it does not say. Costs no metered pull."""

        def digest(response: httpx.Response) -> Digest | None:
            said = response.headers.get("docker-content-digest", "")
            with contextlib.suppress(Refused):
                return Digest.parse(said) if response.status_code == httpx.codes.OK else None
            return None

        return self._request("HEAD", f"manifests/{tag}", digest, headers=lambda: _ACCEPT)

    def manifest(self, reference: str | Digest) -> tuple[bytes, str]:
        """Return an index or manifest by tag or digest, and its content type; verified when asked for by digest."""

        def body(response: httpx.Response) -> tuple[bytes, str]:
            self._expect(response, f"{self.image}{'@' if isinstance(reference, Digest) else ':'}{reference}")
            return response.read(), response.headers.get("content-type", "")

        data, kind = self._request("GET", f"manifests/{reference}", body, headers=lambda: _ACCEPT, limit=DOCUMENT_LIMIT)
        if isinstance(reference, Digest) and not reference.matches(data):
            raise Refused("the manifest does not have its digest", where=f"{self.image}@{reference}")
        return data, kind

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified by size and digest."""
        if descriptor.size > DOCUMENT_LIMIT:
            raise Refused(f"the blob is larger than {DOCUMENT_LIMIT} bytes", where=str(descriptor.digest))

        def body(response: httpx.Response) -> bytes:
            self._expect(response, f"blob {descriptor.digest}")
            return response.read()

        data = self._request("GET", f"blobs/{descriptor.digest}", body, limit=descriptor.size)
        if len(data) != descriptor.size or not descriptor.digest.matches(data):
            raise Refused("the blob does not have its size and digest", where=f"{self.image}@{descriptor.digest}")
        return data

    def download(self, descriptor: Descriptor, blob: BlobWriter, report: Report) -> None:
        """Write a blob; the caller commits it, which verifies it.

        Foreign layers that the registry does not have are taken from their own URLs, without credentials.
        """
        try:
            self._download(f"blobs/{descriptor.digest}", descriptor, blob, report)
        except Unavailable:
            foreign = [url for url in descriptor.urls if url.startswith("https://")]
            if not foreign or blob.done:
                raise
            self._download(foreign[0], descriptor, blob, report)

    def _download(self, path: str, descriptor: Descriptor, blob: BlobWriter, report: Report) -> None:
        def body(response: httpx.Response) -> None:
            self._position(response, descriptor, blob)
            reported = blob.done
            for data in response.iter_raw():
                blob.write(data)
                if self._stopped.is_set():
                    raise AppboxError("cancelled", where=str(descriptor.digest))
                if blob.done - reported >= CHUNK:
                    reported = blob.done
                    report(reported)
            if blob.done < blob.size:
                raise CutError(f"the blob ended after {blob.done} of {blob.size} bytes")

        def headers() -> dict[str, str]:
            return {"Range": f"bytes={blob.done}-"} if blob.done else {}

        self._request("GET", path, body, headers=headers, done=lambda: blob.done)

    def _position(self, response: httpx.Response, descriptor: Descriptor, blob: BlobWriter) -> None:
        """Put `blob` where the body begins; refuse one whose size cannot be right before reading it."""
        where = f"{self.image}@{descriptor.digest}"
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and blob.done:
            blob.restart()
            raise CutError("the registry cannot go on with the download")
        self._expect(response, f"blob {descriptor.digest}", partial=blob.done > 0)
        length = response.headers.get("content-length")
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != blob.done:
                blob.restart()
                raise CutError("the registry goes on at the wrong place")
            size = blob.size if match[3] == "*" else int(match[3])
        else:
            blob.restart()  # also a server that does not know ranges
            size = int(length) if length and length.isascii() and length.isdigit() else blob.size
        if size != blob.size:
            raise Refused(f"the registry sends {size} bytes, not {blob.size}", where=where)

    def _request(
        self,
        method: str,
        path: str,
        use: Callable[[httpx.Response], T],
        *,
        headers: Callable[[], Mapping[str, str]] = dict,
        limit: int | None = None,
        done: Callable[[], int] = int,
    ) -> T:
        """Return what `use` makes of the answer; ask again as long as the failures are passing ones.

        `done` counts the bytes that a download has; a try that brought `PROGRESS` of them does not count as one.
        """
        timing, failures = self._settings.timing, 0
        while True:
            before, wish = done(), None
            try:
                with contextlib.closing(self._follow(method, path, headers(), limit)) as response:
                    self._reached = True
                    if response.status_code not in retry.RETRY_STATUSES:
                        return use(response)
                    failure, wish = self._answered(response), response.headers.get("retry-after")
            except BusyError as error:
                failure, wish = Unavailable(str(error), where=self._host), error.response.headers.get("retry-after")
            except httpx.TransportError as error:
                failure = self._unreachable(error)
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not self._reached:
                    raise failure from error
            failures = 1 if done() - before >= PROGRESS else failures + 1
            if failures >= timing.tries or self._stopped.is_set():
                raise failure
            seconds = retry.retry_after(wish, datetime.now(UTC))
            self._pause(retry.delay(failures - 1, seconds, timing, random.random()))  # noqa: S311  (no secret)

    def _pause(self, seconds: float) -> None:
        (self._settings.timing.sleep or self._stopped.wait)(seconds)

    def _follow(self, method: str, path: str, headers: Mapping[str, str], limit: int | None) -> httpx.Response:
        """Send one request and follow its redirects; return the answer with its body still to come."""
        foreign = "://" in path
        url = httpx.URL(path) if foreign else self._root().join(f"/v2/{self._place.repository}/{path}")
        own = httpx.URL(url)
        for _ in range(REDIRECT_LIMIT + 1):
            ours = _origin(url) == _origin(own) and not foreign
            extensions = {LIMIT: limit, PLACES: addresses.EVERYWHERE if ours else self._redirect_places()}
            request = self._client.build_request(method, url, headers=dict(headers), extensions=extensions)
            response = self._client.send(request, stream=True, auth=self._auth if ours else None)
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                return response
            response.close()
            url = self._redirected(url, response.headers["location"])
        raise Refused(f"the registry redirects more than {REDIRECT_LIMIT} times", where=str(own))

    def _redirected(self, url: httpx.URL, location: str) -> httpx.URL:
        target = web_url(location, url)
        if target is None:
            raise Refused("the registry redirects to no URL", where=self._host, why=location[:200])
        if target.scheme == "http" and url.scheme == "https":
            raise Refused("the registry redirects from https to http", where=self._host, why=f"to {target.host}")
        return target

    def _root(self) -> httpx.URL:
        """Return the URL of the registry; which scheme it speaks is found out where it may be plain HTTP."""
        with self._lock:
            if self._base is None:
                plain = self._rules.plain_http(str(self._place))
                self._base = self._probe() if plain else httpx.URL(f"https://{self._host}")
            return self._base

    def _probe(self) -> httpx.URL:
        failures: list[httpx.TransportError] = []
        fallback = None
        for scheme in ("https", "http") if self._insecure else ("http", "https"):
            base = httpx.URL(f"{scheme}://{self._host}")
            try:
                request = self._client.build_request("GET", base.join("/v2/"), extensions={LIMIT: 1 << 20})
                with contextlib.closing(self._client.send(request, stream=True, auth=None)) as response:
                    # What servers of TLS say to plain HTTP.
                    if scheme == "https" or response.status_code != httpx.codes.BAD_REQUEST:
                        return base
                    fallback = base
            except httpx.TransportError as error:
                failures.append(error)
        if fallback is not None and not any(_certificate_error(error) for error in failures):
            return fallback
        raise min(failures, key=lambda error: not _certificate_error(error))

    def _expect(self, response: httpx.Response, what: str, *, partial: bool = False) -> None:
        """Raise the error that fits unless the answer is a success."""
        code = response.status_code
        if code == httpx.codes.OK or (partial and code == httpx.codes.PARTIAL_CONTENT):
            return
        if code == httpx.codes.NOT_FOUND:
            hint = "check the name and the version"
            raise Unavailable(f"the registry has no {what}", where=self._host, why=_reason(response), hint=hint)
        raise self._answered(response)

    def _answered(self, response: httpx.Response) -> Unavailable:
        code, reason = response.status_code, _reason(response)
        why = f"it answered {code}{f' ({reason})' if reason else ''}"
        if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            advice = f"log in with podman login {self._place.registry} or docker login {self._place.registry}"
            if self._found.credentials:
                advice = "check the name and the credentials"
            hint = f"{advice} ({self._found.note})" if self._found.note else advice
            return Unavailable(f"the registry refuses access to {self.image}", where=self._host, why=why, hint=hint)
        return Unavailable(f"the registry does not serve {self.image}", where=self._host, why=why)

    def _unreachable(self, error: httpx.TransportError) -> Unavailable:
        if isinstance(error, CutError | httpx.RemoteProtocolError | httpx.ReadError):
            what = "the connection to the registry broke"
        elif isinstance(error, httpx.ReadTimeout):
            what = "the registry stopped sending"
        else:
            what = "the registry cannot be reached"
        hint = "check the name, the network and the proxy settings"
        if _certificate_error(error):
            hint = f"put its authority into /etc/containers/certs.d/{self._host}/ca.crt"
        return Unavailable(what, where=self._host, why=_cause(error), hint=hint)

    def _credentials(self) -> credentials.Credentials | None:
        self._found = credentials.find(self._place, self._settings)
        return self._found.credentials

    def _unverified(self, authority: str) -> bool:
        return (self._insecure and authority == self._host) or self._rules.insecure(authority)

    def _plain_http(self, authority: str) -> bool:
        return self._rules.plain_http(authority) or (self._insecure and authority == self._host)

    def _token_places(self) -> frozenset[str]:
        return frozenset({addresses.PUBLIC}) | self._own_places()

    def _redirect_places(self) -> frozenset[str]:
        # A registry in the open whose storage is inside is usual; one whose storage is this very host is not.
        return frozenset({addresses.PUBLIC, addresses.PRIVATE}) | self._own_places()

    def _own_places(self) -> frozenset[str]:
        host, port = split_host(self._host)
        if kind := addresses.literal_kind(host):
            return frozenset({kind})
        try:
            return frozenset(map(addresses.kind, self._settings.look_up(host, port or 443)))
        except OSError:
            return frozenset()  # behind a proxy names need not resolve here


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _reason(response: httpx.Response) -> str:
    """Return what the registry says in an error's body ("Error Codes" of the distribution specification)."""
    try:
        problem = json.loads(response.read())["errors"][0]
        return str(problem.get("message") or problem.get("code") or "")[:200]
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def _certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _cause(error: BaseException) -> str:
    """Return the innermost reason that the system gave, in its words."""
    text, inner = str(error), error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {inner.verify_message}"
        if isinstance(inner, OSError) and inner.strerror:
            text = inner.strerror
        inner = inner.__cause__ or inner.__context__
    return text[:300].rstrip(".").lower() or type(error).__name__
