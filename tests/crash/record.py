"""What a full run has tried, written down point by point: one that was interrupted goes on where it was.

A file of JSON lines for each state of the tree, below the cache; a change to the product or to these tests begins anew.
Points at which a promise was broken are tried again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.ground import cache

_TREE: Final = Path(__file__).parents[2]
_COUNTS: Final = ("appbox", "generators", "tests/crash", "tests/ground")
"""What a result depends on."""

Point = tuple[str, str, str, str]
"""An operation, a file system, a fault, and the point at which it was tried."""


@dataclass(frozen=True, slots=True)
class Record:
    """The points that were tried without finding anything, in this file; several processes may add to it."""

    path: Path
    passed: set[Point] = field(default_factory=set)

    @classmethod
    def load(cls, path: Path) -> Record:
        """Return what is in a file, if it is there; a line that was cut off is passed over."""
        found = cls(path)
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    *point, violation = json.loads(line)
                except ValueError:
                    continue
                if not violation:
                    found.passed.add(tuple(point))
        return found

    def add(self, point: Point, violation: str) -> None:
        """Write down what came of a point; "" for nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps([*point, violation]) + "\n"
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode())


@functools.cache
def of_this_tree() -> Record:
    """Return the record of the tree as it is."""
    return Record.load(cache.root() / f"crash/{fingerprint()}.jsonl")


def fingerprint() -> str:
    """Return 12 hex digits that stand for everything that a result depends on."""
    digest = hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(f"{path.relative_to(_TREE)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _sources() -> Iterator[Path]:
    for name in _COUNTS:
        for top, directories, files in os.walk(_TREE / name):
            directories[:] = [one for one in directories if one != "__pycache__"]
            yield from (Path(top, one) for one in files)
