"""Compression of what appbox writes: blocks in, blocks out. The other way round is `inflate`. No effects."""

from __future__ import annotations

import sys
from typing import Any, Final, Literal, Protocol

from appbox.errors import HostLacks

Compression = Literal["plain", "gzip", "zstd"]
_SUFFIXES: Final[dict[str, Compression]] = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".tzst": "zstd"}


class Encoder(Protocol):
    """One stream."""

    def compress(self, data: bytes, /) -> bytes:
        """Take the next bytes and return what is finished, maybe nothing."""
        ...

    def flush(self) -> bytes:
        """Return the rest."""
        ...


def kind_of(name: str) -> Compression:
    """Return how a file of that name is compressed."""
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), "plain")


def encoder(kind: Compression) -> Encoder | None:
    """Return a fresh encoder, None for what is not compressed. The same bytes in make the same bytes out."""
    if kind == "plain":
        return None
    if kind == "gzip":
        return _gzip()
    return _zstd()


def _gzip() -> Encoder:
    import zlib  # noqa: PLC0415 - only for who compresses

    return zlib.compressobj(1, zlib.DEFLATED, 31)  # layers are compressed already, and the rest is small


def _zstd() -> Encoder:
    compressor: Encoder = zstd_module().ZstdCompressor(3)
    return compressor


def zstd_module() -> Any:
    """Return Python's own module for zstd or its backport; raise `HostLacks` where there is neither."""
    zstd: Any
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415 - only for layers of this kind
        else:
            from backports import zstd  # noqa: PLC0415 - only for layers of this kind
    except ImportError as error:
        why = f"this Python has no zstd ({error})"
        newer = "take a Python that was built with libzstd"
        hint = newer if sys.version_info >= (3, 14) else "install the Python package backports.zstd"
        raise HostLacks("what is compressed with zstd cannot be read or written", why=why, hint=hint) from error
    return zstd
