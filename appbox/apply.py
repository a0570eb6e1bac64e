"""Does what a plan names, in its order, and nothing else. The caller holds the lock.

Everything is prepared beside the running version; only then the service is stopped, switched and started. Each step is
durable before the next begins, and doing the same plan again after a crash at any point ends in the same state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from appbox import data_handlers, image_limits, observe, peers, removal, resolve, running_handlers
from appbox import desired as desires
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
from appbox.data_plan import carry_origin, usable, writes_origin
from appbox.differences import needs_replacing, needs_restart
from appbox.errors import AppboxError, Refused
from appbox.host import services, unit_changes
from appbox.host.facts import IdRange
from appbox.host.start_lock import StartLock
from appbox.layers import Recorders, unpack_image
from appbox.oci.digest import Digest
from appbox.oci.ids import IdMap
from appbox.plan_values import Observed
from appbox.store import addresses, bundle, files, kept_image, paths, ranges, state
from appbox.store.root import Root
from appbox.work import Work

_UNSEEN: Final = (BringBack, CarryData, CopyData, KeepWrites, PutAside, Switch)
"""Actions in the midst of which nobody may start the service."""
_STARTING: Final = (Migrate, Restart, RunHook, Start)
"""Actions that start it, or a command in its place, or have it started from then on."""


def prepare(work: Work) -> None:
    """Unpack a service's image aside, if its plan says so. `run` goes on from there; `abandon` removes it.

    Several services may be prepared at once, each in a thread: nothing that they share is written but the cache.
    """
    for action in work.plan.actions:
        if isinstance(action, Unpack):
            _unpack(work, action)


def abandon(work: Work) -> None:
    """Remove what was made aside for a service whose plan is not carried out."""
    if work.staged:
        with work.root.directory(paths.CONTAINERS) as containers:
            bundle.unstage(containers, work.desired.name)
        work.staged = False


def run(work: Work) -> None:
    """Carry out a service's plan.

    Raises AppboxError when a step fails; what was current before is then still current and complete, unless the error
    says that the service did not start.
    """
    lock = StartLock(work.root, work.desired.name)
    # What is done beside a service that goes on running does not disturb it.
    down = not work.observed.running or any(isinstance(action, Stop) for action in work.plan.actions)
    try:
        own_now(work.root, work.observed)
        for action in work.plan.actions:
            if down and (isinstance(action, _UNSEEN) or (isinstance(action, Publish) and action.replaces)):
                lock.take()
            elif isinstance(action, _STARTING) or (isinstance(action, Schedule) and action.on):
                lock.give_back()
            work.told(action)
            _HANDLERS[type(action)](work, action)
    finally:
        lock.give_back()
        if work.staged:
            with work.root.directory(paths.CONTAINERS) as containers:
                bundle.unstage(containers, work.desired.name)
            _give_back(work)


def own_now(root: Root, observed: Observed) -> None:
    """Take the mark of an unseen copy from what is current: a run that was killed may have switched to it."""
    current = usable(observed)
    if current is not None:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            root.directory(paths.CONTAINERS) as containers,
            files.directory(current.directory, containers) as fd,
        ):
            data_handlers.seen(fd)


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
    if not work.given.range(action.service, IdRange(action.base, action.size)):
        raise AppboxError("its range of user ids was taken meanwhile", where=action.service, hint="run apply again")


def _allocate_address(work: Work, action: Action) -> None:
    assert isinstance(action, AllocateAddress)  # noqa: S101
    attachment = work.desired.attachment
    if attachment is not None and not work.given.address(action.service, attachment):
        raise AppboxError("its address was taken meanwhile", where=action.service, hint="run apply again")


def _tell_peers(work: Work, action: Action) -> None:
    assert isinstance(action, TellPeers)  # noqa: S101
    peers.tell(work.root, action.network)


def _unpack(work: Work, action: Action) -> None:
    if work.staged:
        return  # by `prepare`
    wanted = work.desired
    work.root.make(paths.CONTAINERS)
    with work.containers() as containers:
        work.staged = True
        bundle.stage(containers, wanted.name, base=wanted.base, mapped=wanted.mapped)
    if work.locked is None or work.open_image is None:
        raise AppboxError("has to be unpacked anew", where=wanted.name, hint="apply its manifest")
    locked, image = work.locked, work.locked.image
    with work.open_image() as source, work.bundle() as fd:
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
                check=work.check,
                share=work.share,
            )
            bundle.neutralise(rootfs, wanted.base, recorders.last)
            work.mtree = str(bundle.write_mtree(fd, recorders.last))
            work.rootfs = observe.rootfs_facts(rootfs, wanted.base, desires.wanted_nodes(locked))
        bundle.make_live(fd, next(file.data for file in wanted.files if file.path == "etc/hosts"))
        bundle.keep_image(fd, image.manifest_bytes, image.config_bytes)
        origin = carry_origin(wanted, work.observed)
        if origin:
            bundle.announce_carry(fd, origin)
        else:
            data_handlers.make_data(fd)
    work.desired = desires.build(locked, work.facts, wanted.base, work.rootfs)
    del action


def _look_again(work: Work) -> None:
    """Take as it is a path of the host that another service of this run has made meanwhile, for a volume of both.

    Its files are the other one's: how it is mounted depends on whose they are.
    """
    locked, wanted = work.locked, work.desired
    own = {action.path for action in work.plan.actions if isinstance(action, MakeVolume)}
    if locked is None or work.rootfs is None or not {p for p, there in locked.sources.items() if there is None} - own:
        return
    ids = IdRange(wanted.base, wanted.size)
    found = resolve.host_sources(locked.manifest, work.root, ids, work.facts.ranges)
    work.desired = desires.build(replace(locked, sources=found), work.facts, wanted.base, work.rootfs)


def _render(work: Work, action: Action) -> None:
    assert isinstance(action, RenderConfig)  # noqa: S101
    _look_again(work)
    wanted = work.desired
    if not wanted.complete:
        raise Refused("the root file system is not known", where=wanted.name)  # a plan without Unpack has read it
    target = None if work.staged else work.observed.target
    effective = action.generation
    if target is not None and not needs_restart(wanted, work.observed):
        found = target.meta.get("effective", target.generation)
        effective = found if isinstance(found, int) else effective
    now = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    previous = _previous(work, action)
    lines = [
        f"created = {now.isoformat()}Z",
        f"previous = {previous}",
        f"effective = {effective}",
        f"visible = {_visible(work, action)}",
    ]
    if mtree := work.mtree or (str(target.meta.get("rootfs_mtree", "")) if target is not None else ""):
        lines.append(f'rootfs_mtree = "{Digest.parse(mtree)}"')
    with work.bundle() as fd:
        extra = "\n".join([*lines, ""]).encode()
        bundle.write_generation(fd, action.generation, wanted.files, extra, wanted.base, durable=not work.staged)
        bundle.forget_generations(fd, previous)


def _previous(work: Work, action: RenderConfig) -> int:
    """Return the generation that is current before the new one is, 0 for none."""
    current = usable(work.observed)
    return current.generation if current is not None and current.generation != action.generation else 0


def _activate(work: Work, action: Action) -> None:
    assert isinstance(action, Activate)  # noqa: S101
    with work.containers() as containers, files.directory(action.directory, containers) as fd:
        bundle.activate(fd, action.generation, restarts=needs_restart(work.desired, work.observed))


def _bring_back(work: Work, action: Action) -> None:
    assert isinstance(action, BringBack)  # noqa: S101
    carry = carry_origin(work.desired, work.observed)
    with work.containers() as containers:
        bundle.bring_back(containers, action.origin, action.directory, action.replaces, carry)


def _retire(work: Work, action: Action) -> None:
    assert isinstance(action, RetireVersion)  # noqa: S101
    removal.retire(work.root, action.service, action.directory)


def _visible(work: Work, action: RenderConfig) -> int:
    """Return the generation whose files a running container must see: this one, if it changes any that are replaced."""
    target = None if work.staged else work.observed.target
    if target is None or not target.visible or needs_replacing(work.desired, work.observed):
        return action.generation
    return target.visible


def _publish(work: Work, action: Action) -> None:
    assert isinstance(action, Publish)  # noqa: S101
    origin = writes_origin(work.desired, work.observed)
    with work.bundle() as fd:
        if origin:
            bundle.announce_writes(fd, origin)
    with work.containers() as containers:
        bundle.publish(containers, action.service, action.directory, action.replaces)
    work.staged = False
    if action.replaces:
        with work.bundle() as fd:
            data_handlers.seen(fd)


def _keep_writes(work: Work, action: Action) -> None:
    assert isinstance(action, KeepWrites)  # noqa: S101
    with work.containers() as containers:
        bundle.keep_writes(containers, action.directory)


def _switch(work: Work, action: Action) -> None:
    assert isinstance(action, Switch)  # noqa: S101
    with work.containers() as containers:
        origin = carry_origin(work.desired, work.observed)
        with files.directory(action.directory, containers) as fd:
            # A note of a move that never happened may lie there.
            if not origin:
                files.remove(paths.CARRY, dir_fd=fd)
            else:
                bundle.drop_copy(fd)
                if state.bundle_carry(fd) != origin:
                    bundle.announce_carry(fd, origin)
        bundle.switch(containers, action.service, action.directory)
        with files.directory(action.directory, containers) as fd:
            data_handlers.seen(fd)


def _note_source(work: Work, action: Action) -> None:
    assert isinstance(action, NoteSource)  # noqa: S101
    with work.bundle() as fd:
        files.link(paths.SOURCE, action.path, dir_fd=fd)


def _keep_image(work: Work, action: Action) -> None:
    assert isinstance(action, KeepImage) and work.locked is not None  # noqa: PT018, S101
    with work.bundle() as fd:
        kept_image.write(fd, work.locked.image.manifest_bytes, work.locked.image.config_bytes)
    del action


def _install_unit(work: Work, action: Action) -> None:
    assert isinstance(action, InstallUnit)  # noqa: S101
    unit = next(unit for unit in work.desired.units if unit.path == action.path)
    unit_changes.write(work.root, work.facts.init, unit, work.desired.units[0].text)
    _reload(work)


def _remove_unit(work: Work, action: Action) -> None:
    assert isinstance(action, RemoveUnit)  # noqa: S101
    unit_changes.remove_file(work.root, work.facts.init, action.service, action.path)
    _reload(work)


def _enable(work: Work, action: Action) -> None:
    assert isinstance(action, Enable)  # noqa: S101
    wanted = work.desired.link if action.on else None
    unit_changes.enable(work.root, work.facts.init, action.service, wanted)
    _reload(work)


def _reload(work: Work) -> None:
    """Let the init system read its units again, unless a start is going to do it."""
    if work.facts.live and not any(isinstance(action, Start | Restart) for action in work.plan.actions):
        services.of_kind(work.facts.init).reload()


_HANDLERS: Final[dict[type[Action], Callable[[Work, Action], None]]] = {
    AllocateRange: _allocate,
    AllocateAddress: _allocate_address,
    TellPeers: _tell_peers,
    Unpack: _unpack,
    MakeVolume: data_handlers.make_volume,
    NoteSource: _note_source,
    KeepImage: _keep_image,
    RenderConfig: _render,
    Activate: _activate,
    BringBack: _bring_back,
    RetireVersion: _retire,
    CopyData: data_handlers.copy,
    PutAside: data_handlers.put_aside,
    NoteFormat: data_handlers.note_format,
    Migrate: data_handlers.migrate,
    RunHook: running_handlers.run_hook,
    Publish: _publish,
    KeepWrites: _keep_writes,
    Switch: _switch,
    CarryData: data_handlers.carry,
    InstallUnit: _install_unit,
    RemoveUnit: _remove_unit,
    Enable: _enable,
    Stop: running_handlers.stop,
    Start: running_handlers.start,
    Restart: running_handlers.restart,
    Schedule: running_handlers.schedule,
    Replace: running_handlers.replace,
    Reload: running_handlers.reload_service,
}
