"""Does what a plan names, in its order, and nothing else. The caller holds the lock.

Everything is prepared beside the running version; only then the service is stopped, switched and started. Each step is
durable before the next begins, and doing the same plan again after a crash at any point ends in the same state.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from appbox import desired as desires
from appbox import image_limits, observe, peers
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
from appbox.desired import Desired
from appbox.errors import AppboxError, Refused
from appbox.host import replace_mount, runc, services, trusted
from appbox.host.facts import Facts, IdRange
from appbox.layers import Recorders, unpack_image
from appbox.locked import Locked
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.ids import IdMap
from appbox.oci.source import Progress, Source
from appbox.plan import Observed, ServicePlan, carry_origin, data_holder, needs_replacing, needs_restart, writes_origin
from appbox.store import addresses, bundle, data, files, paths, ranges, seen, state, unitfiles
from appbox.store.root import Root
from appbox.volumes import VolumeSpec


@dataclass(slots=True)
class Work:
    """One service while its plan is carried out. `desired` is completed once the rootfs is there."""

    root: Root
    facts: Facts
    cache: Cache
    locked: Locked
    plan: ServicePlan
    open_image: Callable[[], Source]
    told: Callable[[Action], None]
    progress: Progress | None = None
    desired: Desired = field(init=False)
    staged: bool = False
    mtree: str = ""  # the digest of the rootfs.mtree that was written

    def __post_init__(self) -> None:
        self.desired = self.plan.desired

    @property
    def observed(self) -> Observed:
        """What was on the host when the plan was made."""
        return self.plan.observed


def run(work: Work) -> None:
    """Carry out a service's plan.

    Raises AppboxError when a step fails; what was current before is then still current and complete, unless the error
    says that the service did not start.
    """
    try:
        for action in work.plan.actions:
            work.told(action)
            _HANDLERS[type(action)](work, action)
    finally:
        if work.staged:
            with work.root.directory(paths.CONTAINERS) as containers:
                bundle.clean(containers)
            _give_back(work)


def _give_back(work: Work) -> None:
    """Free the range of a service that was not published, unless something on the host has its ids already."""
    if any(isinstance(action, AllocateAddress) for action in work.plan.actions) and work.observed.current is None:
        addresses.save(work.root, addresses.load(work.root).without(work.desired.name))
    new = any(isinstance(action, AllocateRange) for action in work.plan.actions)
    if new and not any(volume.kind == "host" for volume in work.desired.volumes):
        table = ranges.load(work.root)
        if ranges.recorded(work.root) and table.pop(work.desired.name, None) is not None:
            ranges.save(work.root, table)


def _allocate(work: Work, action: Action) -> None:
    assert isinstance(action, AllocateRange)  # noqa: S101
    table = ranges.load(work.root)
    wanted = IdRange(action.base, action.size)
    if any(found.overlaps(wanted) for name, found in table.items() if name != action.service):
        raise AppboxError("its range of user ids was taken meanwhile", where=action.service, hint="run apply again")
    ranges.save(work.root, {**table, action.service: wanted})


def _allocate_address(work: Work, action: Action) -> None:
    assert isinstance(action, AllocateAddress)  # noqa: S101
    attachment = work.desired.attachment
    record = addresses.load(work.root)
    if attachment is not None:
        if any(place.address == attachment.address for name, place in record.places.items() if name != action.service):
            raise AppboxError("its address was taken meanwhile", where=action.service, hint="run apply again")
        addresses.save(work.root, record.with_(action.service, attachment))


def _tell_peers(work: Work, action: Action) -> None:
    assert isinstance(action, TellPeers)  # noqa: S101
    peers.tell(work.root, action.network)


@contextlib.contextmanager
def _containers(work: Work) -> Iterator[int]:
    with work.root.directory(paths.CONTAINERS) as containers:
        yield containers


@contextlib.contextmanager
def _bundle(work: Work) -> Iterator[int]:
    """Open the version directory that is worked on: the staged one until it is published."""
    name = paths.STAGING if work.staged else work.desired.directory
    with _containers(work) as containers, files.directory(name, containers) as fd:
        yield fd


def _unpack(work: Work, action: Action) -> None:
    wanted = work.desired
    work.root.make(paths.CONTAINERS)
    with _containers(work) as containers:
        work.staged = True
        bundle.stage(containers, base=wanted.base, mapped=wanted.mapped)
    image = work.locked.image
    with work.open_image() as source, _bundle(work) as fd:
        with files.directory(paths.ROOTFS, fd) as rootfs, Recorders(fd) as recorders:
            idmap = IdMap(wanted.base, wanted.size)
            # Publishing syncs the file system.
            unpack_image(
                source,
                image,
                rootfs,
                idmap,
                progress=work.progress,
                durable=False,
                recorder=recorders.new,
                limits=image_limits.load(work.root),
            )
            bundle.neutralise(rootfs, wanted.base, recorders.last)
            work.mtree = str(bundle.write_mtree(fd, recorders.last))
            facts = observe.rootfs_facts(rootfs, wanted.base, desires.wanted_nodes(work.locked))
        bundle.make_live(fd, next(file.data for file in wanted.files if file.path == "etc/hosts"))
        bundle.keep_image(fd, image.manifest_bytes, image.config_bytes)
        origin = carry_origin(wanted, work.observed)
        if origin:
            bundle.announce_carry(fd, origin)
        else:
            _make_data(fd)
    work.desired = desires.build(work.locked, work.facts, wanted.base, facts)
    del action


def _make_data(fd: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(paths.DATA, 0o711, dir_fd=fd)
        os.chmod(paths.DATA, 0o711, dir_fd=fd)  # noqa: S103  # the mapped root has to get through


def _make_volume(work: Work, action: Action) -> None:
    assert isinstance(action, MakeVolume)  # noqa: S101
    volume = next(v for v in work.desired.volumes if v.name == action.volume)
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(_bundle(work))
        rootfs = stack.enter_context(files.directory(paths.ROOTFS, fd))
        seed = data.open_seed(rootfs, volume.target) if volume.seed else None
        if seed is not None:
            stack.callback(os.close, seed)
        parent, name = _volume_place(work, volume, fd, stack)
        data.make(parent, name, _making(work.desired, volume, seed))


def _making(wanted: Desired, volume: VolumeSpec, seed: int | None) -> data.Making:
    uid, gid = volume.owner or (0, 0)
    return data.Making((wanted.base + uid, wanted.base + gid), volume.mode, seed, reachable=volume.kind == "host")


def _volume_place(work: Work, volume: VolumeSpec, fd: int, stack: contextlib.ExitStack) -> tuple[int, str]:
    """Return the open directory that a volume is made in, and its name there.

    A new volume of a service whose data is about to move is made where the data still is, to move in one piece.
    """
    if volume.kind == "host":
        service = IdRange(work.desired.base, work.desired.size)
        return stack.enter_context(trusted.parent(work.root.fd, volume.source, service))
    holder = data_holder(work.observed, work.desired.directory)
    if holder:
        containers = stack.enter_context(_containers(work))
        fd = stack.enter_context(files.directory(holder, containers))
    _make_data(fd)
    return stack.enter_context(files.directory(paths.DATA, fd)), volume.name


def _render(work: Work, action: Action) -> None:
    assert isinstance(action, RenderConfig)  # noqa: S101
    wanted = work.desired
    if not wanted.complete:
        raise Refused("the root file system is not known", where=wanted.name)  # a plan without Unpack has read it
    target = None if work.staged else work.observed.target
    effective = action.generation
    if target is not None and not needs_restart(wanted, work.observed):
        found = target.meta.get("effective", target.generation)
        effective = found if isinstance(found, int) else effective
    now = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    lines = [f"created = {now.isoformat()}Z", f"effective = {effective}", f"visible = {_visible(work, action)}"]
    if mtree := work.mtree or (str(target.meta.get("rootfs_mtree", "")) if target is not None else ""):
        lines.append(f'rootfs_mtree = "{Digest.parse(mtree)}"')
    with _bundle(work) as fd:
        extra = "\n".join([*lines, ""]).encode()
        bundle.write_generation(fd, action.generation, wanted.files, extra, wanted.base)
        bundle.forget_generations(fd)


def _visible(work: Work, action: RenderConfig) -> int:
    """Return the generation whose files a running container must see: this one, if it changes any that are replaced."""
    target = None if work.staged else work.observed.target
    if target is None or not target.visible or needs_replacing(work.desired, work.observed):
        return action.generation
    return target.visible


def _publish(work: Work, action: Action) -> None:
    assert isinstance(action, Publish)  # noqa: S101
    if origin := writes_origin(work.desired, work.observed):
        with _bundle(work) as fd:
            bundle.announce_writes(fd, origin)
    with _containers(work) as containers:
        bundle.publish(containers, action.directory, action.replaces)
    work.staged = False


def _keep_writes(work: Work, action: Action) -> None:
    assert isinstance(action, KeepWrites)  # noqa: S101
    with _containers(work) as containers:
        bundle.keep_writes(containers, action.directory)


def _switch(work: Work, action: Action) -> None:
    assert isinstance(action, Switch)  # noqa: S101
    with _containers(work) as containers:
        origin = carry_origin(work.desired, work.observed)
        with files.directory(action.directory, containers) as fd:
            # A note of a move that never happened may lie there.
            if not origin:
                files.remove(paths.CARRY, dir_fd=fd)
            elif state.bundle_carry(fd) != origin:
                bundle.announce_carry(fd, origin)
        bundle.switch(containers, action.service, action.directory)


def _carry(work: Work, action: Action) -> None:
    assert isinstance(action, CarryData)  # noqa: S101
    with _containers(work) as containers:
        bundle.carry(containers, action.directory)
        with files.directory(action.directory, containers) as fd:
            _make_data(fd)


def _install_unit(work: Work, action: Action) -> None:
    assert isinstance(action, InstallUnit)  # noqa: S101
    unitfiles.write(work.root, next(unit for unit in work.desired.units if unit.path == action.path))
    _reload(work)


def _remove_unit(work: Work, action: Action) -> None:
    assert isinstance(action, RemoveUnit)  # noqa: S101
    unitfiles.remove_file(work.root, action.path)
    _reload(work)


def _enable(work: Work, action: Action) -> None:
    assert isinstance(action, Enable)  # noqa: S101
    wanted = work.desired.link if action.on else None
    unitfiles.enable(work.root, work.facts.init, action.service, wanted)
    _reload(work)


def _reload(work: Work) -> None:
    """Let the init system read its units again, unless a start is going to do it."""
    if work.facts.live and not any(isinstance(action, Start | Restart) for action in work.plan.actions):
        services.of_kind(work.facts.init).reload()


def _stop(work: Work, action: Action) -> None:
    services.of_kind(work.facts.init).stop(action.service)
    if runc.running(action.service) is not None:
        raise AppboxError(
            "is still running",
            where=action.service,
            why="its container was not started by its unit",
            hint="end it first",
        )


def _start(work: Work, action: Action) -> None:
    control = services.of_kind(work.facts.init)
    control.reload()  # a run that was killed may have written the unit and no more
    control.start(action.service)
    services.wait_until_runs(work.facts.init, action.service)


def _schedule(work: Work, action: Action) -> None:
    assert isinstance(action, Schedule)  # noqa: S101
    control = services.of_kind(work.facts.init)
    control.reload()
    control.schedule(action.service, on=action.on)


def _restart(work: Work, action: Action) -> None:
    control = services.of_kind(work.facts.init)
    control.reload()
    control.restart(action.service)
    services.wait_until_runs(work.facts.init, action.service)


def _replace(work: Work, action: Action) -> None:
    assert isinstance(action, Replace)  # noqa: S101
    wanted = [mount for mount in work.desired.live if mount.table in action.files]
    process = runc.process_of(action.service)
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(_bundle(work))
        found = []
        for mount in wanted:
            source = os.open(f"{paths.CURRENT}/{mount.path}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            stack.callback(os.close, source)
            found.append(replace_mount.Replacement(source, mount.target, mount.executable))
        replace_mount.replace(action.service, found)
        if not any(isinstance(one, Reload) for one in work.plan.actions):
            _note_seen(work, process, state.current_generation(fd))


def _reload_service(work: Work, action: Action) -> None:
    process = runc.process_of(action.service)
    if process is None:
        return  # it has ended meanwhile, and begins with the new files
    services.of_kind(work.facts.init).reload_service(action.service)
    with _bundle(work) as fd:
        _note_seen(work, process, state.current_generation(fd))


def _note_seen(work: Work, process: tuple[int, int] | None, generation: int) -> None:
    if process is not None:
        seen.write(work.root, work.desired.name, process, generation)


_HANDLERS: Final[dict[type[Action], Callable[[Work, Action], None]]] = {
    AllocateRange: _allocate,
    AllocateAddress: _allocate_address,
    TellPeers: _tell_peers,
    Unpack: _unpack,
    MakeVolume: _make_volume,
    RenderConfig: _render,
    Publish: _publish,
    KeepWrites: _keep_writes,
    Switch: _switch,
    CarryData: _carry,
    InstallUnit: _install_unit,
    RemoveUnit: _remove_unit,
    Enable: _enable,
    Stop: _stop,
    Start: _start,
    Restart: _restart,
    Schedule: _schedule,
    Replace: _replace,
    Reload: _reload_service,
}
