"""Signatures that were found good, kept beside the cache so that nobody has to be asked for them again.

Nothing here is trusted: what is read is only a signature and a payload, which are verified again with the keys of the
day. A damaged file counts as none.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
from collections.abc import Sequence
from typing import Final

from appbox.errors import AppboxError, Refused
from appbox.oci import json_document as fields
from appbox.oci.cache import Cache, open_regular
from appbox.oci.digest import Digest
from appbox.oci.json_document import parse_object

_FOLDER: Final = "signatures"
PARTIAL: Final = ".partial"
"""Where the cache keeps what is not finished."""
_LIMIT: Final = 1 << 20
"""Bytes of one file. It has one signature for each key that was ever asked for."""

Evidence = tuple[bytes, bytes]
"""A signature and the payload that it is over."""


def load(cache: Cache, digest: Digest) -> list[Evidence]:
    """Return the signatures that are kept for an image's digest; [] for none."""
    try:
        stream = open_regular(_path(cache, digest), follow=False)
        if stream is None:
            return []
        with stream:
            document = parse_object(stream.read(_LIMIT + 1), "the signatures", limit=_LIMIT)
        return [_decoded(one) for one in fields.items(document, "signatures", "the signatures")]
    except (OSError, AppboxError, ValueError, binascii.Error):
        return []


def stored(cache: Cache, digest: Digest) -> bytes:
    """Return the file of signatures that is kept for an image's digest, for another cache; empty for none."""
    known = load(cache, digest)
    return _encoded(known) if known else b""


def restore(cache: Cache, digest: Digest, data: bytes) -> None:
    """Add what `stored` returned elsewhere; whether it counts is seen when it is used. Refused for anything else."""
    document = parse_object(data, "the signatures", limit=_LIMIT)
    try:
        every = [_decoded(one) for one in fields.items(document, "signatures", "the signatures")]
    except (ValueError, binascii.Error) as error:
        raise Refused("the signatures are malformed", where=str(digest)) from error
    for one in reversed(every):
        save(cache, digest, one)


def save(cache: Cache, digest: Digest, evidence: Evidence) -> None:
    """Add a signature to those kept for an image's digest. Idempotent; one that would not fit is not kept."""
    known = load(cache, digest)
    if evidence in known:
        return
    data = _encoded([evidence, *known])
    if len(data) > _LIMIT:
        return
    path = _path(cache, digest)
    # What a process that died leaves there is swept with the cache's other unfinished files.
    scratch = f"{cache.path}/{PARTIAL}/{_FOLDER}-{os.path.basename(path)}.{os.getpid()}"
    try:
        os.makedirs(cache.path, mode=0o700, exist_ok=True)  # images may be private
        for folder in (path, scratch):
            os.makedirs(os.path.dirname(folder), mode=0o755, exist_ok=True)
        with open(scratch, "wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # so that nobody sweeps it meanwhile
            stream.write(data)
            stream.flush()
            os.rename(scratch, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise AppboxError("the cache cannot be written", where=path, why=error.strerror or str(error)) from error


def _encoded(every: Sequence[Evidence]) -> bytes:
    texts = [[base64.b64encode(part).decode() for part in one] for one in every]
    return json.dumps({"signatures": texts}).encode()


def _decoded(value: object) -> Evidence:
    signature, payload = fields.texts({"of": value}, "of", "a signature")
    return base64.b64decode(signature, validate=True), base64.b64decode(payload, validate=True)


def _path(cache: Cache, digest: Digest) -> str:
    return f"{cache.path}/{_FOLDER}/{digest.algorithm}-{digest.hex}"
