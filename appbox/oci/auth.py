"""Logging in to a registry: challenges answered, tokens fetched and kept. Not here: where credentials are stored.

Follows the "Token Authentication Specification" and its OAuth 2 variant of the distribution project. Credentials are
the registry's own; they go to it and to the token server that it names, never down from TLS to plain HTTP, and the
token server may not be in a place that only we can reach unless the registry is there itself.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from appbox.errors import Refused, Unavailable
from appbox.oci import json_document as fields
from appbox.oci.addresses import EVERYWHERE
from appbox.oci.challenge import Challenge, parse_challenges
from appbox.oci.credentials import Credentials
from appbox.oci.failures import shown
from appbox.oci.retry import RETRY_STATUSES
from appbox.oci.transport import LIMIT, PLACES, web_url

TOKEN_LIMIT = 1 << 20  # bytes of a token server's answer
TOKEN_LIFETIME = 60.0  # seconds, when the token server says nothing
CLIENT_ID = "appbox"
SCOPE = "appbox.scope"
"""Extension of a request: a scope that it needs beyond the repository's own, empty for most."""
_TOKEN = re.compile(r"[\x21-\x7e]+")
_NO_SUCH_WAY = frozenset({404, 405, 501})  # a token server that does not know a method
# One that knows POST and not this grant says 400 (RFC 6749, section 5.2); JFrog's says 401 to every POST.
_NO_SUCH_GRANT = _NO_SUCH_WAY | {400, 401}
_SPENT_EARLY = 0.1  # part of its lifetime that a token is not used any more, since it travels too

Flow = Generator[httpx.Request, httpx.Response, None]


@dataclass(frozen=True, slots=True)
class Realm:
    """Whom to ask for a token, and for what."""

    url: str
    service: str
    scope: str


@dataclass(frozen=True, slots=True)
class Token:
    """`expires` is in seconds of the monotonic clock."""

    value: str = field(repr=False)
    expires: float


class BusyError(Exception):
    """The token server asks to come again later."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        super().__init__(f"the token server {response.request.url.host} answered {response.status_code}")


class RegistryAuth(httpx.Auth):
    """Answers the challenges of one registry for one repository.

    `credentials` is asked once, and only after a challenge. `places` tells to which kinds of addresses a token request
    may go; `plain_http` for which host[:port] it may go without TLS.
    """

    def __init__(
        self,
        scope: str,
        credentials: Callable[[], Credentials | None],
        places: Callable[[], frozenset[str]],
        plain_http: Callable[[str], bool],
    ) -> None:
        self._scope, self._ask, self._places, self._plain_http = scope, credentials, places, plain_http
        self._credentials: Credentials | None = None
        self._asked = False
        self._basic = ""
        self._realm: Realm | None = None
        self._tokens: dict[Realm, Token] = {}
        self._lock = threading.RLock()

    def sync_auth_flow(self, request: httpx.Request) -> Flow:
        """Send `request` with what is known, and once more with what the challenge asks for."""
        known = yield from self._known(request)
        if known:
            request.headers["Authorization"] = known
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        offers = parse_challenges(response.headers.get_list("www-authenticate"))
        # The better scheme first, whatever the order in the header.
        for challenge in sorted(offers, key=lambda offer: offer.scheme != "bearer"):
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                again = yield from self._token(self._checked(challenge, request), request, known)
            elif challenge.scheme == "basic" and (credentials := self._login()) and credentials.basic() != known:
                again = self._basic = credentials.basic()
            else:
                continue
            request.headers["Authorization"] = again
            yield request
            return

    def _known(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, str]:
        """Return what to send unasked; a token that has run out is renewed first, which spares sending a body twice."""
        realm = self._realm
        if realm is None:
            return self._basic
        wanted = replace(realm, scope=merge_scopes(realm.scope, request.extensions.get(SCOPE, "")))
        return (yield from self._token(wanted, request, ""))

    def _token(
        self, realm: Realm, request: httpx.Request, refused: str
    ) -> Generator[httpx.Request, httpx.Response, str]:
        """Return a bearer token other than the `refused` one; threads that want the same one share it."""
        with self._lock:
            token = self._tokens.get(realm)
            if token is None or time.monotonic() >= token.expires or f"Bearer {token.value}" == refused:
                token = yield from self._fetch_token(realm, request)
            if not request.extensions.get(SCOPE):  # what one request needs, the next ones need not
                self._realm = realm
            return f"Bearer {token.value}"

    def _login(self) -> Credentials | None:
        with self._lock:  # a helper is run once, whoever asks
            if not self._asked:
                self._credentials, self._asked = self._ask(), True
            return self._credentials

    def _checked(self, challenge: Challenge, request: httpx.Request) -> Realm:
        """Return the realm of a challenge; raise `Refused` unless it is one that we may talk to."""
        text = challenge.parameters["realm"]
        url = web_url(text)
        if url is None:
            raise Refused("the registry's token server is not a URL", where=request.url.host, why=shown(text))
        authority = url.netloc.decode("ascii")
        if url.scheme == "http" and (request.url.scheme == "https" or not self._plain_http(authority)):
            hint = f'say insecure = true for "{authority}" in registries.conf if you must'
            raise Refused("the registry's token server has no TLS", where=request.url.host, why=shown(text), hint=hint)
        scope = merge_scopes(self._scope, challenge.parameters.get("scope", ""), str(request.extensions.get(SCOPE, "")))
        return Realm(str(url.copy_with(fragment=None)), challenge.parameters.get("service", ""), scope)

    def _fetch_token(self, realm: Realm, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, Token]:
        """Ask the token server in each way that it may know until it knows one."""
        self._tokens.pop(realm, None)  # it is spent, or the registry has just refused it
        for asking in self._ways(realm, request):
            response = yield asking
            if response.status_code in RETRY_STATUSES:
                raise BusyError(response)
            if response.status_code == httpx.codes.OK:
                token = self._tokens[realm] = _parse_token(response.read(), httpx.URL(realm.url).host)
                return token
            if response.status_code not in (_NO_SUCH_GRANT if asking.method == "POST" else _NO_SUCH_WAY):
                break
        raise self._denied(response)

    def _ways(self, realm: Realm, request: httpx.Request) -> Iterator[httpx.Request]:
        """Yield the requests that may bring a token.

        A refresh token is traded in by POST (OAuth 2), a password by GET with basic authentication, which every token
        server knows, and by the other method where one does not know the first.
        """
        credentials = self._login()
        if credentials is None:
            yield self._get(realm, request, None)
        elif credentials.identity_token:
            grant = {"grant_type": "refresh_token", "refresh_token": credentials.identity_token}
            yield self._post(realm, request, grant)
            # The user that docker's helpers write for a refresh token; as a password it is taken by Azure's server.
            user, password = credentials.user or "<token>", credentials.password or credentials.identity_token
            yield self._get(realm, request, Credentials(user, password))
        else:
            yield self._get(realm, request, credentials)
            grant = {"grant_type": "password", "username": credentials.user, "password": credentials.password}
            yield self._post(realm, request, grant)

    def _get(self, realm: Realm, request: httpx.Request, credentials: Credentials | None) -> httpx.Request:
        headers, extensions = self._envelope(realm, request)
        if credentials:
            headers["Authorization"] = credentials.basic()
        # Each resource is a parameter of its own ("Requesting a Token").
        asked = [("service", realm.service), *(("scope", scope) for scope in realm.scope.split())]
        url = httpx.URL(realm.url)
        params = httpx.QueryParams([*url.params.multi_items(), *(pair for pair in asked if pair[1])])
        return httpx.Request("GET", url.copy_with(params=params), headers=headers, extensions=extensions)

    def _post(self, realm: Realm, request: httpx.Request, grant: dict[str, str]) -> httpx.Request:
        headers, extensions = self._envelope(realm, request)
        form = {**grant, "client_id": CLIENT_ID, "service": realm.service, "scope": realm.scope}
        return httpx.Request("POST", realm.url, headers=headers, data=form, extensions=extensions)

    def _envelope(self, realm: Realm, request: httpx.Request) -> tuple[dict[str, str], dict[str, Any]]:
        own_host = httpx.URL(realm.url).host == request.url.host
        extensions: dict[str, Any] = {
            "timeout": request.extensions.get("timeout", {}),
            LIMIT: TOKEN_LIMIT,
            PLACES: EVERYWHERE if own_host else self._places(),
        }
        agent = request.headers.get("User-Agent", CLIENT_ID)
        return {"User-Agent": agent, "Accept": "application/json"}, extensions

    def _denied(self, response: httpx.Response) -> Unavailable:
        code, host = response.status_code, response.request.url.host
        if code in (401, 403):
            hint = "check the credentials" if self._credentials else "log in with podman login or docker login"
            return Unavailable("the token server refuses access", where=host, why=f"it answered {code}", hint=hint)
        return Unavailable("the token server gives no token", where=host, why=f"it answered {code}")


def _parse_token(data: bytes, host: str) -> Token:
    """Return the token in a token server's answer; raise `Refused` for what is none."""
    what = f"the answer of the token server {host}"
    document = fields.parse_object(data, what, limit=TOKEN_LIMIT)
    value = fields.text(document, "token", what, default="") or fields.text(document, "access_token", what)
    if not _TOKEN.fullmatch(value):
        raise Refused(f"the token in {what} is malformed")
    life = document.get("expires_in")
    seconds = float(life) if isinstance(life, int) and 0 < life < 1 << 31 else TOKEN_LIFETIME
    return Token(value, time.monotonic() + seconds * (1 - _SPENT_EARLY))


def merge_scopes(*scopes: str) -> str:
    """Return the union of space-separated scopes (type:name:action,…), each resource once, sorted.

    What a challenge names is added to what we know that we need: some registries name less, some nothing at all.
    """
    actions: dict[str, list[str]] = {}
    for scope in " ".join(scopes).split():
        resource, colon, names = scope.rpartition(":")
        known = actions.setdefault(resource if colon else scope, [])
        known += [name for name in (names.split(",") if colon else ()) if name not in known]
    return " ".join(f"{name}:{','.join(names)}" if names else name for name, names in sorted(actions.items()))
