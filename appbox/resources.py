"""[resources]: the limits of a service's cgroup as values, and as the OCI runtime is told of them. Pure.

How limits are set, and seen to be set:
- config.json has what the runtime specification can say (config-linux.md, Control groups). Its `swap` is memory and
  swap together; runtimes take the memory off again on cgroup v2.
- It has weights only as cgroup v1 counts them, and each runtime has its own formula for v2: of 1,024 shares, the
  middle, runc makes the weight 39 before 1.3.2, and 100 since. So on v2 the run script writes the weights itself.
- The run script reads every limit back before the service's program runs: `generators/run/limits.sh.j2`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from appbox import sizes
from appbox.host.facts import Facts
from appbox.locked import Locked
from appbox.tables import Resources
from appbox.units.limits import PERIOD, Limits


def limits(resources: Resources) -> Limits:
    """Return the limits that a manifest asks for."""
    return Limits(
        memory=resources.memory,
        swap=resources.memory_swap,
        quota=None if resources.cpus is None else round(resources.cpus * PERIOD),
        cpu_weight=resources.cpu_weight,
        pids=resources.pids,
        io_weight=resources.io_weight,
    )


def oci(wanted: Limits) -> dict[str, Any]:
    """Return the limits as `linux.resources` of the runtime specification has them."""
    memory: dict[str, int] = {}
    if wanted.memory is not None:
        memory["limit"] = wanted.memory
        if wanted.swap is not None:
            memory["swap"] = wanted.memory + wanted.swap
    cpu: dict[str, int] = {}
    if wanted.shares is not None:
        cpu["shares"] = wanted.shares
    if wanted.quota is not None:
        cpu |= {"quota": wanted.quota, "period": PERIOD}
    tables = {
        "memory": memory,
        "cpu": cpu,
        "pids": {} if wanted.pids is None else {"limit": wanted.pids},
        "blockIO": {} if wanted.block_weight is None else {"weight": wanted.block_weight},
    }
    return {name: table for name, table in tables.items() if table}


def notes(locked: Locked, facts: Facts) -> Iterator[str]:
    """Yield which limits limit nothing on the live host of `facts`."""
    asked = locked.manifest.resources
    if not facts.live:
        return
    if asked.cpus is not None and asked.cpus > facts.cpus:
        has = "1 processor" if facts.cpus == 1 else f"{facts.cpus} processors"
        yield f"resources.cpus = {asked.cpus:g} limits nothing: this host has {has}"
    if asked.memory is not None and asked.memory > facts.memory:
        wanted, has = (sizes.megabytes(size) for size in (asked.memory, facts.memory))
        yield f"resources.memory, {wanted}, limits nothing: this host has {has}"
