"""The handlers of actions that make, copy and move a service's data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

from appbox import hooks
from appbox.actions import Action, CarryData, CopyData, MakeVolume, Migrate, NoteFormat, PutAside
from appbox.data_plan import data_holder
from appbox.desired_values import Desired
from appbox.errors import AppboxError
from appbox.hooks import Hook
from appbox.host import cow, trusted
from appbox.host.facts import IdRange
from appbox.host.inside import remove_tree
from appbox.store import bundle, clone, data, files, paths, snapshots
from appbox.volumes import VolumeSpec
from appbox.work import Work

_FORMAT_LIMIT: Final = 65536


def make_data(fd: int) -> None:
    with contextlib.suppress(FileExistsError):
        cow.make_directory(fd, paths.DATA, 0o711)  # the mapped root has to get through


def make_volume(work: Work, action: Action) -> None:
    assert isinstance(action, MakeVolume)  # noqa: S101
    volume = next(v for v in work.desired.volumes if v.name == action.volume)
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(_coming(work))
        rootfs = stack.enter_context(files.directory(paths.ROOTFS, fd))
        seed = data.open_seed(rootfs, volume.target) if volume.seed else None
        if seed is not None:
            stack.callback(os.close, seed)
        parent, name = _volume_place(work, volume, fd, stack)
        elsewhere = volume.kind == "host" or data_holder(work.observed, work.desired.directory)
        making = _making(work.desired, volume, seed)
        data.make(parent, name, making, durable=not work.staged or bool(elsewhere))


def _making(wanted: Desired, volume: VolumeSpec, seed: int | None) -> data.Making:
    uid, gid = volume.owner or (0, 0)
    return data.Making((wanted.base + uid, wanted.base + gid), volume.mode, seed, reachable=volume.kind == "host")


@contextlib.contextmanager
def _coming(work: Work) -> Iterator[int]:
    """Open the version that is worked on, where it still is: a replaced one has its place taken by another image."""
    if not work.desired.replaced:
        with work.bundle() as fd:
            yield fd
        return
    with work.containers() as containers, files.directory(work.desired.replaced, containers) as fd:
        yield fd


def _volume_place(work: Work, volume: VolumeSpec, fd: int, stack: contextlib.ExitStack) -> tuple[int, str]:
    """Return the open directory that a volume is made in, and its name there.

    A new volume of a service whose data is about to move is made where the data still is, to move in one piece.
    """
    if volume.kind == "host":
        service = IdRange(work.desired.base, work.desired.size)
        return stack.enter_context(trusted.parent(work.root.fd, volume.source, service))
    holder = data_holder(work.observed, work.desired.directory)
    if holder:
        containers = stack.enter_context(work.containers())
        fd = stack.enter_context(files.directory(holder, containers))
    make_data(fd)
    return stack.enter_context(files.directory(paths.DATA, fd)), volume.name


def carry(work: Work, action: Action) -> None:
    assert isinstance(action, CarryData)  # noqa: S101
    with work.containers() as containers:
        bundle.carry(containers, action.directory)
        with files.directory(action.directory, containers) as fd:
            make_data(fd)


def copy(work: Work, action: Action) -> None:
    """Give the version that is worked on a copy of another one's volumes, whole and durable, by one rename.

    Until the version is switched to, the copy is marked as one that nobody has seen, and may be made anew.
    """
    assert isinstance(action, CopyData)  # noqa: S101
    with contextlib.ExitStack() as stack:
        containers = stack.enter_context(work.containers())
        source = stack.enter_context(files.directory(f"{action.origin}/{paths.DATA}", containers))
        fd = stack.enter_context(work.bundle())
        _make_way(source, fd)
        how = clone.can(source, fd) if action.how == "clone" else "copy"
        clone.clone(source, fd, paths.DATA, how, clone.Making(progress=work.copying, finish=_mark))


def _mark(copied: int) -> None:
    """Mark a copy, before it gets its name, as one that nobody has seen."""
    files.create(paths.COPIED, b"", mode=0o600, dir_fd=copied)
    os.fsync(copied)


def _make_way(source: int, bundle_fd: int) -> None:
    """Let a copy that a killed run has made be gone on with, and remove an empty directory.

    One that a migration has written to is made anew: what is in a file need not show in its size and times.
    """
    if not files.exists(paths.DATA, bundle_fd):
        return
    with files.directory(paths.DATA, bundle_fd) as fd:
        unseen = files.exists(paths.COPIED, fd)
        formats = [files.read_if_present(paths.FORMAT, _FORMAT_LIMIT, one) for one in (source, fd)]
        touched = files.exists(paths.MIGRATING, fd) or formats[0] != formats[1]
        empty = not os.listdir(fd)
    if unseen and touched:
        bundle.drop_copy(bundle_fd)
    elif unseen:
        temporary = f".{paths.DATA}{files.TEMPORARY}"
        remove_tree(bundle_fd, temporary)
        os.rename(paths.DATA, temporary, src_dir_fd=bundle_fd, dst_dir_fd=bundle_fd)
    elif empty:
        remove_tree(bundle_fd, paths.DATA)
    else:
        raise AppboxError("has data of its own", where=paths.DATA, hint="run the command again")


def seen(bundle_fd: int) -> None:
    """Take the mark from a copy: from now on it is the service's data."""
    with contextlib.suppress(FileNotFoundError), files.directory(paths.DATA, bundle_fd) as fd:
        if files.remove(paths.COPIED, dir_fd=fd):
            os.fsync(fd)


def put_aside(work: Work, action: Action) -> None:
    """Keep the data that a version has of its own as a snapshot."""
    assert isinstance(action, PutAside)  # noqa: S101
    with work.containers() as containers:
        snapshots.put_aside(containers, action.service, action.directory, action.reason)


def note_format(work: Work, action: Action) -> None:
    """Write down what the data is written in."""
    assert isinstance(action, NoteFormat)  # noqa: S101
    with work.containers() as containers:
        _note(containers, action.directory, action.format)


def _note(containers: int, directory: str, format_: str) -> None:
    with contextlib.suppress(FileNotFoundError), files.directory(f"{directory}/{paths.DATA}", containers) as fd:
        files.replace(paths.FORMAT, format_.encode(), mode=0o600, dir_fd=fd)


def migrate(work: Work, action: Action) -> None:
    """Take the data from one format to the next, in a container of the version that it is for.

    While that is under way, and after it was interrupted, no service starts with the data.
    """
    assert isinstance(action, Migrate)  # noqa: S101
    with work.containers() as containers, files.directory(action.directory, containers) as fd:
        with files.directory(paths.DATA, fd) as volumes:
            files.replace(paths.MIGRATING, action.after.encode(), mode=0o600, dir_fd=volumes)
        hook = Hook(action.service, "upgrade.migrate", action.command, work.desired.upgrade.hook_timeout)
        hooks.run_once(work.root, hook, action.directory)
        with files.directory(paths.DATA, fd) as volumes:
            # One step: with the new format noted and the mark still there, nothing would ever take the mark away.
            os.rename(paths.MIGRATING, paths.FORMAT, src_dir_fd=volumes, dst_dir_fd=volumes)
            os.fsync(volumes)
