"""A cache that keeps documents to itself until it is told to keep them: what is refused leaves nothing behind.

Whether an image may be used is known only after its manifest was read. Layers are fetched later and go straight in.
"""

from __future__ import annotations

from appbox.errors import Refused
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.json_document import DOCUMENT_LIMIT


class Held(Cache):
    """The layout of `cache`, with documents on top of it that are in memory only."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache.path)
        self._held: dict[Digest, bytes] = {}
        self._kept = False

    def has(self, digest: Digest) -> bool:
        """Tell whether a blob is here, on disk or in memory."""
        return digest in self._held or super().has(digest)

    def document(self, digest: Digest, limit: int = DOCUMENT_LIMIT) -> bytes | None:
        """Return the bytes of a small blob, as `Cache.document` does."""
        held = self._held.get(digest)
        return super().document(digest, limit) if held is None else held

    def put(self, digest: Digest, data: bytes) -> None:
        """Hold a blob that is at hand, or store it after `keep`; raise `Refused` unless `data` has that digest."""
        if self._kept:
            super().put(digest, data)
            return
        if not digest.matches(data):
            raise Refused("the blob does not have its digest", where=str(digest))
        if not super().has(digest):
            self._held[digest] = data

    def keep(self) -> None:
        """Write down what was held, and from now on whatever comes."""
        self._kept = True
        held, self._held = self._held, {}
        for digest, data in held.items():
            super().put(digest, data)
