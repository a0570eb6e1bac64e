"""From manifests to a plan: reads what is needed and hands it to the pure parts. Writes nothing but the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from appbox import desired as desires
from appbox import observe, plan, resolve
from appbox.host import gather
from appbox.host import ranges as id_ranges
from appbox.host.facts import Facts
from appbox.locked import Locked
from appbox.oci.cache import Cache
from appbox.plan import Plan, ServicePlan
from appbox.sources import Loaded
from appbox.store import paths, ranges
from appbox.store.root import Root


@dataclass(frozen=True, slots=True)
class Prepared:
    """One service's plan with what carrying it out needs."""

    loaded: Loaded
    locked: Locked
    plan: ServicePlan


@dataclass(frozen=True, slots=True)
class Planned:
    """All services' plans and the host that they were made for."""

    facts: Facts
    services: tuple[Prepared, ...]

    @property
    def plan(self) -> Plan:
        """The plan as pure data."""
        return Plan(tuple(one.plan for one in self.services))


def prepare(root: Root, loaded: Sequence[Loaded], cache: Cache, *, init: str, start: bool) -> Planned:
    """Return what `apply` would do for the given manifests.

    Raises ManifestError, Unavailable, Refused or AppboxError when a service cannot be as its manifest says.
    """
    facts = gather.gather(root, init, ranges.load(root))
    recorded = ranges.recorded(root)
    found: list[Prepared] = []
    for one in loaded:
        prepared = _service(root, one, cache, facts, start=start, recorded=recorded)
        found.append(prepared)
        if prepared.plan.desired.mapped:
            # The next service must not be given the range that this one is about to get.
            given = {**facts.ranges, one.manifest.name: prepared.plan.desired.base}
            facts = replace(facts, ranges=given)
    return Planned(facts, tuple(found))


def _service(root: Root, loaded: Loaded, cache: Cache, facts: Facts, *, start: bool, recorded: bool) -> Prepared:
    name = loaded.manifest.name
    directory = paths.version_directory(name, loaded.manifest.version)
    observed = observe.observe(root, facts.init, name, directory)
    locked = resolve.resolve(loaded, facts, cache, root, observed.target)
    mapped = loaded.manifest.security.userns == "auto"
    base = _base(name, facts, observed.current.base if observed.current else 0) if mapped else 0
    target, rootfs = observed.target, None
    if target is not None and not plan.rebuild_reason(str(locked.image.digest), base, target):
        rootfs = observe.installed_rootfs(root, target, desires.wanted_nodes(locked))
    desired = desires.build(locked, facts, base, rootfs)
    new_range = mapped and not (recorded and facts.ranges.get(name) == base)
    service = plan.diff(desired, observed, live=facts.live, start=start, new_range=new_range)
    return Prepared(loaded, locked, service)


def _base(name: str, facts: Facts, installed: int) -> int:
    """Return the range of a service: what is written down, what its bundle says if that was lost, or a free one."""
    if name not in facts.ranges and installed and installed not in facts.ranges.values():
        return installed
    return id_ranges.allocate(name, facts.ranges, facts.taken)
