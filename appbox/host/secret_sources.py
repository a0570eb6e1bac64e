"""Whether this host has what the secrets of services are read with: files that only root can have written, and age.

No secret is read here. A path is walked as those of volumes are: who could put a link on the way could choose the
secret. Symlinks of root's own are followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final

from appbox import owner
from appbox.errors import Refused
from appbox.host import process, trusted
from appbox.host.facts import IdRange
from appbox.host.trusted import Place
from appbox.manifest import Manifest
from appbox.secrets import LIMIT
from appbox.store import paths

AGE: Final = "age"
_NOBODY: Final = IdRange(0, 0)
_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def gather(manifests: Iterable[Manifest]) -> dict[str, str]:
    """Return what is wrong with each file and with "age", as far as the manifests need them; "" if nothing."""
    tables = [secret for manifest in manifests for secret in manifest.secrets.values()]
    found = {secret.file: look(secret.file) for secret in tables if secret.file is not None}
    if any(secret.age is not None for secret in tables):
        found[AGE] = _age()
    return found


def _age() -> str:
    if process.find(AGE) is None:
        return "age is not installed"
    problem = look(paths.AGE_KEY)
    return f"{paths.AGE_KEY} {problem}" if problem else ""


def look(path: str) -> str:
    """Return why a file of the host cannot be trusted with a secret, "" if it can, or if that may not be looked at."""
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with trusted.walk(root, path, _NOBODY) as place:
            return _wrong(place)
    except Refused as error:
        return f"cannot be trusted: {error.where}: {error.why or error.what}"
    except PermissionError:
        return ""
    finally:
        os.close(root)


def _wrong(place: Place) -> str:
    found = place.found
    if found is None:
        return "is missing"
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    if not place.whose.trusted:
        return f"belongs to the user id {place.whose.outside}, who can change it"
    if found.st_mode & _BY_OTHERS:
        return f"may be written by others than {'root' if owner.current() is None else 'you'}"
    return f"is larger than {LIMIT} bytes" if found.st_size > LIMIT else ""
