"""What a manifest asks of its host, and what of it the host does not have. Pure.

A plan that cannot work is refused before anything is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from appbox.host.facts import Facts
from appbox.locked import Locked
from appbox.toml_source import Path


@dataclass(frozen=True, slots=True)
class Lack:
    """A key that the host cannot act on, why, and what mends it."""

    key: Path
    message: str
    hint: str = ""


def missing(locked: Locked, facts: Facts) -> Iterator[Lack]:
    """Yield what the host of `facts` lacks for a manifest; nothing is known of one that does not run."""
    if facts.abilities is not None:
        for demand in _DEMANDS:
            yield from demand(locked, facts)


_DEMANDS: tuple[Callable[[Locked, Facts], Iterator[Lack]], ...] = ()
