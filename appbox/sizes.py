"""Numbers of bytes and seconds in words. Pure, and apart because a pull need not load what else speaks of sizes."""

from __future__ import annotations

from typing import Final

_AGES: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def megabytes(size: int) -> str:
    """Return a number of bytes in words of the scale that a person reads."""
    if size < 1_000:
        return f"{size} byte{'' if size == 1 else 's'}"
    if size < 100_000:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e6:.1f} MB" if size < 1_000_000_000 else f"{size / 1e9:.1f} GB"


def age(seconds: int) -> str:
    """Return a time span in words: its largest unit, rounded down."""
    for unit, word in _AGES:
        if seconds >= unit:
            count = seconds // unit
            return f"{count} {word}{'' if count == 1 else 's'}"
    return f"{max(seconds, 0)} s"
