"""The documents of an image, kept with the version that was made of it: a later plan needs no registry for them."""

from __future__ import annotations

import json
import os
from typing import Final

from appbox.errors import AppboxError
from appbox.host.inside import remove_tree
from appbox.oci.digest import Digest
from appbox.store import files, paths

MANIFEST: Final = "manifest.json"
CONFIG: Final = "config.json"
_LIMIT: Final = 4 << 20


def problem(bundle: int, digest: str) -> str:
    """Return in a few words what is wrong with the documents in an open version directory, "" for nothing.

    `digest` is that of the image's manifest.
    """
    try:
        found = _read(bundle)
    except FileNotFoundError:
        return "image's documents missing"
    except (OSError, AppboxError):
        return "image's documents cannot be read"
    try:
        config = str(json.loads(found[0])["config"]["digest"])
        good = Digest.parse(digest).matches(found[0]) and Digest.parse(config).matches(found[1])
    except (ValueError, KeyError, TypeError, RecursionError, AppboxError):
        good = False
    return "" if good else "image's documents changed"


def same(bundle: int, manifest: bytes, config: bytes) -> bool:
    """Return whether an open version directory has these documents."""
    try:
        return _read(bundle) == (manifest, config)
    except (OSError, AppboxError):
        return False


def _read(bundle: int) -> tuple[bytes, bytes]:
    with files.directory(paths.IMAGE, bundle) as fd:
        return files.read(MANIFEST, _LIMIT, fd), files.read(CONFIG, _LIMIT, fd)


def write(bundle: int, manifest: bytes, config: bytes) -> None:
    """Write the documents into an open version directory anew; what is in their place goes.

    Whoever comes after a kill in between finds that they are missing, and writes them again.
    """
    remove_tree(bundle, paths.IMAGE)
    os.mkdir(paths.IMAGE, 0o700, dir_fd=bundle)
    with files.directory(paths.IMAGE, bundle) as fd:
        files.create(MANIFEST, manifest, mode=0o600, dir_fd=fd)
        files.create(CONFIG, config, mode=0o600, dir_fd=fd)
        os.fsync(fd)
    os.fsync(bundle)
