"""The limits of a service's cgroup, as the kernel counts them: for what sets them and what reads them back. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

PERIOD: Final = 100_000
"""Microseconds within which `quota` is counted: the kernel's own default."""

LARGEST: Final = 2**63 - 1

LEAST_MEMORY: Final = 6 << 20
"""Bytes; with less the runtime itself cannot start anything. Docker has the same limit."""
LEAST_QUOTA: Final = 1_000
"""Microseconds: the kernel's shortest."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a cgroup; None is no limit, or the kernel's own weight.

    `memory` and `swap` are bytes, swap without the memory that it stands beside; `quota` is microseconds of processor
    time per `PERIOD`; `cpu_weight` and `io_weight` go from 1 to 10,000 with 100 in the middle, as in cgroup v2.
    Raises ValueError for what no kernel takes.
    """

    memory: int | None = None
    swap: int | None = None
    quota: int | None = None
    cpu_weight: int | None = None
    pids: int | None = None
    io_weight: int | None = None

    def __post_init__(self) -> None:
        _within("memory", self.memory, LEAST_MEMORY, LARGEST)
        _within("swap", self.swap, 0, LARGEST - (self.memory or 0))
        if self.swap is not None and self.memory is None:
            raise ValueError("a limit of swap needs one of memory")
        _within("quota", self.quota, LEAST_QUOTA, LARGEST)
        _within("weight", self.cpu_weight, 1, 10_000)
        _within("pids", self.pids, 1, 4_194_304)
        _within("weight", self.io_weight, 1, 10_000)

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))

    @property
    def period(self) -> int:
        """`PERIOD`, for templates."""
        return PERIOD

    @property
    def largest(self) -> int:
        """What the kernel means by `max`, for templates."""
        return LARGEST

    @property
    def controllers(self) -> tuple[str, ...]:
        """The controllers of cgroup v2 that these limits need, sorted."""
        found = {_CONTROLLERS[field.name] for field in fields(self) if getattr(self, field.name) is not None}
        return tuple(sorted(found))

    @property
    def controllers_v1(self) -> tuple[str, ...]:
        """The same by their names in cgroup v1."""
        return tuple("blkio" if name == "io" else name for name in self.controllers)

    @property
    def memory_and_swap(self) -> int:
        """The limit of both together, as cgroup v1 has it."""
        return (self.memory or 0) + (self.swap or 0)

    @property
    def shares(self) -> int | None:
        """`cpu_weight` as cpu.shares of cgroup v1, whose middle is 1,024 and whose least is 2."""
        return None if self.cpu_weight is None else max(2, round(self.cpu_weight * 1024 / 100))

    @property
    def bfq_weight(self) -> int | None:
        """`io_weight` as far as the scheduler BFQ has it, which goes to 1,000."""
        return None if self.io_weight is None else min(self.io_weight, 1_000)

    @property
    def block_weight(self) -> int | None:
        """`io_weight` as the runtime specification has it, from cgroup v1: 10 to 1,000."""
        return None if self.io_weight is None else min(max(self.io_weight, 10), 1_000)


_CONTROLLERS: Final = {
    "memory": "memory",
    "swap": "memory",
    "quota": "cpu",
    "cpu_weight": "cpu",
    "pids": "pids",
    "io_weight": "io",
}


def _within(what: str, number: int | None, low: int, high: int) -> None:
    if number is not None and (type(number) is not int or not low <= number <= high):
        raise ValueError(f"not a limit of {what} from {low} to {high}: {number!r}")
