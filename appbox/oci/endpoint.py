"""One repository at one host, spoken to over HTTP: requests, retries, redirects. Not here: what is asked for.

A request that fails for a passing reason is made again. Redirects, and the places that an upload is sent to, are
followed here rather than by httpx: credentials go to the registry's own origin only, never from TLS to plain HTTP,
a few at most.

Plain HTTP is for loopback, where it is tried first (TLS servers answer it at once, while some plain ones wait for the
rest of a TLS greeting), and for registries that registries.conf calls insecure, where TLS is tried first.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import httpx

from appbox import __version__
from appbox.errors import Missing, Refused, Unavailable, UsageError
from appbox.oci import addresses, credentials, failures, retry
from appbox.oci.auth import SCOPE, BusyError, RegistryAuth
from appbox.oci.failures import LaterError
from appbox.oci.reference import RegistryImage, split_host
from appbox.oci.registries import Place, Rules, spellings
from appbox.oci.settings import Settings
from appbox.oci.transport import ERROR_LIMIT, LIMIT, LOCATION, PLACES, Route, Transport, web_url

REDIRECT_LIMIT = 5  # content networks need one or two
PROGRESS: Final = 1 << 20  # bytes after which a transfer that is cut again has its tries anew
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD = frozenset({307, 308})  # RFC 9110, section 15.4: the others may turn a PUT into a GET

T = TypeVar("T")
Wire = Callable[[Route], httpx.BaseTransport]


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `target` is a path below the repository, or a URL that the registry or a manifest has named.

    `limit` bounds a successful answer's body in bytes, None: any. `content` can be iterated more than once, for a
    request that must be sent again. An `anonymous` one never carries credentials and goes to public places only.
    `scope` is what it needs beyond the endpoint's own, `patience` the seconds that an answer may take.
    """

    method: str
    target: str | httpx.URL
    headers: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    content: bytes | Iterable[bytes] | None = None
    anonymous: bool = False
    scope: str = ""
    patience: float = 0.0


class Endpoint:
    """The repository at `place`, which answers for `image`. Thread-safe; `close` it.

    `wire` takes the place of the network in tests.
    """

    def __init__(  # noqa: PLR0917
        self, image: RegistryImage, place: Place, actions: str, settings: Settings, rules: Rules, wire: Wire | None
    ) -> None:
        self.image, self.place, self.host = image, place, place.image.endpoint()
        self._settings, self._rules = settings, rules
        if web_url(f"https://{self.host}") is None:
            raise UsageError(f"{self.host!r} is not a host name", where=str(image))
        self._transport = Transport(settings, self._unverified, wire)
        timing = settings.timing
        self._client = httpx.Client(
            transport=self._transport,
            trust_env=False,
            timeout=httpx.Timeout(timing.read, connect=timing.connect, pool=None),
            headers={"User-Agent": f"appbox/{__version__}", "Accept-Encoding": "identity"},
        )
        self._found = credentials.Found()
        scope = f"repository:{place.image.repository}:{actions}"
        self._auth = RegistryAuth(scope, self._credentials, self._token_places, self._plain_http)
        self._base: httpx.URL | None = None
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

    def persist(self, attempt: Callable[[], T], done: Callable[[], int] = int) -> T:
        """Return what `attempt` does; try again as long as its failures are passing ones.

        `done` counts the bytes of a transfer so far; a try that got `PROGRESS` further than all before does not count.
        """
        timing, failed, best = self._settings.timing, 0, done()
        while True:
            wish = None
            try:
                return attempt()
            except LaterError as error:
                failure, wish = error.failure, error.wish
            except BusyError as error:
                failure, wish = Unavailable(str(error), where=self.host), error.response.headers.get("retry-after")
            except httpx.TransportError as error:
                failure = failures.unreachable(error, self.host)
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not self._reached:
                    raise failure from error
            # Further than ever: one that goes on, begins again and goes on would otherwise have no end.
            failed, best = 1 if done() - best >= PROGRESS else failed + 1, max(best, done())
            if failed >= timing.tries or self._stopped.is_set():
                raise failure
            seconds = retry.retry_after(wish, datetime.now(UTC))
            self._pause(retry.delay(failed - 1, seconds, timing, random.random()))  # noqa: S311  (no secret)

    def request(self, call: Callable[[], Call], use: Callable[[httpx.Response], T], done: Callable[[], int] = int) -> T:
        """Return what `use` makes of the answer; `call` is made anew for each try."""

        def attempt() -> T:
            with self.send(call()) as response:
                return use(response)

        return self.persist(attempt, done)

    @contextlib.contextmanager
    def send(self, call: Call) -> Iterator[httpx.Response]:
        """Send one request, once, and yield its answer with the body still to come.

        `LaterError` for an answer that asks for patience, `httpx.TransportError` when the connection fails.
        """
        with contextlib.closing(self._follow(call)) as response:
            self._reached = True
            if response.status_code in retry.RETRY_STATUSES:
                raise LaterError(self.answered(response), response.headers.get("retry-after"))
            yield response

    def expect(self, response: httpx.Response, what: str, *statuses: int) -> None:
        """Raise the error that fits unless the answer has one of the `statuses`, 200 when none are given."""
        if response.status_code in (statuses or (httpx.codes.OK,)):
            return
        if response.status_code == httpx.codes.NOT_FOUND:
            hint, why = "check the name and the version", failures.reason(response)
            raise Missing(f"the registry has no {what}", where=self.host, why=why, hint=hint)
        raise self.answered(response)

    def answered(self, response: httpx.Response) -> Unavailable:
        """Return the error for an answer that is none of those that were hoped for."""
        why = failures.answer(response)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            name = self.place.image.registry
            advice = f"log in with podman login {name} or docker login {name}"
            if self._found.credentials:
                advice = "check the name and the credentials"
            hint = f"{advice} ({self._found.note})" if self._found.note else advice
            return Unavailable(f"the registry refuses access to {self.image}", where=self.host, why=why, hint=hint)
        return Unavailable(f"the registry does not serve {self.image}", where=self.host, why=why)

    def named(self, response: httpx.Response) -> httpx.URL:
        """Return where an answer says that an upload goes on; raise `Refused` for what is no such place."""
        location = response.extensions.get(LOCATION)
        if location is None:
            raise Refused("the registry does not say where the upload goes on", where=self.host)
        return self._redirected(response.request.url, location)

    def _pause(self, seconds: float) -> None:
        (self._settings.timing.sleep or self._stopped.wait)(seconds)

    def _follow(self, call: Call) -> httpx.Response:
        """Send one request and follow its redirects; return the answer with its body still to come."""
        root = self._root()
        url = own = self.url(call.target)
        for _ in range(REDIRECT_LIMIT + 1):
            ours = _origin(url) == _origin(root) and not call.anonymous
            response = self._client.send(self._built(call, url, ours), stream=True, auth=self._auth if ours else None)
            moved = _REDIRECTS if call.content is None and call.method in ("GET", "HEAD") else _SAME_METHOD
            location = response.extensions.get(LOCATION)
            if response.status_code not in moved or location is None:
                return response
            response.close()
            url = self._redirected(url, location)
        raise Refused(f"the registry redirects more than {REDIRECT_LIMIT} times", where=str(own))

    def url(self, target: str | httpx.URL) -> httpx.URL:
        """Return the URL of a path below the repository; a URL stays what it is."""
        if isinstance(target, httpx.URL):
            return target
        return self._root().join(f"/v2/{self.place.image.repository}/{target}")

    def own(self, url: httpx.URL) -> bool:
        """Tell whether a URL is of the registry itself."""
        return _origin(url) == _origin(self._root())

    def _built(self, call: Call, url: httpx.URL, ours: bool) -> httpx.Request:
        places = addresses.EVERYWHERE if ours else self._token_places() if call.anonymous else self._redirect_places()
        extensions: dict[str, Any] = {LIMIT: call.limit, PLACES: places, SCOPE: call.scope}
        if call.patience:
            timing = self._settings.timing
            patience = httpx.Timeout(timing.read, connect=timing.connect, pool=None, read=call.patience)
            extensions["timeout"] = patience.as_dict()
        headers = dict(call.headers)
        return self._client.build_request(
            call.method, url, headers=headers, content=call.content, extensions=extensions
        )

    def _redirected(self, url: httpx.URL, location: str) -> httpx.URL:
        target = web_url(location, url)
        if target is None:
            raise Refused("the registry redirects to no URL", where=self.host, why=failures.shown(location))
        if target.scheme == "http" and url.scheme == "https":
            raise Refused("the registry redirects from https to http", where=self.host, why=f"to {target.host}")
        return target

    def _root(self) -> httpx.URL:
        """Return the URL of the registry; which scheme it speaks is found out where it may be plain HTTP."""
        with self._lock:
            if self._base is None:
                plain = self._plain_http(self.host)
                self._base = self._probe() if plain else httpx.URL(f"https://{self.host}")
            return self._base

    def _probe(self) -> httpx.URL:
        failed: list[httpx.TransportError] = []
        fallback = None
        for scheme in ("https", "http") if self.place.insecure else ("http", "https"):
            base = httpx.URL(f"{scheme}://{self.host}")
            try:
                request = self._client.build_request("GET", base.join("/v2/"), extensions={LIMIT: ERROR_LIMIT})
                with contextlib.closing(self._client.send(request, stream=True, auth=None)) as response:
                    # What servers of TLS say to plain HTTP.
                    if scheme == "https" or response.status_code != httpx.codes.BAD_REQUEST:
                        return base
                    fallback = base
            except httpx.TransportError as error:
                failed.append(error)
        if fallback is not None and not any(failures.certificate_error(error) for error in failed):
            return fallback
        raise min(failed, key=lambda error: not failures.certificate_error(error))

    def _credentials(self) -> credentials.Credentials | None:
        self._found = credentials.find(self.place.image, self._settings, self._rules.helpers)
        return self._found.credentials

    def _unverified(self, authority: str) -> bool:
        return self._insecure("https", authority)

    def _plain_http(self, authority: str) -> bool:
        return self._rules.plain_http(authority) or self._insecure("http", authority)

    def _insecure(self, scheme: str, authority: str) -> bool:
        names = spellings(scheme, authority)
        return (self.place.insecure and self.host in names) or any(map(self._rules.insecure, names))

    def _token_places(self) -> frozenset[str]:
        return frozenset({addresses.PUBLIC}) | self._own_places()

    def _redirect_places(self) -> frozenset[str]:
        # A registry in the open whose storage is inside is usual; one whose storage is this very host is not.
        return frozenset({addresses.PUBLIC, addresses.PRIVATE}) | self._own_places()

    def _own_places(self) -> frozenset[str]:
        """Return where the registry is itself: the address that it was reached at counts, not what its name may say."""
        host, _ = split_host(self.host)
        kind = addresses.literal_kind(host) or self._transport.reached(host)
        return frozenset({kind} if kind else ())


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
