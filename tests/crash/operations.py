"""What appbox does to a host, as a table. A new operation is one entry; every test of this group then tries it."""

from __future__ import annotations

from typing import Final

from tests.crash.installing import INSTALLING
from tests.crash.keeping import KEEPING
from tests.crash.operation import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (*INSTALLING, *KEEPING)


def on(kind: str) -> list[Operation]:
    """Return the operations that can be done on a file system of this kind."""
    return [one for one in OPERATIONS if kind in one.kinds]
