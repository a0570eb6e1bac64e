"""Which blobs of the cache are of use, and removing the others. A cache may forget: what is missing is brought anew."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass

from appbox.errors import Refused
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.model import ImageManifest, Index, parse_document


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that nothing needs; `size` in bytes on the disk."""

    digest: Digest
    size: int


def unused(cache: Cache, roots: Collection[Digest]) -> list[Blob]:
    """Return the blobs that are not needed by the manifests and indexes of `roots`, sorted by digest."""
    needed = _closure(cache, roots)
    return [blob for blob in _blobs(cache) if blob.digest not in needed]


def _closure(cache: Cache, roots: Collection[Digest]) -> set[Digest]:
    """Return the roots with everything that they name, as far as it is in the cache."""
    found: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        waiting += _named(cache, digest)
    return found


def _named(cache: Cache, digest: Digest) -> list[Digest]:
    data = cache.document(digest)
    if data is None:
        return []
    try:
        document = parse_document(data)
    except Refused:
        return []
    if isinstance(document, Index):
        return [entry.digest for entry in document.manifests]
    if isinstance(document, ImageManifest):
        return [document.config.digest, *(layer.digest for layer in document.layers)]
    return []


def _blobs(cache: Cache) -> list[Blob]:
    found = []
    for algorithm in ("sha256", "sha512"):
        folder = f"{cache.path}/blobs/{algorithm}"
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            info = os.lstat(f"{folder}/{name}")
            try:
                digest = Digest.parse(f"{algorithm}:{name}")
            except Refused:
                continue
            if stat.S_ISREG(info.st_mode):
                found.append(Blob(digest, info.st_blocks * 512))
    return found


def forget(cache: Cache, blobs: Collection[Blob]) -> None:
    """Remove blobs, and the names of the images whose manifests they are."""
    gone = {blob.digest for blob in blobs}
    cache.unname(gone)
    for blob in blobs:
        cache.drop(blob.digest)
