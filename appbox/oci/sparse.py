"""Sparse members of tar: where the stored bytes of a file belong. Bytes in, values out.

Four forms: GNU's old header type `S`, and GNU's PAX records 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse
Files"). A map must be in order, without overlaps and within the file, and must use exactly the bytes that are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from appbox.errors import Refused
from appbox.oci import pax

SEGMENTS: Final = 1 << 16
"""Data segments of one file: more than any real file has, and 65,536 make a map of some MiB at most."""

OLD_HEADER: Final = (386, 4)
"""Offset and number of the map's entries in a header of type S."""
OLD_EXTENSION: Final = (0, 21)
"""The same in the blocks that extend it."""


class Sparse(NamedTuple):
    """A file of `size` bytes; `segments` are (offset, length) of what is stored, the rest is holes."""

    size: int
    segments: tuple[tuple[int, int], ...]


def build(numbers: Sequence[int], size: int, stored: int) -> Sparse:
    """Return the map of alternating offsets and lengths, checked; raise `Refused`."""
    if len(numbers) % 2 or len(numbers) > 2 * SEGMENTS:
        raise Refused("the map of a sparse file has a wrong length")
    # GNU tar ends a map with an empty segment at the file's size, and pads the old header with zeros.
    pairs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    segments = tuple((offset, length) for offset, length in pairs if length)
    ordered = all(a + length <= b for (a, length), (b, _) in pairwise(segments))
    if not ordered or any(offset + length > size for offset, length in pairs):
        raise Refused("the map of a sparse file leaves the file or overlaps itself")
    if sum(length for _, length in segments) != stored:
        raise Refused("the map of a sparse file does not fit the bytes stored")
    return Sparse(size, segments)


def from_records(records: Iterable[tuple[bytes, bytes]]) -> list[int] | None:
    """Return the map of the PAX forms 0.0 and 0.1, or None when there is none in the records."""
    joined: list[int] | None = None
    single: list[int] = []
    for key, value in records:
        if key == b"GNU.sparse.map":
            parts = value.split(b",", 2 * SEGMENTS + 1) if value else []
            joined = [pax.integer("GNU.sparse.map", part) for part in parts]
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.numbytes") != bool(len(single) % 2):
                raise Refused("the map of a sparse file is out of order")
            single.append(pax.integer("GNU.sparse", value))
    return joined if joined is not None else (single or None)
