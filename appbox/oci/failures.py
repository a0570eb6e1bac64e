"""Why a request to a registry failed, in words: answers and broken connections become errors. Nothing is sent here."""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Iterable, Iterator

import httpx

from appbox.errors import Unavailable

REASON_LIMIT = 200  # characters of a registry's own words that an error repeats
_LOGIN = re.compile(r"//[^/?#]*@")


class CutError(httpx.TransportError):
    """A body ended early or does not continue where it should; asking again may help."""


class LaterError(Exception):
    """The registry's answer says that asking again later may help; `wish` is its Retry-After."""

    def __init__(self, failure: Unavailable, wish: str | None) -> None:
        self.failure, self.wish = failure, wish
        super().__init__(str(failure))


def reason(response: httpx.Response) -> str:
    """Return what the registry says in an error's body ("Error Codes" of the distribution specification)."""
    try:
        problem = json.loads(response.read())["errors"][0]
        words = str(problem.get("message") or problem.get("code") or "")
        return _without(_secrets(response.request), words)[:REASON_LIMIT]
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def shown(text: str) -> str:
    """Return what somebody calls a URL as an error may repeat it: short, and without a user and password."""
    return _LOGIN.sub("//", text)[:REASON_LIMIT]


def _secrets(request: httpx.Request) -> Iterator[str]:
    """Yield what a request has sent and no registry may make us show."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    yield value
    if scheme == "Basic":
        yield base64.b64decode(value).decode("utf-8", "replace").partition(":")[2]


def _without(secrets: Iterable[str], words: str) -> str:
    for secret in filter(None, secrets):
        words = words.replace(secret, "…")
    return words


def answer(response: httpx.Response) -> str:
    """Return a failed answer as the reason of an error: its status, and its words if it has some."""
    words = reason(response)
    return f"it answered {response.status_code}{f' ({words})' if words else ''}"


def unreachable(error: httpx.TransportError, host: str) -> Unavailable:
    """Return the error for a connection that broke or never came to be."""
    if isinstance(error, CutError | httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
        what = "the connection to the registry broke"
    elif isinstance(error, httpx.ReadTimeout):
        what = "the registry stopped sending"
    else:
        what = "the registry cannot be reached"
    hint = "check the name, the network and the proxy settings"
    if certificate_error(error):
        hint = f"put its authority into /etc/containers/certs.d/{host}/ca.crt"
    return Unavailable(what, where=host, why=_cause(error), hint=hint)


def certificate_error(error: BaseException | None) -> bool:
    """Tell whether a certificate that is not trusted is behind an error."""
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
