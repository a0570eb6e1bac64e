"""From manifests to a plan: reads what is needed and hands it to the pure parts. Writes nothing but the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from appbox import admission, container, demands, networking, observe, owner, plan, resolve, sharing, touched
from appbox import desired as desires
from appbox.actions import MakeVolume, RenderConfig, Restart, Start, Stop
from appbox.data_plan import format_problem, rebuild_reason
from appbox.dependencies import table
from appbox.desired_values import Desired
from appbox.differences import fingerprint
from appbox.errors import AppboxError, HostLacks, ManifestError
from appbox.fields import is_below
from appbox.host import beside, gather
from appbox.host import ranges as id_ranges
from appbox.host.facts import Facts, IdRange
from appbox.locked import Locked, Shared
from appbox.networking import Addresses
from appbox.oci import runtimes
from appbox.oci.cache import Cache
from appbox.oci.reference import RegistryImage, parse_image
from appbox.ordering import Neighbours
from appbox.plan_values import Observed, Plan, Removal, ServicePlan
from appbox.resolve import Images
from appbox.sources import Loaded
from appbox.store import journal, paths, ranges, state
from appbox.store.installed import Installed
from appbox.store.journal import Entry
from appbox.store.root import Root
from appbox.touched import NOWHERE, Scope
from appbox.units import compiled

_MANY: Final = 40
"""Services of a run from which on a second process pays: making it takes as long as planning ten."""
_SHARE: Final = 0.45
"""What the second process plans of them: it has to hand over what it found besides."""
_PATIENCE: Final = 5
"""Services with something to be done after which the second process gives up: the first one plans them again."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One service's plan with what carrying it out needs."""

    loaded: Loaded
    locked: Locked
    plan: ServicePlan


@dataclass(frozen=True, slots=True)
class Planned:
    """All services' plans and the host that they were made for.

    `silent` maps registries that did not answer to the reason; what is installed from them was taken as it is. `failed`
    are services that cannot be planned, by name, `removals` those whose manifests are gone. `locks` maps services to
    what somebody should know about their locks. `mended` says what an apply writes anew that was lost or torn.
    """

    facts: Facts
    services: tuple[Prepared, ...]
    silent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, AppboxError] = field(default_factory=dict)
    removals: tuple[Removal, ...] = ()
    locks: dict[str, list[str]] = field(default_factory=dict)
    mended: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """The plan as pure data."""
        return Plan(tuple(one.plan for one in self.services), self.mended, self.removals)

    @property
    def runtime_note(self) -> str:
        """What is known against this host's runtime, "" for nothing: it is the same with every plan, so in none."""
        runtime = self.facts.abilities.runtime if self.facts.abilities else None
        return runtimes.note(runtime) if runtime else ""


def prepare(
    root: Root,
    loaded: Sequence[Loaded],
    cache: Cache,
    *,
    init: str,
    start: bool,
    scope: Scope = NOWHERE,
    retry: bool = False,
    removals: Sequence[Removal] = (),
) -> Planned:
    """Return what `apply` would do for the given manifests; `scope` says whose root file systems are looked at.

    `retry`: what did not get well before is tried again; `removals` are what this run removes.

    What cannot be had for one of several services, its image above all, is that one's failure. Raises ManifestError or
    HostLacks for what must be mended before anything is touched, and whatever the only service, or all, failed by.
    """
    compiled.use()
    ledger = ranges.read(root)
    facts = gather.gather(root, init, ledger.table)
    if facts.live:
        from appbox.host import abilities  # noqa: PLC0415  # of no use below another root

        facts = replace(facts, abilities=abilities.gather([one.manifest for one in loaded]))
    # Nobody may be given ids that another manifest of this run names.
    fixed = {one.manifest.name: ids for one in loaded if (ids := container.fixed_ids(one.manifest))}
    facts = replace(facts, ranges={**facts.ranges, **fixed})
    _refuse_shared_directories(loaded)
    neighbours = Neighbours(root, facts, loaded, frozenset(one.installed.name for one in removals))
    _refuse_nested_sources(loaded, neighbours)
    networking.refuse_clashes(root, loaded, neighbours)
    work = _Work(
        root,
        Images(cache, facts.platform, admission.load(root)),
        start=start,
        given=ledger.written,
        addresses=Addresses(root),
        others=_others(root, loaded),
        scope=scope,
        retry=retry,
        begun={entry.service: entry for entry in journal.load(root)},
    )
    work.addresses.refuse_namesakes(loaded, neighbours.gone)
    neighbours.refuse()
    _ask_registries(work, loaded, facts)
    found: list[Prepared] = []
    faults: dict[str, AppboxError] = {}
    with _settled_beside(work, loaded, facts) as settled:
        for one in loaded:
            try:
                prepared = settled(one) or _service(work, one, facts)
            except (ManifestError, HostLacks):
                raise
            except AppboxError as error:
                faults[one.manifest.name] = error
                if len(faults) == len(loaded):
                    raise
                continue
            if more := (*neighbours.notes(one), *_added(root, prepared.plan)):
                notes = (*prepared.plan.notes, *more)
                prepared = replace(prepared, plan=replace(prepared.plan, notes=notes))
            found.append(prepared)
            if prepared.plan.desired.mapped:
                # The next service must not be given the range that this one is about to get.
                ids = IdRange(prepared.plan.desired.base, prepared.plan.desired.size)
                if facts.ranges.get(one.manifest.name) != ids:
                    facts = replace(facts, ranges={**facts.ranges, one.manifest.name: ids})
    return Planned(
        facts,
        tuple(_in_order(neighbours, found)),
        dict(work.images.silent),
        faults,
        tuple(removals),
        locks=work.images.told(),
        mended=_mended(ledger, work.addresses),
    )


@contextlib.contextmanager
def _settled_beside(
    work: _Work, loaded: Sequence[Loaded], facts: Facts
) -> Iterator[Callable[[Loaded], Prepared | None]]:
    """Have the last of many services planned by a second process; what is yielded returns a service's plan.

    That is None for all others, and for one with which anything is to be done or said: those are planned here, each in
    its turn. So a plan is the same whether there is a second process or not.
    """
    # An ordinary user's appbox has one way out of its namespace, where two would get each other's answers.
    if len(loaded) < _MANY or owner.current() is not None or beside.processors() < 2:
        yield lambda _: None
        return
    last = loaded[-round(len(loaded) * _SHARE) :]
    with beside.beside(partial(_settled, work, last, facts)) as result:
        ready: dict[str, Prepared] = {}
        waiting = True

        def settled(one: Loaded) -> Prepared | None:
            nonlocal waiting
            if waiting and one is last[0]:
                waiting = False
                ready.update(result() or {})
            prepared = ready.pop(one.manifest.name, None)
            if prepared is not None:
                work.addresses.joined(prepared.plan.desired)
            return prepared

        yield settled


def _settled(work: _Work, loaded: Sequence[Loaded], facts: Facts) -> dict[str, Prepared]:
    """Return the plans of those services with which nothing is to be done, by name.

    Their ranges, addresses and files are what is written down and on disk, whatever the services before them get.
    """
    found: dict[str, Prepared] = {}
    others = 0
    for one in loaded:
        with contextlib.suppress(AppboxError):
            prepared = _service(work, one, facts)
            if not prepared.plan.actions and not work.images.said(one.manifest.name):
                found[one.manifest.name] = prepared
                continue
        others += 1
        if others == _PATIENCE:
            break
    return {} if work.images.silent else found


def _added(root: Root, service: ServicePlan) -> tuple[str, ...]:
    """Return what should be known of a service that changes: data that it leaves, what somebody added to its units."""
    if not service.actions:
        return ()
    from appbox import drift  # noqa: PLC0415  # most plans change nothing

    return (*_unmounted(service), *drift.notes(root, service.desired.name))


def _unmounted(service: ServicePlan) -> Iterator[str]:
    """Yield a sentence for each volume in the bundle that the service had, and that is none of it any more."""
    mounted = {volume.name for volume in service.desired.volumes if volume.kind == "data"}
    if any(isinstance(action, RenderConfig) for action in service.actions):
        for name in sorted(service.observed.data - mounted):
            yield f"{paths.DATA}/{name} of the bundle is not mounted: what is in it stays there, and goes nowhere else"


def _mended(ledger: ranges.Ledger, addresses: Addresses) -> tuple[str, ...]:
    """Return what is said of state that cannot be used as it is, while there is something to be written to it."""
    found = {f"{paths.STATE}/{paths.RANGES}": ledger.problem, f"{paths.STATE}/{paths.ADDRESSES}": addresses.problem}
    return tuple(f"{path} {why}: it is made anew from the bundles" for path, why in found.items() if why)


def _in_order(neighbours: Neighbours, found: Sequence[Prepared]) -> list[Prepared]:
    """Return the services in the order in which they start, with what starts again because of another's stop."""
    by_name = {one.loaded.manifest.name: one for one in found}
    ordered = [by_name[name] for name in neighbours.order() if name in by_name]
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
    scope: Scope = NOWHERE
    retry: bool = False
    begun: Mapping[str, Entry] = field(default_factory=dict)
    """Services that a killed run was changing."""
    made: dict[str, str] = field(default_factory=dict)
    """Paths of the host that a service of this run makes for a volume, and which one."""
    seen: dict[str, Observed] = field(default_factory=dict)
    """What was looked at before a service's turn came."""


def _ask_registries(work: _Work, loaded: Sequence[Loaded], facts: Facts) -> None:
    """Look up the images of registries side by side. What is wrong with a service is said when its turn comes."""
    wanted = []
    for one in loaded:
        if not isinstance(parse_image(one.manifest.image), RegistryImage):
            continue
        name, directory = one.manifest.name, paths.version_directory(one.manifest.name, one.manifest.version)
        with contextlib.suppress(AppboxError):
            work.seen[name] = observe.observe(work.root, facts.init, name, directory)
            wanted.append((one, resolve.installed_image(one, work.root, work.seen[name].target)))
    work.images.ask_ahead(wanted)


def _service(work: _Work, loaded: Loaded, facts: Facts) -> Prepared:
    name, root = loaded.manifest.name, work.root
    directory = paths.version_directory(name, loaded.manifest.version)
    seen = work.seen.pop(name, None) or observe.observe(root, facts.init, name, directory)
    observed = touched.with_rootfs(root, seen, name, work.scope)
    mapped = container.is_mapped(loaded.manifest)
    ids = _ids(loaded, facts, observed.current)
    target, rootfs = observed.target, None
    attachment = work.addresses.attach(loaded)
    shared = sharing.find(loaded.manifest, loaded.document, work.others)
    locked = resolve.resolve(loaded, work.images, root, target, ids, facts.ranges)
    locked = replace(locked, attachment=attachment, shared=shared)
    refuse_what_the_host_lacks(locked, facts)
    if not locked.kept:
        # Their age says whether the root file system was touched: it is looked at before they get another.
        observed = replace(touched.with_rootfs(root, observed, name, Scope(full=True)), documents=False)
        target = observed.target
    if target is not None and not rebuild_reason(str(locked.image.digest), ids.base, target, ids.size):
        rootfs = observe.installed_rootfs(root, target, desires.wanted_nodes(locked))
    desired = volumes_made_by_others(desires.build(locked, facts, ids.base, rootfs), work.made, facts)
    desired = _once_in_memory(desired, observed)
    observed = observe.interrupted(observed, work.begun.get(name))
    if not plan.is_settled(desired, observed):
        observed = observe.trying(root, facts.init, name, observe.deeper(root, desired, observed))
    new_range = mapped and work.given.get(name) != ids
    observed = work.addresses.observe(desired, observed)
    _refuse_data(locked, desired, observed)
    service = plan.diff(desired, observed, live=facts.live, start=work.start, new_range=new_range)
    if service.actions and not work.retry:
        _refuse_again(root, desired, observed)
    if facts.live and any(isinstance(action, Stop | Start | Restart) for action in service.actions):
        from appbox import drift  # noqa: PLC0415  # most plans change nothing

        drift.refuse_foreign(name)
    for action in service.actions:
        if isinstance(action, MakeVolume):
            work.made.setdefault(action.path, name)
    return Prepared(loaded, locked, service)


def _once_in_memory(desired: Desired, observed: Observed) -> Desired:
    """Return a service whose unchanged files are those that were read: 40 KB of each of maybe a thousand services."""
    before = observed.target.files if observed.target else {}
    there = {path: stored.data for path, stored in before.items()}
    files = (replace(f, data=there[f.path]) if there.get(f.path) == f.data else f for f in desired.files)
    return replace(desired, files=tuple(files))


def _refuse_data(locked: Locked, desired: Desired, observed: Observed) -> None:
    """Refuse a version that must not get the data, or cannot get it in the way that its manifest wants."""
    if wrong := format_problem(desired, observed):
        hint = "give upgrade.migrate, the command that takes it there, or restore a snapshot of that format"
        if not observed.format:
            hint = "give upgrade.migrate, or, if it is in that format, apply data_format with the present version first"
        raise locked.refuse(("upgrade", "data_format"), wrong, hint)
    if desired.upgrade.data == "snapshot" and observed.cloning == "copy":
        what, hint = f"the file system of {paths.CONTAINERS} cannot clone files", 'take "copy", "move" or "auto"'
        problem = locked.document.problem(("upgrade", "data"), what, hint)
        raise HostLacks(what, where=f"{problem.file}:{problem.line}: {problem.key}", hint=hint)


def _refuse_again(root: Root, desired: Desired, observed: Observed) -> None:
    """Refuse to try once more what did not get well, as it is. What is current all the same may be repaired."""
    from appbox.store import failed  # noqa: PLC0415  # most plans change nothing

    found = failed.load(root, desired.name)
    mark = fingerprint(desired) if found else ""
    current = observed.current
    for before in (one for one in found if one.fingerprint == mark):
        if current is not None and (current.generation, current.digest) == (before.generation, before.digest):
            continue
        raise AppboxError(
            f"{desired.version} did not get well on {before.when}, and is not tried again",
            where=desired.name,
            why=before.why,
            hint="change its manifest, or give --retry",
        )


def volumes_made_by_others(desired: Desired, made: Mapping[str, str], facts: Facts) -> Desired:
    """Return a service with those volumes left as they are that another service of this run makes; `made` says which.

    By the time when it is this one's turn the other one runs, and has written to them.
    """
    shared = {v.source: made[v.source] for v in desired.volumes if v.kind == "host" and v.source in made}
    if not shared:
        return desired
    found = tuple(replace(v, make=False, take=False) if v.source in shared else v for v in desired.volumes)
    runtime = facts.abilities.runtime if facts.abilities else None
    foreign = desired.mapped and runtime is not None and not runtime.idmapped_mounts
    choice = f': {desired.name} may do there only what everybody may, unless both have security.userns = "host"'
    said = [
        f"{path} is made for {other}, whose files are there as {other} makes them{choice if foreign else ''}"
        for path, other in shared.items()
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
        place = f"{problem.file}:{problem.line}" if problem.line else problem.file
        raise HostLacks(lack.message, where=": ".join(filter(None, (place, problem.key))), hint=lack.hint)


def _refuse_shared_directories(loaded: Sequence[Loaded]) -> None:
    """Refuse `a` in version `1-2` beside `a-1` in version `2`: both would be in the directory a-1-2."""
    first: dict[str, str] = {}
    for one in loaded:
        directory = paths.version_directory(one.manifest.name, one.manifest.version)
        other = first.setdefault(directory, one.document.file)
        if other != one.document.file:
            message = f"its directory {directory} is that of {other} too"
            raise ManifestError([one.document.problem(("version",), message, "change a name")])


def _refuse_nested_sources(loaded: Sequence[Loaded], neighbours: Neighbours) -> None:
    """Refuse a volume within another volume's source, or within what is appbox's own.

    Who may write to the outer one could put a symlink where the inner one is, and so get at any path of the host.
    """
    wanted = [(one, name, v) for one in loaded for name, v in one.manifest.volumes.items() if v.source]
    if not wanted:
        return
    own = [(path, "appbox's own") for path in (paths.CONTAINERS, paths.STATE, paths.CACHE, paths.RUN)]
    named = {str(v.source): f"volume {name} of {one.manifest.name}" for one, name, v in wanted}
    named = {**_installed_sources(neighbours), **named}
    problems = []
    for one, name, volume in wanted:
        source = str(volume.source)
        inside = [(str(p), named[str(p)]) for p in PurePosixPath(source).parents if str(p) in named]
        if not volume.read_only:
            inside += [(p, whose) for p, whose in own if is_below(source, p) or is_below(p, source)]
        for path, whose in inside[:1]:
            message = f"{source} and {path} ({whose}) lie within one another"
            hint = "whoever writes to the outer one could redirect the inner one; take directories beside each other"
            problems.append(one.document.problem(("volumes", name, "source"), message, hint))
    if problems:
        raise ManifestError(problems)


def _installed_sources(neighbours: Neighbours) -> dict[str, str]:
    """Return the host paths that other installed services have as volumes, and whose they are."""
    found: dict[str, str] = {}
    for name, meta in neighbours.others.items():
        volumes = table(table(meta.get("manifest")).get("volumes"))
        sources = [table(volume).get("source") for volume in volumes.values()]
        found |= {str(source): f"a volume of {name}" for source in sources if source}
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
