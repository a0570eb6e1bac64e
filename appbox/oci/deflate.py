"""Compression of what appbox writes: blocks in, blocks out. The other way round is `inflate`. No effects."""

from __future__ import annotations

from typing import Final, Literal, Protocol

from appbox.oci.inflate import zstd_module

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
