"""The order of tags as people read versions. Values in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_PART: Final = re.compile(r"[0-9]+|[a-z]+")
EARLY: Final = ("dev", "pre", "alpha", "a", "beta", "b", "rc")
"""What a version has before it is out, in this order; any other word is a variant of the version before it."""

Key = tuple[tuple[int, int, str], ...]


def newest_last(tags: Iterable[str]) -> list[str]:
    """Return the tags in the order of versions: words, then 9.0-rc1, 9.0, 9.0-alpine, 9.0.1, 10."""
    return sorted(tags, key=lambda tag: (key(tag), tag))


def key(tag: str) -> Key:
    """Return what a tag is sorted by: its numbers as numbers, and where it ends before whatever else could follow."""
    parts = _PART.findall(tag.lower())
    if len(parts) > 1 and parts[0] == "v" and parts[1].isdigit():
        del parts[0]  # v9.0 is a way to write 9.0
    return (*map(_rank, parts), (0, 0, ""))


def _rank(part: str) -> tuple[int, int, str]:
    if part.isdigit():
        return 2, int(part), ""
    return (-1, EARLY.index(part), "") if part in EARLY else (1, 0, part)
