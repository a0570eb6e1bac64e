"""Which ids of the host those of a container are. Pure, and apart because it is known before layers are thought of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdMap:
    """`size` ids of a container, from 0, are the host's from `base` on; `IdMap(0, 65536)` leaves them as they are."""

    base: int
    size: int
