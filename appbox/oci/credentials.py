"""Who may log in to a registry: docker's config.json and podman's auth.json. Not here: sending anything anywhere.

Files in podman's order (containers-auth.json(5)): $REGISTRY_AUTH_FILE alone when it is set; otherwise the runtime
directory's, then the user's containers/auth.json, then docker's. In each the longest matching name of repository,
namespace or registry counts: of credHelpers, then of auths, and credsStore at last. registries.conf may name helpers
to ask before or instead of the files.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci import json_document as fields
from appbox.oci.reference import DOCKER_HUB, RegistryImage
from appbox.oci.settings import Settings

_SIZE_LIMIT = 1 << 20  # bytes
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")
_HELPER_NAME_EXTRA = "-_."
AUTH_FILES: Final = "containers-auth.json"
"""The name among the credential-helpers of registries.conf that stands for the files."""


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


def find(image: RegistryImage, settings: Settings, helpers: Iterable[str] = (AUTH_FILES,)) -> Found:
    """Return the credentials for `image`; raise `Unavailable` for a file that cannot be read or understood.

    `helpers` are the places to ask in turn: names of helpers, and `AUTH_FILES` for the files.
    """
    note = ""
    for found in _everywhere(image, settings, helpers):
        if found.credentials is not None:
            return found
        note = note or found.note
    return Found(note=note)


def _everywhere(image: RegistryImage, settings: Settings, helpers: Iterable[str]) -> Iterator[Found]:
    for helper in helpers:
        if helper != AUTH_FILES:
            yield _ask(helper, _server(image), settings)
            continue
        for path in _files(settings):
            document = _read(path)
            yield _by_own_helper(document, image, settings)
            yield _in_file(document, image, path)
            yield _by_store(document, image, settings)


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


def _in_file(document: Mapping[str, Any], image: RegistryImage, path: str) -> Found:
    auths = document.get("auths")
    if not isinstance(auths, dict):
        return Found()
    by_name = {key: value for key, value in auths.items() if isinstance(value, dict)}
    # Docker wrote URLs as keys once: https://HOST, https://HOST/v1/.
    by_host = {_host_of(key): value for key, value in by_name.items() if "://" in key}
    entries = [table[name] for name in _names(image) for table in (by_name, by_host) if name in table]
    return next((Found(found) for entry in entries if (found := _credentials(entry, path))), Found())


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


def _by_own_helper(document: Mapping[str, Any], image: RegistryImage, settings: Settings) -> Found:
    """Ask the credential helper that is configured for this registry."""
    helpers = document.get("credHelpers")
    if not isinstance(helpers, dict):
        return Found()
    name = next((name for name in _names(image) if isinstance(helpers.get(name), str)), "")
    return _ask(helpers[name], name, settings) if name else Found()


def _by_store(document: Mapping[str, Any], image: RegistryImage, settings: Settings) -> Found:
    """Ask the credential helper that is configured for all registries."""
    helper = document.get("credsStore")
    return _ask(helper, _server(image), settings) if isinstance(helper, str) else Found()


def _server(image: RegistryImage) -> str:
    """Return the name under which a helper knows a registry."""
    return _HUB_KEYS[0] if image.registry == DOCKER_HUB else image.registry


def _ask(helper: str, server: str, settings: Settings) -> Found:
    """Run docker-credential-HELPER get. A helper that fails or knows nothing is no error: the pull goes on without."""
    if not helper:
        return Found()
    if not all(c.isascii() and (c.isalnum() or c in _HELPER_NAME_EXTRA) for c in helper):
        return Found(note=f"the name of the credential helper {helper[:40]!r} is malformed")
    program = f"docker-credential-{helper}"
    try:
        data = _run([program, "get"], server.encode(), settings).encode()
    except AppboxError as error:
        return Found(note=f"{program} gave no credentials: {str(error)[:200]}")
    try:
        answer = fields.parse_object(data, "the answer", limit=_SIZE_LIMIT)
        user, secret = answer["Username"], answer["Secret"]
    except (Refused, LookupError):
        # Nothing else that a helper prints is repeated: it may hold a secret.
        return Found(note=f"{program} gave no credentials: its answer is no JSON with Username and Secret")
    if not (isinstance(user, str) and isinstance(secret, str) and user + secret):
        return Found(note=f"{program} gave no credentials")
    # The protocol of docker's helpers: this user name says that the secret is a refresh token.
    return Found(Credentials(identity_token=secret) if user == "<token>" else Credentials(user, secret))


def _run(argv: Sequence[str], data: bytes, settings: Settings) -> str:
    if settings.helper is not None:
        return settings.helper(argv, data)
    from appbox.oci import helper  # noqa: PLC0415  (most hosts have none)

    return helper.run(argv, data, settings.environ)
