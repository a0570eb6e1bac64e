"""Decompression of layers, with bounded memory: blocks in, blocks out. No effects.

gzip goes through ISA-L where it is installed (four times as fast as zlib), zstd through Python's own module or its
backport. Layers of several gzip members or zstd frames are legal; anything else after the last one is refused, and so
is a stream that ends early.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from appbox.errors import Refused
from appbox.oci import limits
from appbox.oci.deflate import zstd_module

BLOCK: Final = 1 << 20
"""Bytes of a block: large enough that the exchange between threads costs nothing, small enough to hold a few dozen."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


class _Decoder(Protocol):
    """One member or frame, in the manner of bz2.BZ2Decompressor."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Zlib:
    """zlib's decompressor in the manner of bz2's, for machines that ISA-L does not know."""

    def __init__(self) -> None:
        import zlib  # noqa: PLC0415 - only where isal is missing

        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail and not self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def inflate(compression: str, source: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the decompressed stream in blocks of at most `BLOCK`; `compression` is plain, gzip or zstd.

    Raises `Refused` for anything that is not exactly a stream of that kind.
    """
    if compression == "plain":
        return (block for block in source if block)
    return _inflated(compression, *_decoder(compression), source)


def _decoder(compression: str) -> tuple[Callable[[], _Decoder], tuple[type[Exception], ...]]:
    """Return what makes a decoder, and the exceptions of malformed input."""
    if compression == "zstd":
        return _zstd()
    try:
        from isal import igzip_lib  # noqa: PLC0415 - not every machine has it
    except ImportError:
        import zlib  # noqa: PLC0415 - only where isal is missing

        return _Zlib, (zlib.error,)
    malformed: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # the stubs say it is an instance
    return (lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)), (malformed,)


def is_fast(compression: str) -> bool:
    """Tell whether this Python inflates `compression` as fast as it could; False for gzip by zlib."""
    if compression == "gzip":
        try:
            importlib.import_module("isal.igzip_lib")
        except ImportError:
            return False
    return True


def _zstd() -> tuple[Callable[[], _Decoder], tuple[type[Exception], ...]]:
    zstd = zstd_module()
    options = {zstd.DecompressionParameter.window_log_max: limits.ZSTD_WINDOW_LOG}
    return (lambda: zstd.ZstdDecompressor(options=options)), (zstd.ZstdError,)


def _inflated(
    compression: str, make: Callable[[], _Decoder], malformed: tuple[type[Exception], ...], source: Iterable[bytes]
) -> Iterator[bytes]:
    decoder: _Decoder | None = None
    rest = b""
    for fresh in source:
        data = rest + fresh if rest else fresh
        rest = b""
        while data or (decoder is not None and not decoder.needs_input):
            if decoder is None:
                if len(data) < len(_ZSTD_MAGIC):
                    break
                _recognise(compression, data)
                decoder = make()
            try:
                block = decoder.decompress(data, BLOCK)
            except malformed as error:
                raise Refused(f"the layer is not valid {compression}", why=str(error)) from error
            data = b""
            if block:
                yield block
            if decoder.eof:
                data = decoder.unused_data
                decoder = None
        rest = data
    if decoder is not None:
        raise Refused(f"the {compression} stream is truncated")
    if rest:
        _recognise(compression, rest)
        raise Refused(f"the {compression} stream is truncated")


def _recognise(compression: str, data: bytes) -> None:
    """Refuse what does not begin as the media type says, also after the end of an earlier member."""
    if compression == "gzip":
        known = data.startswith(_GZIP_MAGIC)
    else:
        # Skippable frames (RFC 8878, 3.1.2) carry the index of seekable formats.
        known = data.startswith(_ZSTD_MAGIC) or (data[0] & 0xF0 == 0x50 and data[1:4] == b"\x2a\x4d\x18")
    if not known:
        raise Refused(f"the layer is not {compression}, or goes on after its end", why=f"found {data[:4].hex()}")
