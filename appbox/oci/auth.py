"""Logging in to a registry: challenges answered, tokens fetched and kept. Not here: where credentials are stored.

Follows the "Token Authentication Specification" and its OAuth 2 variant of the distribution project. Credentials are
the registry's own; they go to it and to the token server that it names, never down from TLS to plain HTTP, and the
token server may not be in a place that only we can reach unless the registry is there itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import httpx

from appbox.errors import Refused, Unavailable
from appbox.oci import json_document as fields
from appbox.oci.addresses import EVERYWHERE
from appbox.oci.challenge import Challenge, parse_challenges
from appbox.oci.credentials import Credentials
from appbox.oci.retry import RETRY_STATUSES
from appbox.oci.transport import LIMIT, PLACES, web_url

TOKEN_LIMIT = 1 << 20  # bytes of a token server's answer
TOKEN_LIFETIME = 60.0  # seconds, when the token server says nothing
CLIENT_ID = "appbox"
_TOKEN = re.compile(r"[\x21-\x7e]+")
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

    def sync_auth_flow(self, request: httpx.Request) -> Flow:
        """Send `request` with what is known, and once more with what the challenge asks for."""
        known = self._authorization()
        if known:
            request.headers["Authorization"] = known
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        offers = parse_challenges(response.headers.get_list("www-authenticate"))
        # The better scheme first, whatever the order in the header.
        for challenge in sorted(offers, key=lambda offer: offer.scheme != "bearer"):
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                again = yield from self._fetch_token(self._checked(challenge, request), request)
            elif challenge.scheme == "basic" and (credentials := self._login()) and credentials.basic() != known:
                again = self._basic = credentials.basic()
            else:
                continue
            request.headers["Authorization"] = again
            yield request
            return

    def _authorization(self) -> str:
        token = self._tokens.get(self._realm) if self._realm else None
        if token is not None and time.monotonic() < token.expires:
            return f"Bearer {token.value}"
        return self._basic

    def _login(self) -> Credentials | None:
        if not self._asked:
            self._credentials, self._asked = self._ask(), True
        return self._credentials

    def _checked(self, challenge: Challenge, request: httpx.Request) -> Realm:
        """Return the realm of a challenge; raise `Refused` unless it is one that we may talk to."""
        text = challenge.parameters["realm"]
        url = web_url(text)
        if url is None:
            raise Refused("the registry's token server is not a URL", where=request.url.host, why=text[:200])
        authority = url.netloc.decode("ascii")
        if url.scheme == "http" and (request.url.scheme == "https" or not self._plain_http(authority)):
            hint = f'say insecure = true for "{authority}" in registries.conf if you must'
            raise Refused("the registry's token server has no TLS", where=request.url.host, why=text[:200], hint=hint)
        scope = challenge.parameters.get("scope") or self._scope
        return Realm(str(url.copy_with(fragment=None)), challenge.parameters.get("service", ""), scope)

    def _fetch_token(self, realm: Realm, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, str]:
        self._tokens.pop(realm, None)  # the registry has just refused it
        response = yield self._token_request(realm, request)
        if response.status_code in RETRY_STATUSES:
            raise BusyError(response)
        if response.status_code != httpx.codes.OK:
            raise self._denied(response)
        self._realm, self._tokens[realm] = realm, _token(response.read(), httpx.URL(realm.url).host)
        return f"Bearer {self._tokens[realm].value}"

    def _token_request(self, realm: Realm, request: httpx.Request) -> httpx.Request:
        """Return a GET with basic authentication, or the POST that trades in a refresh token."""
        url, credentials = httpx.URL(realm.url), self._login()
        own_host = url.host == request.url.host
        extensions: dict[str, Any] = {
            "timeout": request.extensions.get("timeout", {}),
            LIMIT: TOKEN_LIMIT,
            PLACES: EVERYWHERE if own_host else self._places(),
        }
        headers = {"User-Agent": request.headers.get("User-Agent", CLIENT_ID), "Accept": "application/json"}
        asked = {"service": realm.service, "scope": realm.scope}
        if credentials and credentials.identity_token:
            grant = {"grant_type": "refresh_token", "refresh_token": credentials.identity_token, "client_id": CLIENT_ID}
            return httpx.Request("POST", url, headers=headers, data={**grant, **asked}, extensions=extensions)
        if credentials:
            headers["Authorization"] = credentials.basic()
        asked = {key: value for key, value in asked.items() if value}
        return httpx.Request("GET", url.copy_merge_params(asked), headers=headers, extensions=extensions)

    def _denied(self, response: httpx.Response) -> Unavailable:
        code, host = response.status_code, response.request.url.host
        if code in (401, 403):
            hint = "check the credentials" if self._credentials else "log in with podman login or docker login"
            return Unavailable("the token server refuses access", where=host, why=f"it answered {code}", hint=hint)
        return Unavailable("the token server gives no token", where=host, why=f"it answered {code}")


def _token(data: bytes, host: str) -> Token:
    """Return the token in a token server's answer; raise `Refused` for what is none."""
    what = f"the answer of the token server {host}"
    document = fields.parse_object(data, what, limit=TOKEN_LIMIT)
    value = fields.text(document, "token", what, default="") or fields.text(document, "access_token", what)
    if not _TOKEN.fullmatch(value):
        raise Refused(f"the token in {what} is malformed")
    life = document.get("expires_in")
    seconds = float(life) if isinstance(life, int) and 0 < life < 1 << 31 else TOKEN_LIFETIME
    return Token(value, time.monotonic() + seconds * (1 - _SPENT_EARLY))
