"""Who may log in to a registry: docker's config.json and podman's auth.json. Not here: sending anything anywhere.

Files in podman's order (containers-auth.json(5)): $REGISTRY_AUTH_FILE alone when it is set; otherwise the runtime
directory's, then the user's containers/auth.json, then docker's. In each the longest matching name of repository,
namespace or registry counts.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from appbox.errors import AppboxError, Unavailable
from appbox.oci import json_document as fields
from appbox.oci.reference import DOCKER_HUB, RegistryImage
from appbox.oci.settings import Settings

_SIZE_LIMIT = 1 << 20  # bytes
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")
_HELPER_NAME_EXTRA = "-_."


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and password, or a refresh token to be exchanged at the token server. Never shown."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """Return the value of an Authorization header (RFC 7617, UTF-8)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


@dataclass(frozen=True, slots=True)
class Found:
    """The credentials for an image, None without; `note` says what was seen but could not be used."""

    credentials: Credentials | None = None
    note: str = ""


def find(image: RegistryImage, settings: Settings) -> Found:
    """Return the credentials for `image`; raise `Unavailable` for a file that cannot be read or understood."""
    note = ""
    for path in _files(settings):
        document = _read(path)
        found = _in_file(document, image, path) or _by_helper(document, image, settings)
        if found is not None and found.credentials is not None:
            return found
        note = note or (found.note if found else "")
    return Found(note=note)


def _files(settings: Settings) -> Iterator[str]:
    environ = settings.environ
    if environ.get("REGISTRY_AUTH_FILE"):
        yield environ["REGISTRY_AUTH_FILE"]
        return
    runtime = environ.get("XDG_RUNTIME_DIR")
    yield f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{settings.uid}/auth.json"
    yield f"{settings.config_home()}/containers/auth.json"
    yield f"{environ.get('DOCKER_CONFIG') or settings.home() + '/.docker'}/config.json"


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            data = stream.read(_SIZE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise Unavailable("cannot be read", where=path, why=error.strerror or str(error)) from error
    try:
        return fields.parse_object(data, "the file", limit=_SIZE_LIMIT) if data.strip() else {}
    except AppboxError as error:
        raise Unavailable("is no file of credentials", where=path, why=str(error)) from error


def _names(image: RegistryImage) -> Iterator[str]:
    """Yield the names under which credentials may stand, the most exact first."""
    parts = str(image).split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join(parts[:count])
    if image.registry == DOCKER_HUB:
        yield from _HUB_KEYS


def _in_file(document: Mapping[str, Any], image: RegistryImage, path: str) -> Found | None:
    auths = document.get("auths")
    if not isinstance(auths, dict):
        return None
    by_name = {key: value for key, value in auths.items() if isinstance(value, dict)}
    # Docker wrote URLs as keys once: https://HOST, https://HOST/v1/.
    by_host = {_host_of(key): value for key, value in by_name.items() if "://" in key}
    entries = [table[name] for name in _names(image) for table in (by_name, by_host) if name in table]
    return next((Found(found) for entry in entries if (found := _credentials(entry, path))), None)


def _host_of(key: str) -> str:
    return key.partition("://")[2].partition("/")[0]


def _credentials(entry: Mapping[str, Any], path: str) -> Credentials | None:
    user, password, token, auth = (entry.get(key) or "" for key in ("username", "password", "identitytoken", "auth"))
    if not all(isinstance(value, str) for value in (user, password, token, auth)):
        raise Unavailable("an entry has a wrong type", where=path)
    if auth:
        try:
            user, colon, password = base64.b64decode(auth, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Unavailable("an entry's auth is not base64 of user:password", where=path) from error
        if not colon:
            raise Unavailable("an entry's auth is not base64 of user:password", where=path)
        password = password.rstrip("\0")  # docker once padded with them
    return Credentials(user, password, token) if user or token else None


def _by_helper(document: Mapping[str, Any], image: RegistryImage, settings: Settings) -> Found | None:
    """Ask the credential helper that is configured for the registry, or for all of them."""
    helpers = document.get("credHelpers")
    per_name = helpers if isinstance(helpers, dict) else {}
    name = next((name for name in _names(image) if isinstance(per_name.get(name), str)), "")
    helper = per_name[name] if name else document.get("credsStore")
    if not isinstance(helper, str) or not helper:
        return None
    if not all(c.isascii() and (c.isalnum() or c in _HELPER_NAME_EXTRA) for c in helper):
        return Found(note=f"the name of the credential helper {helper[:40]!r} is malformed")
    if settings.helper is None:
        return Found(note=f"credential helpers (docker-credential-{helper}) are not supported yet")
    server = name or (_HUB_KEYS[0] if image.registry == DOCKER_HUB else image.registry)
    return _ask(helper, server, settings)


def _ask(helper: str, server: str, settings: Settings) -> Found:
    """Run docker-credential-HELPER get. A helper that fails or knows nothing is no error: the pull goes on without."""
    program = f"docker-credential-{helper}"
    assert settings.helper is not None  # noqa: S101  (the caller looked)
    try:
        answer = json.loads(settings.helper([program, "get"], server.encode()))
        user, secret = answer["Username"], answer["Secret"]
    except (AppboxError, ValueError, KeyError, TypeError) as error:
        return Found(note=f"{program} gave no credentials: {str(error)[:200]}")
    if not (isinstance(user, str) and isinstance(secret, str)):
        return Found(note=f"{program} gave no credentials")
    # The protocol of docker's helpers: this user name says that the secret is a refresh token.
    return Found(Credentials(identity_token=secret) if user == "<token>" else Credentials(user, secret))
