"""What must change, as data. Nothing here reads or writes the host.

`apply` may do only what a plan names, so reviewing a plan is reviewing the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from appbox import remembered
from appbox.actions import (
    Action,
    Activate,
    AllocateAddress,
    AllocateRange,
    BringBack,
    CarryData,
    CopyData,
    Enable,
    InstallUnit,
    KeepImage,
    KeepWrites,
    MakeVolume,
    Migrate,
    NoteFormat,
    NoteSource,
    Publish,
    PutAside,
    Reload,
    RemoveUnit,
    RenderConfig,
    Replace,
    Restart,
    RetireVersion,
    RunHook,
    Schedule,
    Start,
    Stop,
    Switch,
    TellPeers,
    Unpack,
)
from appbox.data_plan import (
    carry_origin,
    copy_origin,
    data_holder,
    data_place,
    data_reason,
    format_problem,
    migrating,
    rebuilding,
    replaced_by,
    replaced_path,
    upgrading,
    usable,
    uses_own,
    way,
    writes_origin,
)
from appbox.desired_values import UNKNOWN, Desired
from appbox.differences import (
    changed_files,
    changes_of,
    diff_of,
    needs_restart,
    only_described,
    only_scheduled,
    shown,
    unified,
)
from appbox.errors import AppboxError
from appbox.plan_values import Observed, ServicePlan
from appbox.retention import retired
from appbox.store.installed import GONE, Installed, Stored
from appbox.volumes import VolumeSpec


def diff(desired: Desired, observed: Observed, *, live: bool, start: bool, new_range: bool) -> ServicePlan:
    """Return what turns `observed` into `desired`; no action at all if they agree.

    `live`: the init system of this root runs; `start`: services may be started; `new_range`: the service's range of
    ids is not recorded yet. Raises AppboxError when the change would lose data or take what is not the service's.
    """
    actions = list(_actions(desired, observed, new_range=new_range))
    if any(isinstance(action, Stop) for action in actions) and (not start or not desired.units):
        raise AppboxError(
            "is running, and the change needs it stopped",
            where=desired.name,
            hint=f"run apply without --no-start, or stop it first: appbox stop {desired.name}",
        )
    if any(isinstance(action, Migrate) for action in actions) and not (live and start):
        raise AppboxError(
            "its data has to be migrated by upgrade.migrate, and nothing is to be started",
            where=desired.name,
            hint="apply it on its host, without --no-start",
        )
    if live and start and desired.units:
        actions += _running_actions(desired, observed, actions)
    actions += _last_actions(desired, observed, actions, start=live and start)
    lost = remembered.no_way_back(observed.current)
    noted = (lost,) if lost and any(isinstance(action, RenderConfig) for action in actions) else ()
    return ServicePlan(desired, observed, tuple(actions), (*desired.notes, *noted))


def is_settled(desired: Desired, observed: Observed) -> bool:
    """Return whether the version that is asked for is there and current as it should be: no more need be looked at."""
    target = observed.target
    if target is None or desired.upgrade.format or desired.generation or rebuilding(desired, observed):
        return False
    if observed.begun_at:
        return False
    return not _switching(desired, observed) and not changed_files(desired, target.files)


def _actions(desired: Desired, observed: Observed, *, new_range: bool) -> Iterator[Action]:
    name, directory = desired.name, desired.directory
    current, target = observed.current, observed.target
    _refuse(desired, observed)
    place = data_place(observed, directory)
    if (
        current is not None
        and current.carry
        and (current.carry == current.directory or place != data_holder(observed, directory))
    ):
        yield CarryData(name, "an interrupted run left them there", current.carry, current.directory)
    if observed.writes_origin:
        yield KeepWrites(name, "an interrupted run left it there", observed.writes_origin, directory)
    rebuild = rebuilding(desired, observed)
    if rebuild:
        yield _unpack(desired, rebuild)
    if new_range and desired.mapped:
        # Only now: most of what can go wrong has gone wrong by then, and nothing that stays has the ids yet.
        yield AllocateRange(name, "it has a user namespace of its own", desired.base, desired.size)
    if desired.attachment is not None and observed.new_address:
        network = desired.attachment.network
        why = "it has no address there yet, or another one"
        yield AllocateAddress(name, why, network.name, str(network.subnet), desired.attachment.all)
    yield from _volume_actions(desired, observed)
    switching = _switching(desired, observed)
    generation = _generation(desired, observed, rebuild, switching=switching)
    if generation:
        yield generation
    if rebuild and target is None:
        # Nothing else has its name, so the service need not wait for it.
        yield Publish(name, "it is complete", directory)
    units = list(_unit_actions(desired, observed))
    stopping = list(_stopping(desired, observed, rebuild, switching=switching))
    # What only describes a unit can be written while the service runs, so that nothing waits for it.
    early = [unit for unit in units if isinstance(unit, InstallUnit)] if stopping and only_described(units) else []
    yield from (*stopping[:-1], *early, *stopping[-1:])
    yield from _moving(desired, observed, rebuild, switching=switching)
    yield from (unit for unit in units if unit not in early)
    if desired.source and target is not None and not rebuild and target.source != desired.source:
        yield NoteSource(name, f"it was {target.source or 'not known'}", directory, desired.source)
    if target is not None and not rebuild and not observed.documents:
        yield KeepImage(name, "they are missing, or not what they were", directory)
    for untold in observed.untold:
        yield TellPeers(name, "they find each other by name", untold)


def _refuse(desired: Desired, observed: Observed) -> None:
    _refuse_new_ids(desired, observed)
    if observed.unfinished and not migrating(desired, observed) and not uses_own(desired, observed):
        raise AppboxError(
            "upgrade.migrate of its data has not come to its end",
            where=desired.name,
            hint="apply the manifest that asks for it, or restore a snapshot",
        )
    if problem := format_problem(desired, observed):
        raise AppboxError(
            problem,
            where=desired.name,
            hint=f"restore a snapshot of that format: appbox snapshot --list {desired.name} shows which there are"
            if desired.generation
            else "upgrade.migrate takes it from one to the other",
        )


def _switching(desired: Desired, observed: Observed) -> bool:
    current = observed.current
    return (current.directory if current else "") != desired.directory or (
        current is not None and current.problem == GONE
    )


def _relinking(desired: Desired, observed: Observed) -> bool:
    """Return whether only the link to the current version was lost: its directory, with its data, is the newest."""
    target = observed.target
    if observed.current is not None or target is None or target.problem or desired.generation:
        return False
    return target.generation >= observed.newest and observed.kept in {"", desired.directory}


def _stopping(desired: Desired, observed: Observed, rebuild: str, *, switching: bool) -> Iterator[Action]:
    """Yield what ends the present version: its hooks, then the stop."""
    if not (observed.running or observed.trying):
        return
    if switching and not (_relinking(desired, observed) and observed.running == desired.directory):
        why = "its version changes"
    elif rebuild or desired.replaced:
        why = "its root file system changes"
    elif migrating(desired, observed):
        why = "the format of its data changes"
    else:
        return
    if upgrading(desired, observed) and observed.running:
        for command in desired.upgrade.before:
            yield RunHook(desired.name, "before the upgrade", "before", command)
    yield Stop(desired.name, why)


def _moving(desired: Desired, observed: Observed, rebuild: str, *, switching: bool) -> Iterator[Action]:
    """Yield what gives a version its data and its place."""
    name, directory, target = desired.name, desired.directory, observed.target
    own = desired.replaced or directory
    if observed.own and not uses_own(desired, observed) and data_holder(observed, directory) != own:
        yield PutAside(name, "other data takes its place", own)
    copied = copy_origin(desired, observed)
    early = bool(copied) and (not rebuild or target is None)
    if copied:
        how = way(desired, observed)
        yield CopyData(
            name,
            data_reason(desired, observed),
            copied,
            directory,
            "clone" if how == "clone" else "copy",
            observed.data_size,
        )
    if early:
        # The present version stays the current one until its data has another format.
        yield from _migration(desired, observed)
    if rebuild and target is not None:
        yield Publish(name, "it is complete", directory, replaced_path(target, observed))
        if written := writes_origin(desired, observed):
            yield KeepWrites(name, "the image is the same", written, directory)
    if desired.replaced:
        yield BringBack(name, "it was replaced", directory, desired.replaced, replaced_by(observed))
    if switching:
        previous = observed.current.directory if observed.current else ""
        why = "the manifest names this version" if previous else "no version is current"
        yield Switch(name, "it is gone back to" if desired.generation else why, previous, directory)
    origin = carry_origin(desired, observed)
    if origin:
        empty = not observed.data and not any(volume.kind == "data" for volume in desired.volumes)
        why = "every version has one" if empty else data_reason(desired, observed)
        yield CarryData(name, why, origin, directory, empty)
    if not early:
        yield from _migration(desired, observed)
    if _unnoted(desired, observed):
        yield NoteFormat(name, "upgrade.data_format says so", directory, desired.upgrade.format)


def _migration(desired: Desired, observed: Observed) -> Iterator[Action]:
    if migrating(desired, observed):
        upgrade = desired.upgrade
        why = (
            "upgrade.data_format changes" if observed.format else "upgrade.data_format is named, and its data is older"
        )
        yield Migrate(desired.name, why, desired.directory, upgrade.migrate, observed.format, upgrade.format)


def _unnoted(desired: Desired, observed: Observed) -> bool:
    """Return whether nobody has written down yet what the data is in; a migration does it itself."""
    wanted = desired.upgrade.format
    found = observed.own_format if uses_own(desired, observed) else observed.format
    return bool(wanted) and found != wanted and not migrating(desired, observed) and not desired.generation


def _last_actions(desired: Desired, observed: Observed, actions: list[Action], *, start: bool) -> Iterator[Action]:
    """Yield what comes once the new version runs; a run that was killed may have got it to run and no further."""
    if not (upgrading(desired, observed) or observed.upgraded):
        return
    runs = observed.upgraded and start and bool(observed.running)
    if runs or any(isinstance(action, Start) for action in actions):
        for command in desired.upgrade.after:
            yield RunHook(desired.name, "after the upgrade", "after", command)
    for directory in retired(desired, observed):
        yield RetireVersion(desired.name, f"upgrade.keep is {desired.upgrade.keep}", directory)


def _unit_actions(desired: Desired, observed: Observed) -> Iterator[Action]:
    if not desired.units:
        return
    for unit in desired.units:
        before = observed.units.get(unit.path)
        if before != unit.text:
            what = f"that of generation {desired.generation}" if desired.generation else "what the manifest says"
            why = "there is no unit yet" if before is None else f"the unit is not {what}"
            diff = unified(before or "", unit.text, unit.path)
            yield InstallUnit(desired.name, why, unit.path, before is None, diff)
        elif observed.modes.get(unit.path, unit.mode) != unit.mode:
            yield InstallUnit(desired.name, "its mode or owner is not its own", unit.path, False, "")
    for path in sorted(observed.units.keys() - {unit.path for unit in desired.units}):
        if observed.running and path.endswith(f"/{desired.name}:snapshot.timer"):
            # systemd takes a timer that runs and whose unit is gone for failed.
            yield Schedule(desired.name, "the manifest asks for none", on=False, snapshots=True)
        what = f"generation {desired.generation} has" if desired.generation else "the manifest asks for"
        yield RemoveUnit(desired.name, f"{what} nothing that needs it", path)
    wanted = {desired.link} if desired.enable else set()
    if observed.links != wanted - {None}:
        yield Enable(desired.name, f"service.enable is {str(desired.enable).lower()}", desired.enable)


def _refuse_new_ids(desired: Desired, observed: Observed) -> None:
    """Refuse to change the ids of a service that has data: every file of it would belong to somebody else."""
    known = [version for version in (observed.current, observed.target) if version is not None and version.meta]
    base = known[0].base if known else observed.kept_base
    smaller = bool(known and base) and known[0].size > desired.size
    if base is None or (base == desired.base and not smaller):
        return
    raise AppboxError(
        "security.userns of a service that has data cannot change",
        where=desired.name,
        why=f"its data belongs to the ids from {base} on",
        hint=f"save the data, then appbox remove --purge {desired.name}",
    )


def _unpack(desired: Desired, reason: str) -> Unpack:
    size = sum(layer.size for layer in desired.layers)
    return Unpack(desired.name, reason, desired.directory, desired.reference, desired.digest, len(desired.layers), size)


def _volume_actions(desired: Desired, observed: Observed) -> Iterator[Action]:
    made: set[str] = set()
    for volume in desired.volumes:
        if volume.source not in made and _is_missing(volume, desired, observed):
            made.add(volume.source)
            owner = UNKNOWN if volume.owner is None else f"{volume.owner[0]}:{volume.owner[1]}"
            yield MakeVolume(
                desired.name, volume.reason, volume.name, volume.source, volume.target, owner, volume.seed
            )  # fmt: skip


def _is_missing(volume: VolumeSpec, desired: Desired, observed: Observed) -> bool:
    """Return whether a volume has to be made. One that the service has already may be empty, and stays as it is."""
    if volume.kind == "data":
        return volume.name not in observed.data and not uses_own(desired, observed)
    used = observed.current.sources if observed.current else frozenset()
    return volume.make or (volume.take and volume.source not in used)


def _generation(desired: Desired, observed: Observed, rebuild: str, *, switching: bool) -> Action | None:
    target = None if rebuild else observed.target
    if desired.generation:
        return _activation(desired, target)
    before: Mapping[str, Stored] = target.files if target else {}
    changes = changed_files(desired, before)
    if not changes and (not switching or _is_newest(observed, target) or _relinking(desired, observed)):
        return None
    reason = "the manifest, the image or the file on disk changed" if changes else "its version changes"
    return RenderConfig(
        service=desired.name,
        reason="the version is new" if rebuild else reason,
        directory=desired.directory,
        generation=1 + max(observed.newest, target.generation if target else 0),
        changes=tuple(sorted({shown(path) for path in changes if path != remembered.NAME})) or ("bundle.toml",),
        new=not before,
        diff=diff_of(desired, before, changes),
    )


def _is_newest(observed: Observed, target: Installed | None) -> bool:
    """Return whether a run that was killed has made the version a generation for this very change."""
    current = usable(observed)
    before = current.generation if current else 0
    return target is not None and target.generation >= observed.newest and target.meta.get("previous", 0) == before


def _activation(desired: Desired, target: Installed | None) -> Activate | None:
    if target is not None and target.generation == desired.generation:
        return None
    where = desired.replaced or desired.directory
    return Activate(desired.name, "it is gone back to", where, desired.generation)


def _running_actions(desired: Desired, observed: Observed, actions: list[Action]) -> list[Action]:
    """Return the start or restart that the other actions make necessary."""
    if desired.timed:
        return _timed_actions(desired, observed, actions)
    if observed.armed:
        disarm = Schedule(desired.name, "it is no timed job any more", on=False)
        return [disarm, *_untimed_actions(desired, observed, actions)]
    return _untimed_actions(desired, observed, actions)


def _timed_actions(desired: Desired, observed: Observed, actions: list[Action]) -> list[Action]:
    """Return what starts a job at its times. A run that is under way goes on: the next one has what is new."""
    found: list[Action] = []
    if observed.running and observed.links - {desired.link} and not any(isinstance(a, Stop) for a in actions):
        found.append(Stop(desired.name, "it is a timed job now"))
    changed = any(isinstance(a, InstallUnit) and a.path.endswith(".timer") for a in actions)
    if desired.link is not None and desired.enable and (changed or not observed.armed):
        found.append(Schedule(desired.name, "service.schedule says when", on=True))
    if observed.armed and not desired.enable:
        found.append(Schedule(desired.name, "service.enable is false", on=False))
    return found


def _untimed_actions(desired: Desired, observed: Observed, actions: list[Action]) -> list[Action]:
    if not observed.running:
        if desired.enable:
            return [Start(desired.name, "it is enabled and does not run")]
        return [Start(desired.name, "a run that was killed had stopped it")] if observed.interrupted else []
    if any(isinstance(a, Stop) for a in actions):
        return [Start(desired.name, "it was stopped for the change")]
    changed = [a for a in actions if isinstance(a, RenderConfig | Activate | InstallUnit)]
    units = [a for a in changed if isinstance(a, InstallUnit) and a.diff and not only_scheduled(a)]
    if units or (changed and needs_restart(desired, observed)):
        return [Restart(desired.name, "what it runs with changed")]
    if observed.stale or observed.running != desired.directory:
        return [Restart(desired.name, "it runs with an older configuration")]
    return [*_snapshot_actions(desired, observed, actions), *_replacing_actions(desired, observed)]


def _snapshot_actions(desired: Desired, observed: Observed, actions: list[Action]) -> Iterator[Action]:
    """Yield what has the snapshots of a service that runs on taken at other times; its next start would, too."""
    timer = f"/{desired.name}:snapshot.timer"
    there = any(unit.path.endswith(timer) for unit in desired.units)
    changed = any(isinstance(a, InstallUnit) and a.path.endswith(timer) for a in actions)
    if there and (changed or observed.begun_at):
        yield Schedule(desired.name, "snapshots.schedule says when", on=True, snapshots=True)


def _replacing_actions(desired: Desired, observed: Observed) -> list[Action]:
    """Return how a running service gets files that are replaced while it runs, those included that it still lacks."""
    changed = {path: change for path, change in changes_of(desired, observed).items() if path.startswith("config/")}
    owed = [file for file in desired.files if observed.unseen and file.path.startswith("config/") and not file.restarts]
    paths_ = {*changed, *(file.path for file in owed)}
    mounts = [mount for mount in desired.live if any(mount.holds(path) for path in paths_)]
    if not mounts:
        return [Restart(desired.name, "it runs with an older configuration")] if observed.unseen else []
    why = "it still has those of before" if observed.unseen else "they changed"
    found: list[Action] = [Replace(desired.name, why, tuple(mount.table for mount in mounts))]
    if "reload" in {*changed.values(), *(file.on_change for file in owed)}:
        found.append(Reload(desired.name, "config.*.on_change asks for it"))
    return found
