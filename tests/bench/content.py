"""Bytes that files of images are made of: the same at each build, and as hard to inflate as programs are.

A third of what is in images was packed before it got there (archives, compressed documentation, pictures); the rest
repeats itself over short distances, as machine code and texts do. Together, gzip makes 10 bytes out of 18 or 19.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator

PIECE = 256 << 10
"""Data comes in pieces of at most so many bytes."""
_POOL = 24 << 20
"""Files are cut from a pool of this size: farther than any window of a compressor reaches back."""
_WINDOW = 32_000
_PACKED = 5
"""One file in so many is packed already."""


@functools.cache
def _programs() -> bytes:
    """Return what repeats itself: short literals, and copies from nearby, mostly short ones."""
    source = random.Random("programs")  # noqa: S311 - a test's data
    chance = source.random
    letters = bytes(int(chance() ** 3 * 256) for _ in range(4096))
    out = bytearray(source.randbytes(64))
    while len(out) < _POOL:
        at = int(chance() * 4000)
        out += letters[at : at + int(chance() * 8)]
        length = 3 + int(chance() * 6) if chance() < 0.96 else int(chance() * 200)
        start = len(out) - 1 - int(chance() ** 2 * min(len(out) - 1, _WINDOW))
        out += out[start : start + length]
    return bytes(out[:_POOL])


@functools.cache
def _packed() -> bytes:
    return random.Random("packed").randbytes(_POOL)  # noqa: S311 - the same


def data(seed: int, size: int) -> Iterator[bytes]:
    """Yield `size` bytes in pieces; the same for the same seed."""
    chosen = random.Random(seed)  # noqa: S311 - the same
    pool = _packed() if chosen.randrange(_PACKED) == 0 else _programs()
    while size > 0:
        length = min(size, PIECE)
        start = chosen.randrange(_POOL - length)
        yield pool[start : start + length]
        size -= length


def zeros(size: int) -> Iterator[bytes]:
    """Yield `size` zero bytes in pieces."""
    piece = bytes(PIECE)
    while size > 0:
        yield piece[:size]
        size -= PIECE
