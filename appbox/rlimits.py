"""The rlimits of [resources]: what the runtime is told, and what it needs itself. Pure.

They are set by the runtime on its own last process before that becomes the service's program (runtime-spec, config.md,
POSIX process), so too small a limit ends the runtime and not the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from appbox.findings import Finding
from appbox.oci.runtime_spec import Rlimit
from appbox.tables import Resources

_NAMES: Final = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
NAMES: Final = tuple(_NAMES.split())
INFINITY: Final = 2**64 - 1
"""RLIM_INFINITY of getrlimit(2) on 64-bit Linux."""

_FLOORS: Final = {"as": 2 << 30, "data": 128 << 20, "nofile": 32, "cpu": 1}
"""What runc needs itself: with 1.04 GB of addresses, 78 MB of data or 10 files less it fails (measured with 1.1.5)."""

OPEN_FILES: Final = 1_048_576
"""fs.nr_open as the kernel has it: the most that RLIMIT_NOFILE may be, for root too."""


def wanted(resources: Resources) -> dict[str, int]:
    """Return the rlimits that a manifest asks for, by their names there, in the order of `NAMES`."""
    found = {name: getattr(resources, "as_" if name == "as" else name) for name in NAMES}
    return {
        name: INFINITY if value == "unlimited" else int(value) for name, value in found.items() if value is not None
    }


def of(resources: Resources) -> tuple[Rlimit, ...]:
    """Return the rlimits for the runtime; soft and hard limit are the same."""
    return tuple(Rlimit(f"RLIMIT_{name.upper()}", value, value) for name, value in wanted(resources).items())


def findings(resources: Resources) -> Iterator[Finding]:
    """Yield a finding for each rlimit with which no service could start."""
    for name, value in wanted(resources).items():
        if value < _FLOORS.get(name, 0):
            hint = f"take at least {_FLOORS[name]}"
            yield Finding(("resources", name), "is less than the runtime needs to start the program", hint)
    if resources.nofile == "unlimited":
        message = "cannot be unlimited: the kernel has a largest number of open files (fs.nr_open)"
        yield Finding(("resources", "nofile"), message, f"write nofile = {OPEN_FILES}")
