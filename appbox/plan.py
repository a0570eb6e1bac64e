"""What must change, as data. Nothing here reads or writes the host.

`apply` may do only what a plan names, so reviewing a plan is reviewing the run.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from appbox import live, secrets
from appbox.actions import (
    Action,
    AllocateAddress,
    AllocateRange,
    CarryData,
    Enable,
    InstallUnit,
    KeepWrites,
    MakeVolume,
    Publish,
    Reload,
    RemoveUnit,
    RenderConfig,
    Replace,
    Restart,
    Schedule,
    Start,
    Stop,
    Switch,
    TellPeers,
    Unpack,
)
from appbox.desired import UNKNOWN, Desired, File
from appbox.errors import AppboxError
from appbox.host import ranges
from appbox.store import paths
from appbox.store.installed import GONE, Installed, Stored
from appbox.units.model import Link
from appbox.volumes import VolumeSpec

_DIFF_LINES: Final = 400
"""Lines of a diff that are kept; what follows is counted."""
_ADDED: Final = (b"created = ", b"effective = ", b"visible = ", b"rootfs_mtree = ")
"""Lines of bundle.toml that an apply adds; they stand before its first table."""
_COMMAND: Final = re.compile(
    r"^(\[manifest\.secrets\..*\]\n(?:[^\[\n].*\n)*?command = )(\[(?:\]|\n(?:    .*\n)*\]))\n", re.MULTILINE
)
"""The command of a secret in bundle.toml, as tomli_w writes it."""
_OF_THE_RUN: Final = (*_ADDED, b"appbox = ")
"""The same, and the line that says which appbox did it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A service on the host: `current` is its current version, `target` what is in the desired version's directory.

    `units` are the texts of its files for the init system by path, `links` those that start it at boot. `running` is
    the version directory that the running container was made from ("" when none runs); `stale` means that it was
    started before the configuration that is current now, and `unseen` that it does not see yet, or was not told of,
    files that are replaced while it runs. `data` are the names of the volumes that there are; `kept` is the directory
    of a version that is not current and has the data, `kept_base` the first id of its range. `writes`: the desired
    version's directory has what the service wrote to its root file system; `writes_origin` is the directory from which
    an interrupted run was about to move that there.
    """

    current: Installed | None = None
    target: Installed | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    links: frozenset[Link] = frozenset()
    running: str = ""
    armed: bool = False
    stale: bool = False
    unseen: bool = False
    kept: str = ""
    kept_base: int | None = None
    writes: bool = False
    writes_origin: str = ""
    data: frozenset[str] = frozenset()
    new_address: bool = False
    untold: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """All that will be done for one service, in order; `notes` are what its operator should know."""

    desired: Desired
    observed: Observed
    actions: tuple[Action, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` does: each service after those that it names, otherwise by name; `notes` are about the host."""

    services: tuple[ServicePlan, ...]
    notes: tuple[str, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """Every action of every service, in order."""
        return tuple(action for service in self.services for action in service.actions)


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
    if live and start and desired.units:
        actions += _running_actions(desired, observed, actions)
    return ServicePlan(desired, observed, tuple(actions), desired.notes)


def _actions(desired: Desired, observed: Observed, *, new_range: bool) -> Iterator[Action]:
    name, directory = desired.name, desired.directory
    current, target = observed.current, observed.target
    _refuse_new_ids(desired, observed)
    if current is not None and current.carry and data_place(observed, directory) != data_holder(observed, directory):
        yield CarryData(name, "an interrupted run left them there", current.carry, current.directory)
    if observed.writes_origin:
        yield KeepWrites(name, "an interrupted run left it there", observed.writes_origin, directory)
    rebuild = rebuild_reason(desired.digest, desired.base, target, desired.size)
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
    generation = _generation(desired, None if rebuild else target, rebuild)
    if generation:
        yield generation
    previous = current.directory if current else ""
    switching = previous != directory or (current is not None and current.problem == GONE)
    if (rebuild or switching) and observed.running:
        yield Stop(name, "its version changes" if switching else "its root file system changes")
    if rebuild:
        yield Publish(name, "it is complete", directory, replaced_path(target, observed) if target else "")
        if written := writes_origin(desired, observed):
            yield KeepWrites(name, "the image is the same", written, directory)
    if switching:
        why = "the manifest names this version" if previous else "no version is current"
        yield Switch(name, why, previous, directory)
    origin = carry_origin(desired, observed)
    if origin:
        yield CarryData(name, "data goes with the service", origin, directory)
    yield from _unit_actions(desired, observed)
    for untold in observed.untold:
        yield TellPeers(name, "they find each other by name", untold)


def _unit_actions(desired: Desired, observed: Observed) -> Iterator[Action]:
    if not desired.units:
        return
    for unit in desired.units:
        before = observed.units.get(unit.path)
        if before != unit.text:
            why = "there is no unit yet" if before is None else "the unit is not what the manifest says"
            diff = unified(before or "", unit.text, unit.path)
            yield InstallUnit(desired.name, why, unit.path, before is None, diff)
    for path in sorted(observed.units.keys() - {unit.path for unit in desired.units}):
        yield RemoveUnit(desired.name, "the manifest asks for nothing that needs it", path)
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


def rebuild_reason(digest: str, base: int, target: Installed | None, size: int = ranges.SIZE) -> str:
    """Return why the version's directory has to be made, or made anew; empty when its rootfs is the right one.

    `base` and `size` are the service's range of ids.
    """
    if target is None:
        return "this version is not on the host"
    if target.problem:
        return f"{target.directory} {target.problem}"
    if target.digest != digest:
        return f"the image has another digest now ({digest[:19]}…)"
    same = target.base == base and (not base or target.size == size)
    return "" if same else "its range of user ids changed"


def _unpack(desired: Desired, reason: str) -> Unpack:
    size = sum(layer.size for layer in desired.layers)
    return Unpack(desired.name, reason, desired.directory, desired.reference, desired.digest, len(desired.layers), size)


def replaced_path(target: Installed, observed: Observed) -> str:
    """Return where below the containers a version directory is kept when the same version is built anew.

    It is never where the service's data is waiting to be moved.
    """
    path = f"{paths.REPLACED}/{target.directory}@{target.digest.partition(':')[2][:12] or 'broken'}"
    return f"{path}+" if data_holder(observed, target.directory) == path else path


def writes_origin(desired: Desired, observed: Observed) -> str:
    """Return whence what a service wrote to its root file system moves when that is unpacked anew; "" for nothing.

    Over another image it would hide what is new there, so it stays with the one that it was written over.
    """
    target = observed.target
    there = observed.writes or bool(observed.writes_origin)
    if target is None or not there or (target.digest, target.base) != (desired.digest, desired.base):
        return ""
    return replaced_path(target, observed)


def _volume_actions(desired: Desired, observed: Observed) -> Iterator[Action]:
    made: set[str] = set()
    for volume in desired.volumes:
        if volume.source not in made and _is_missing(volume, observed):
            made.add(volume.source)
            owner = UNKNOWN if volume.owner is None else f"{volume.owner[0]}:{volume.owner[1]}"
            yield MakeVolume(
                desired.name, volume.reason, volume.name, volume.source, volume.target, owner, volume.seed
            )  # fmt: skip


def _is_missing(volume: VolumeSpec, observed: Observed) -> bool:
    """Return whether a volume has to be made. One that the service has already may be empty, and stays as it is."""
    if volume.kind == "data":
        return volume.name not in observed.data
    used = observed.current.sources if observed.current else frozenset()
    return volume.make or (volume.take and volume.source not in used)


def _generation(desired: Desired, target: Installed | None, rebuild: str) -> RenderConfig | None:
    before: Mapping[str, Stored] = target.files if target else {}
    changes = changed_files(desired, before)
    if not changes:
        return None
    number = (target.generation if target else 0) + 1
    shown = sorted({_shown(path) for path in changes})
    reason = "the version is new" if rebuild else "the manifest, the image or the file on disk changed"
    return RenderConfig(
        service=desired.name,
        reason=reason,
        directory=desired.directory,
        generation=number,
        changes=tuple(shown),
        new=not before,
        diff=_diff(desired, before, changes),
    )


def _shown(path: str) -> str:
    """Return how a generation's file is called in a sentence: by its place in the container, if it is for there."""
    return path.removeprefix("config") if path.startswith("config/") else path


def changed_files(desired: Desired, before: Mapping[str, Stored]) -> list[str]:
    """Return the paths of the generation's files that differ in bytes, mode or owner, sorted."""
    after = {file.path: file for file in desired.files}
    return sorted(p for p in {*after, *before} if not _same(after.get(p), before.get(p)))


def _same(file: File | None, stored: Stored | None) -> bool:
    if file is None or stored is None:
        return False
    if file.path == "bundle.toml":
        return desired_meta(file.data) == desired_meta(stored.data)
    return file.data == stored.data and file.mode == stored.mode and file.owner == stored.owner


def desired_meta(text: bytes, without: tuple[bytes, ...] = _OF_THE_RUN) -> bytes:
    """Return bundle.toml without the lines that only the apply could know."""
    head, table, rest = text.partition(b"\n[")
    lines = head.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(without)) + table + rest


def _diff(desired: Desired, before: Mapping[str, Stored], changes: list[str]) -> str:
    after = {file.path: file.data for file in desired.files}
    texts = []
    for path in changes:
        stored, new = before.get(path), after.get(path, b"")
        old = stored.data if stored else b""
        words = _size if path.startswith(f"{secrets.FOLDER}/") and not path.endswith("/list") else _text
        if path == "bundle.toml":
            old, words = desired_meta(old, _ADDED), _without_commands
        texts.append(unified(words(old), words(new), _shown(path)))
    return "".join(texts)


def _size(data: bytes) -> str:
    """Return what may be shown of how a secret is found: commands may hold more than their authors thought of."""
    return f"({len(data)} bytes)\n" if data else ""


def _without_commands(data: bytes) -> str:
    """Return bundle.toml as it may be shown: the same commands stand in it."""
    return _COMMAND.sub(lambda found: f"{found[1]}{_size(found[2].encode())}", _text(data))


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"(binary, {len(data)} bytes)\n"


def unified(old: str, new: str, path: str) -> str:
    """Return a unified diff of a file's old and new text; empty when they are equal."""
    name = posixpath.join("/", path).lstrip("/")
    lines = list(
        difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"a/{name}" if old else "/dev/null", f"b/{name}", lineterm=""
        )
    )
    if len(lines) > _DIFF_LINES:
        lines[_DIFF_LINES:] = [f"… {len(lines) - _DIFF_LINES} more lines"]
    return "".join(f"{line}\n" for line in lines)


def carry_origin(desired: Desired, observed: Observed) -> str:
    """Return the directory whose volumes move to the desired version, relative to the containers; empty for none."""
    target = observed.target
    holder = data_holder(observed, desired.directory)
    if holder != desired.directory:
        return holder
    if target is None or not rebuild_reason(desired.digest, desired.base, target, desired.size):
        return ""
    return replaced_path(target, observed)


def data_holder(observed: Observed, directory: str) -> str:
    """Return the directory in which the service's volumes are before the change; empty when it has none yet.

    `directory` is that of the desired version. What another version still waits for has come to it by then.
    """
    current = observed.current
    if current is not None and current.problem != GONE:
        return (current.carry if current.directory == directory else "") or current.directory
    return observed.kept or (directory if observed.target is not None else "")


def data_place(observed: Observed, directory: str) -> str:
    """Return the directory in which the service's volumes are now; empty when it has none yet."""
    current = observed.current
    if current is not None and current.problem != GONE and current.carry:
        return current.carry
    return data_holder(observed, directory)


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
        return []
    if any(isinstance(a, Stop) for a in actions):
        return [Start(desired.name, "it was stopped for the change")]
    changed = [a for a in actions if isinstance(a, RenderConfig | InstallUnit)]
    if any(isinstance(a, InstallUnit) or needs_restart(desired, observed) for a in changed):
        return [Restart(desired.name, "what it runs with changed")]
    if observed.stale or observed.running != desired.directory:
        return [Restart(desired.name, "it runs with an older configuration")]
    return _replacing_actions(desired, observed)


def _replacing_actions(desired: Desired, observed: Observed) -> list[Action]:
    """Return how a running service gets files that are replaced while it runs, those included that it still lacks."""
    changed = {path: change for path, change in _changes(desired, observed).items() if path.startswith("config/")}
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


def needs_restart(desired: Desired, observed: Observed) -> bool:
    """Return whether a new generation changes anything that a running service would have to be restarted for."""
    return "restart" in _changes(desired, observed).values()


def needs_replacing(desired: Desired, observed: Observed) -> bool:
    """Return whether a new generation changes files that are replaced in a running container."""
    changes = _changes(desired, observed)
    return any(path.startswith("config/") and change != "restart" for path, change in changes.items())


def _changes(desired: Desired, observed: Observed) -> dict[str, live.OnChange]:
    """Return what each changed file of a new generation asks of a running service."""
    before = observed.target.files if observed.target else {}
    after = {file.path: file for file in desired.files}
    changed = [path for path in changed_files(desired, before) if path != "bundle.toml"]
    return {path: live.change_of(path, after, desired.live) for path in changed}
