"""How much an image may ask for. Numbers with their reasons; nothing else.

An image is refused as soon as it goes over one. Those that an operator may want to raise are fields of `Limits`; those
that Linux itself sets are constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NAME: Final = 255
"""Bytes of one component of a path: NAME_MAX of every Linux file system that can hold a rootfs."""
PATH: Final = 4095
"""Bytes of a path or a link target: PATH_MAX without the NUL. The kernel takes nothing longer in one call."""
DEPTH: Final = 512
"""Components of a path. The deepest trees of real images (nested node_modules) stay below 60."""
EXTENDED_HEADER: Final = 1 << 20
"""Bytes of one extended header: what Go's archive/tar takes, so no image that others can read is larger."""
EXTENDED_HEADERS: Final = 16
"""Headers that make no file, in a row: one of each type is four, and more cost time that no other limit counts."""
HELD_COMPRESSED: Final = 4 << 20
"""Compressed bytes of upper layers that are read whole before the lower ones are written, the smallest layers first."""
HELD: Final = 24 << 20
"""Uncompressed bytes of these, which are in memory meanwhile."""
XATTR_NAME: Final = 255
"""Bytes of an extended attribute's name: XATTR_NAME_MAX."""
XATTR_VALUE: Final = 65536
"""Bytes of an extended attribute's value: XATTR_SIZE_MAX."""
MAJOR: Final = 0xFFF
"""Largest major device number of Linux: 12 bits (linux/kdev_t.h)."""
MINOR: Final = 0xFFFFF
"""Largest minor device number of Linux: 20 bits."""
ZSTD_WINDOW_LOG: Final = 26
"""64 MiB, what `zstd --ultra -21` asks for; a decompressor holds all of it in memory, and 120 MB is the budget."""


RAISE: Final = "if you trust it, /etc/appbox/limits.toml can allow more"
"""What to do about an image that is over one of `Limits`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a whole image, all layers taken together."""

    entries: int = 2_000_000
    """Members of all layers. The largest images seen have some 500,000; each costs an inode and a little memory."""
    size: int = 256 << 30
    """Bytes of all uncompressed layers, and apparent bytes of one file: machine-learning images reach 60 GiB."""
    ratio: int = 200
    """Uncompressed over compressed bytes, once `ratio_from` is passed. Programs reach 4, text 20, bombs 1,030 (gzip)
    and 30,000 (zstd)."""
    ratio_from: int = 4 << 30
    """Bytes that any image may have whatever its ratio: an empty database of 2 GiB of zeros is honest, and zeros
    become holes that take no disk."""
