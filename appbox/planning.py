"""From manifests to a plan: reads what is needed and hands it to the pure parts. Writes nothing but the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from appbox import admission, container, demands, networking, observe, plan, resolve, sharing
from appbox import desired as desires
from appbox.actions import MakeVolume
from appbox.desired import Desired
from appbox.errors import HostLacks, ManifestError
from appbox.fields import is_below
from appbox.host import abilities, gather
from appbox.host import ranges as id_ranges
from appbox.host.facts import Facts, IdRange
from appbox.locked import Locked, Shared
from appbox.networking import Addresses
from appbox.oci import runtimes
from appbox.oci.cache import Cache
from appbox.ordering import Neighbours
from appbox.plan import Plan, ServicePlan
from appbox.resolve import Images
from appbox.sources import Loaded
from appbox.store import paths, ranges, state
from appbox.store.installed import Installed
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
        runtime = self.facts.abilities.runtime if self.facts.abilities else None
        note = runtimes.note(runtime) if runtime else ""
        return Plan(tuple(one.plan for one in self.services), (note,) if note else ())


def prepare(root: Root, loaded: Sequence[Loaded], cache: Cache, *, init: str, start: bool) -> Planned:
    """Return what `apply` would do for the given manifests.

    Raises ManifestError, Unavailable, Refused or AppboxError when a service cannot be as its manifest says.
    """
    facts = gather.gather(root, init, ranges.load(root))
    if facts.live:
        facts = replace(facts, abilities=abilities.gather([one.manifest for one in loaded]))
    # Nobody may be given ids that another manifest of this run names.
    fixed = {one.manifest.name: ids for one in loaded if (ids := container.fixed_ids(one.manifest))}
    given, facts = facts.ranges, replace(facts, ranges={**facts.ranges, **fixed})
    _refuse_shared_directories(loaded)
    _refuse_nested_sources(root, loaded)
    networking.refuse_clashes(root, loaded)
    work = _Work(
        root,
        Images(cache, facts.platform, admission.load(root)),
        start=start,
        given=given if ranges.recorded(root) else {},
        addresses=Addresses(root),
        others=_others(root, loaded),
    )
    neighbours = Neighbours(root, facts, loaded)
    neighbours.refuse()
    found: list[Prepared] = []
    for one in loaded:
        prepared = _service(work, one, facts)
        notes = (*prepared.plan.notes, *neighbours.notes(one))
        prepared = replace(prepared, plan=replace(prepared.plan, notes=notes))
        found.append(prepared)
        if prepared.plan.desired.mapped:
            # The next service must not be given the range that this one is about to get.
            ids = IdRange(prepared.plan.desired.base, prepared.plan.desired.size)
            facts = replace(facts, ranges={**facts.ranges, one.manifest.name: ids})
    return Planned(facts, tuple(_in_order(neighbours, found)), dict(work.images.silent))


def _in_order(neighbours: Neighbours, found: Sequence[Prepared]) -> list[Prepared]:
    """Return the services in the order in which they start, with what starts again because of another's stop."""
    by_name = {one.loaded.manifest.name: one for one in found}
    ordered = [by_name[name] for name in neighbours.order()]
    plans = neighbours.started_again([one.plan for one in ordered])
    return [replace(one, plan=plan) for one, plan in zip(ordered, plans, strict=True)]


@dataclass(frozen=True, slots=True)
class _Work:
    """What planning one service has in common with planning the next. `given` are the ranges that are written down."""

    root: Root
    images: Images
    start: bool
    given: Mapping[str, IdRange]
    addresses: Addresses
    others: Mapping[str, Shared | None]
    made: dict[str, str] = field(default_factory=dict)
    """Paths of the host that a service of this run makes for a volume, and which one."""


def _service(work: _Work, loaded: Loaded, facts: Facts) -> Prepared:
    name, root = loaded.manifest.name, work.root
    directory = paths.version_directory(name, loaded.manifest.version)
    observed = observe.observe(root, facts.init, name, directory)
    mapped = container.is_mapped(loaded.manifest)
    ids = _ids(loaded, facts, observed.current)
    target, rootfs = observed.target, None
    attachment = work.addresses.attach(loaded)
    shared = sharing.find(loaded.manifest, loaded.document, work.others)
    locked = replace(resolve.resolve(loaded, work.images, root, target, ids), attachment=attachment, shared=shared)
    refuse_what_the_host_lacks(locked, facts)
    if target is not None and not plan.rebuild_reason(str(locked.image.digest), ids.base, target, ids.size):
        rootfs = observe.installed_rootfs(root, target, desires.wanted_nodes(locked))
    desired = volumes_made_by_others(desires.build(locked, facts, ids.base, rootfs), work.made)
    new_range = mapped and work.given.get(name) != ids
    observed = work.addresses.observe(desired, observed)
    service = plan.diff(desired, observed, live=facts.live, start=work.start, new_range=new_range)
    for action in service.actions:
        if isinstance(action, MakeVolume):
            work.made.setdefault(action.path, name)
    return Prepared(loaded, locked, service)


def volumes_made_by_others(desired: Desired, made: Mapping[str, str]) -> Desired:
    """Return a service with those volumes left as they are that another service of this run makes; `made` says which.

    By the time when it is this one's turn the other one runs, and has written to them.
    """
    shared = {v.source: made[v.source] for v in desired.volumes if v.kind == "host" and v.source in made}
    if not shared:
        return desired
    found = tuple(replace(v, make=False, take=False) if v.source in shared else v for v in desired.volumes)
    said = [
        f"{path} is made for {other}, whose files are there as {other} makes them" for path, other in shared.items()
    ]
    return replace(desired, volumes=found, notes=(*desired.notes, *said))


def _others(root: Root, loaded: Sequence[Loaded]) -> dict[str, Shared | None]:
    """Return the services whose network is shared by one of these manifests, as they will be; None: there is none."""
    found: dict[str, Shared | None] = {}
    planned = {one.manifest.name: one.manifest for one in loaded}
    for name in {sharing.target(one.manifest) for one in loaded} - {""}:
        if name in planned:
            found[name] = sharing.of_manifest(planned[name])
        else:
            there = state.load(root, name)
            found[name] = sharing.of_table(name, there.meta.get("manifest", {})) if there and there.meta else None
    return found


def refuse_what_the_host_lacks(locked: Locked, facts: Facts) -> None:
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


def _ids(loaded: Loaded, facts: Facts, current: Installed | None) -> IdRange:
    """Return the range of a service: what its manifest says, what is written down, what its bundle says if that was
    lost, or a free one. Raises ManifestError for a range of the manifest in which somebody else has ids.
    """
    name = loaded.manifest.name
    if not container.is_mapped(loaded.manifest):
        return IdRange(0, id_ranges.SIZE)
    fixed = container.fixed_ids(loaded.manifest)
    if fixed is not None:
        if whose := id_ranges.holder(name, fixed, facts.ranges, facts.taken):
            message, hint = f"overlaps the ids of {whose}", "take ids that nobody has"
            raise ManifestError([loaded.document.problem(("security", "userns"), message, hint)])
        return fixed
    installed = IdRange(current.base, current.size) if current and current.base else None
    lost = name not in facts.ranges and installed is not None and id_ranges.is_allocated(installed)
    if installed and lost and not any(installed.overlaps(other) for other in facts.ranges.values()):
        return installed
    return id_ranges.allocate(name, facts.ranges, facts.taken)
