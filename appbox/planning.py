"""From manifests to a plan: reads what is needed and hands it to the pure parts. Writes nothing but the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from appbox import admission, demands, observe, plan, resolve
from appbox import desired as desires
from appbox.errors import HostLacks, ManifestError
from appbox.fields import is_below
from appbox.host import abilities, gather
from appbox.host import ranges as id_ranges
from appbox.host.facts import Facts, IdRange
from appbox.locked import Locked
from appbox.oci.cache import Cache
from appbox.plan import Plan, ServicePlan
from appbox.resolve import Images
from appbox.sources import Loaded
from appbox.store import paths, ranges, state
from appbox.store.root import Root


@dataclass(frozen=True, slots=True)
class Prepared:
    """One service's plan with what carrying it out needs."""

    loaded: Loaded
    locked: Locked
    plan: ServicePlan


@dataclass(frozen=True, slots=True)
class Planned:
    """All services' plans and the host that they were made for.

    `silent` maps registries that did not answer to the reason; what is installed from them was taken as it is.
    """

    facts: Facts
    services: tuple[Prepared, ...]
    silent: dict[str, str] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The plan as pure data."""
        return Plan(tuple(one.plan for one in self.services))


def prepare(root: Root, loaded: Sequence[Loaded], cache: Cache, *, init: str, start: bool) -> Planned:
    """Return what `apply` would do for the given manifests.

    Raises ManifestError, Unavailable, Refused or AppboxError when a service cannot be as its manifest says.
    """
    facts = gather.gather(root, init, ranges.load(root))
    if facts.live:
        facts = replace(facts, abilities=abilities.gather([one.manifest for one in loaded]))
    _refuse_shared_directories(loaded)
    _refuse_nested_sources(root, loaded)
    work = _Work(root, Images(cache, facts.platform, admission.load(root)), start=start, recorded=ranges.recorded(root))
    found: list[Prepared] = []
    for one in loaded:
        prepared = _service(work, one, facts)
        found.append(prepared)
        if prepared.plan.desired.mapped:
            # The next service must not be given the range that this one is about to get.
            given = {**facts.ranges, one.manifest.name: prepared.plan.desired.base}
            facts = replace(facts, ranges=given)
    return Planned(facts, tuple(found), dict(work.images.silent))


@dataclass(frozen=True, slots=True)
class _Work:
    """What planning one service has in common with planning the next."""

    root: Root
    images: Images
    start: bool
    recorded: bool


def _service(work: _Work, loaded: Loaded, facts: Facts) -> Prepared:
    name, root = loaded.manifest.name, work.root
    directory = paths.version_directory(name, loaded.manifest.version)
    observed = observe.observe(root, facts.init, name, directory)
    mapped = loaded.manifest.security.userns == "auto"
    base = _base(name, facts, observed.current.base if observed.current else 0) if mapped else 0
    target, rootfs = observed.target, None
    locked = resolve.resolve(loaded, work.images, root, target, IdRange(base, id_ranges.SIZE))
    _refuse_what_the_host_lacks(locked, facts)
    if target is not None and not plan.rebuild_reason(str(locked.image.digest), base, target):
        rootfs = observe.installed_rootfs(root, target, desires.wanted_nodes(locked))
    desired = desires.build(locked, facts, base, rootfs)
    new_range = mapped and not (work.recorded and facts.ranges.get(name) == base)
    service = plan.diff(desired, observed, live=facts.live, start=work.start, new_range=new_range)
    return Prepared(loaded, locked, service)


def _refuse_what_the_host_lacks(locked: Locked, facts: Facts) -> None:
    """Raise HostLacks for the first key that this host cannot act on, naming file and line."""
    for lack in demands.missing(locked, facts):
        problem = locked.document.problem(lack.key, lack.message, lack.hint)
        where = f"{problem.file}:{problem.line}: {problem.key}" if problem.line else f"{problem.file}: {problem.key}"
        raise HostLacks(lack.message, where=where, hint=lack.hint)


def _refuse_shared_directories(loaded: Sequence[Loaded]) -> None:
    """Refuse `a` in version `1-2` beside `a-1` in version `2`: both would be in the directory a-1-2."""
    first: dict[str, str] = {}
    for one in loaded:
        directory = paths.version_directory(one.manifest.name, one.manifest.version)
        other = first.setdefault(directory, one.document.file)
        if other != one.document.file:
            message = f"its directory {directory} is that of {other} too"
            raise ManifestError([one.document.problem(("version",), message, "change a name")])


def _refuse_nested_sources(root: Root, loaded: Sequence[Loaded]) -> None:
    """Refuse a volume within another volume's source, or within what is appbox's own.

    Who may write to the outer one could put a symlink where the inner one is, and so get at any path of the host.
    """
    wanted = [(one, name, v) for one in loaded for name, v in one.manifest.volumes.items() if v.source]
    if not wanted:
        return
    own = [(path, "appbox's own") for path in (paths.CONTAINERS, paths.STATE, paths.CACHE, paths.RUN)]
    named = [(str(v.source), f"volume {name} of {one.manifest.name}") for one, name, v in wanted]
    named += _installed_sources(root, {one.manifest.name for one in loaded})
    problems = []
    for one, name, volume in wanted:
        source = str(volume.source)
        inside = [(p, whose) for p, whose in named if p != source and is_below(source, p)]
        if not volume.read_only:
            inside += [(p, whose) for p, whose in own if is_below(source, p) or is_below(p, source)]
        for path, whose in inside[:1]:
            message = f"{source} and {path} ({whose}) lie within one another"
            hint = "whoever writes to the outer one could redirect the inner one; take directories beside each other"
            problems.append(one.document.problem(("volumes", name, "source"), message, hint))
    if problems:
        raise ManifestError(problems)


def _installed_sources(root: Root, planned: set[str]) -> list[tuple[str, str]]:
    """Return the host paths that other installed services have as volumes, and whose they are."""
    found = []
    for name in state.names(root):
        installed = state.load(root, name) if name not in planned else None
        volumes = installed.meta.get("manifest", {}).get("volumes", {}) if installed else {}
        found += [(str(v["source"]), f"a volume of {name}") for v in volumes.values() if v.get("source")]
    return found


def _base(name: str, facts: Facts, installed: int) -> int:
    """Return the range of a service: what is written down, what its bundle says if that was lost, or a free one."""
    if name not in facts.ranges and installed and installed not in facts.ranges.values():
        return installed
    return id_ranges.allocate(name, facts.ranges, facts.taken)
