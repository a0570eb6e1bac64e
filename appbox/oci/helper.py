"""Running credential helpers: docker-credential-NAME, which keep secrets elsewhere than in a file.

Follows the protocol of docker's credential helpers: `get` with the server on standard input, JSON on standard output.
A helper is run only when a configuration names it, with a small environment, and bounded in time and output. It is
found on PATH, since that is where its package put it; appbox mostly runs as root, so a program that somebody else
could have put or changed there is passed over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace

from appbox.errors import AppboxError, HostLacks
from appbox.host import owners, process
from appbox.host.process import Result

TIMEOUT = 60.0  # seconds; one that asks a person for a passphrase needs some
_KEPT = frozenset({
    "HOME", "USER", "LOGNAME", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE",
    "GNUPGHOME", "GPG_TTY", "PASSWORD_STORE_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
})  # fmt: skip
# What the helpers of the cloud registries take their own login from.
_KEPT_PREFIXES = ("AWS_", "AZURE_", "CLOUDSDK_", "GOOGLE_", "GCLOUD_")


def run(argv: Sequence[str], data: bytes, environ: Mapping[str, str]) -> str:
    """Return what a helper prints; raise `AppboxError` when it fails, in its own words."""
    path = find(argv[0], environ.get("PATH", ""))
    if path is None:
        raise HostLacks(f"{argv[0]} is not installed", hint="install it, or take it out of the configuration")
    kept = {key: value for key, value in environ.items() if key in _KEPT or key.startswith(_KEPT_PREFIXES)}
    kept["PATH"] = environ.get("PATH") or os.pathsep.join(process.SEARCH)
    result = process.run([path, *argv[1:]], timeout=TIMEOUT, stdin=data, extra=kept)
    if result.code != 0:
        raise AppboxError(_words(result))
    return result.out


def _words(result: Result) -> str:
    """Return why a helper failed: docker's say it on standard output, where secrets are otherwise."""
    out = "" if any(mark in result.out for mark in '{"') else result.out
    return replace(result, out="" if result.err.strip() else out).message


def find(program: str, search: str) -> str | None:
    """Return the path of a program in the absolute directories of `search`, or where the system has its own."""
    folders = [folder for folder in search.split(os.pathsep) if os.path.isabs(folder)]
    paths = (f"{folder}/{program}" for folder in (*folders, *process.SEARCH))
    return next((path for path in paths if _trusted(path)), None)


def _trusted(path: str) -> bool:
    """Tell whether a file can be run, and only root or this user may have put or changed it."""
    try:
        file, folder = _look(path), _look(os.path.dirname(path))
    except OSError:
        return False
    return bool(file and folder and stat.S_ISREG(file.st_mode)) and os.access(path, os.X_OK)


def _look(path: str) -> os.stat_result | None:
    """Return what a file is, None for one that others may have changed."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        return info if owners.user(info, fd) in {0, os.geteuid()} and not info.st_mode & 0o022 else None
    finally:
        os.close(fd)
