"""A file that may be compressed, opened as what is in it. Not here: layers, which are decompressed while they stream.

Archives of images are read by position, which a compressed file does not allow: it is decompressed once, within the
limits of an image, to a file that never has a name and so disappears with its descriptor.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Final

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci.cache import open_regular
from appbox.oci.inflate import inflate
from appbox.oci.limits import Limits

_READ: Final = 1 << 18
"""Bytes read at once."""
_COMPRESSIONS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_OTHERS: Final = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}


def compression_of(start: bytes) -> str:
    """Return plain, gzip or zstd by the first bytes of a file; a tar archive begins with neither magic number."""
    return next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), "plain")


def open_expanded(path: str, scratch: str, limits: Limits = Limits()) -> BinaryIO:  # noqa: B008 - a frozen value
    """Return the uncompressed bytes of the file at `path`, to be read by position; `scratch` is a directory with room.

    Raises `Unavailable` when there is no such file, `Refused` for a damaged or an absurd one.
    """
    try:
        stream = open_regular(path, follow=True)
    except OSError as error:
        raise Unavailable("cannot be read", where=path, why=error.strerror or str(error)) from error
    if stream is None:
        raise Unavailable("no archive", where=path, why="there is no regular file of that name")
    start = os.pread(stream.fileno(), 8, 0)
    if other := next((name for magic, name in _OTHERS.items() if start.startswith(magic)), ""):
        stream.close()
        raise Refused(f"the archive is compressed with {other}", where=path, hint="decompress it first")
    compression = compression_of(start)
    if compression == "plain":
        return stream
    with stream:
        return _expanded(stream, compression, path, scratch, limits)


def _expanded(stream: BinaryIO, compression: str, path: str, scratch: str, limits: Limits) -> BinaryIO:
    try:
        out = _nameless(scratch)
        try:
            _expand(stream, compression, out, limits)
            out.seek(0)
        except BaseException:
            out.close()
            raise
    except Refused as error:
        raise Refused(
            "the archive cannot be decompressed", where=path, why=f"{error.what} {error.why}".strip()
        ) from error
    except OSError as error:
        why = error.strerror or str(error)
        raise AppboxError("the archive cannot be decompressed", where=path, why=f"{scratch}: {why}") from error
    return out


def _nameless(scratch: str) -> BinaryIO:
    """Return a file that nobody else can open and that no crash leaves behind."""
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError):  # not every file system has O_TMPFILE
        return os.fdopen(os.open(scratch, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b")
    fd, name = tempfile.mkstemp(prefix=".archive-", dir=scratch)
    os.unlink(name)
    return os.fdopen(fd, "w+b")


def _expand(stream: BinaryIO, compression: str, out: BinaryIO, limits: Limits) -> None:
    consumed = produced = 0

    def blocks() -> Iterator[bytes]:
        nonlocal consumed
        while block := stream.read(_READ):
            consumed += len(block)
            yield block

    for block in inflate(compression, blocks()):
        produced += len(block)
        check_size(consumed, produced, limits)
        out.write(block)


def check_size(consumed: int, produced: int, limits: Limits) -> None:
    """Raise `Refused` when so many decompressed bytes are too many, or too many for the compressed ones."""
    if produced > limits.size:
        raise Refused("it is larger than the limit", why=f"more than {limits.size} bytes")
    if produced > max(limits.ratio_from, limits.ratio * consumed):
        raise Refused("it expands like a bomb", why=f"{produced} bytes from {consumed}")
