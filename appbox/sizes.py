"""Numbers of bytes in words. Pure, and apart because a pull need not load what else speaks of sizes."""

from __future__ import annotations


def megabytes(size: int) -> str:
    """Return a number of bytes in words of the scale that a person reads."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
