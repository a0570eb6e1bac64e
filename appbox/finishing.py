"""One service that a killed run was changing: what it was doing is finished, or undone."""

from __future__ import annotations

import contextlib

from appbox import apply as applying
from appbox import hooks, removal, rollback, upgrading
from appbox.actions import Action, RetireVersion
from appbox.errors import AppboxError
from appbox.host import gather, runc, services
from appbox.host.facts import InitKind
from appbox.oci.cache import Cache
from appbox.rollback import Back
from appbox.session import Options, cache_path
from appbox.store import addresses, bundle, files, paths, ranges, state
from appbox.store.journal import Entry, Place
from appbox.store.root import Root


def wake(root: Root, init: InitKind, entry: Entry) -> None:
    """Start the services again that stopped along with one whose change was interrupted."""
    for name in entry.others if root.live else ():
        if name in state.names(root) and runc.running(name) is None:
            with contextlib.suppress(AppboxError):  # it may have a reason of its own to be down
                services.of_kind(init).start(name)


def sweep(root: Root, entry: Entry) -> None:
    """End a command of its upgrade that may still be writing to its data."""
    hooks.sweep(root, entry.service, entry.target.directory)


def one(options: Options, root: Root, entry: Entry) -> str:
    """Finish or undo what a killed run was doing with a service; return what was done, as a sentence."""
    if not entry.target.directory:
        return _removed(options, root, entry.service)
    current = state.load(root, entry.service)
    what = f"{entry.service}: an interrupted change to {entry.target.directory}"
    if current is None or not current.generation:
        _drop(root, entry)
        return f"{what} was undone"
    if Place(current.directory, current.generation) == entry.target:
        return f"{what} was {_finish(options, root, entry)}"
    _settle(options, root, entry, current.generation, start=entry.running)
    _drop(root, entry)
    return f"{what} was undone"


def _finish(options: Options, root: Root, entry: Entry) -> str:
    """Do what a killed run had still to do: start the service, run its hooks, remove old versions; return what became.

    What does not get well is undone, as it would have been then; what has nothing to go back to stays, which is said.
    """
    begun: list[Action] = []
    way: Back | None = None
    try:
        way = _way(options, root, entry, entry.target.generation, start=entry.running or entry.starts)
        applying.run(way.work(root, Cache(cache_path(root)), begun.append))
    except AppboxError as error:
        tried = upgrading.was_tried(begun)
        if not entry.origin.generation or entry.origin == entry.target:
            if not tried:
                raise
            return f"finished, but {error}"
        if begun and isinstance(begun[-1], RetireVersion):
            raise
        if tried and way is not None and not entry.back:
            upgrading.remember(root, way.plan.desired, entry.target.generation, error)
        try:
            _settle(options, root, entry, entry.origin.generation, start=entry.running)
        except AppboxError as second:
            if not tried:
                raise
            return f"finished, but {error}, and there is no way back: {second}"
        return f"undone, since it failed: {error}"
    return "finished"


def _removed(options: Options, root: Root, name: str) -> str:
    """Finish removing a service."""
    if state.load(root, name) is not None or removal.versions(root, name):
        removal.remove(root, init_of(options, root), name, purge=False)
    return f"{name}: an interrupted removal was finished"


def init_of(options: Options, root: Root) -> InitKind:
    """Return the init system that the options mean."""
    return gather.detect_init(root) if options.init == "auto" else gather.known_init(options.init)


def _settle(options: Options, root: Root, entry: Entry, generation: int, *, start: bool) -> None:
    """Bring everything about a service into agreement with one of its generations, the current one or another."""
    way = _way(options, root, entry, generation, start=start)
    applying.run(way.work(root, Cache(cache_path(root)), _quiet))


def _way(options: Options, root: Root, entry: Entry, generation: int, *, start: bool) -> Back:
    return rollback.to_generation(root, init_of(options, root), entry.service, generation, start=start, begun=entry)


def _quiet(action: Action) -> None:
    del action


def drop_copy(root: Root, entry: Entry) -> None:
    """Remove the copy of the data that a killed run was making for a version which is not current."""
    name, directory = entry.service, entry.target.directory
    if not directory or not root.is_directory(paths.CONTAINERS):
        return
    with root.directory(paths.CONTAINERS) as containers:
        if files.exists(directory, containers) and files.link_target(name, containers) != directory:
            with files.directory(directory, containers) as version:
                bundle.drop_copy(version)


def _drop(root: Root, entry: Entry) -> None:
    """Remove the version that a killed run had made and nobody has used, and what was given to it."""
    name, directory = entry.service, entry.target.directory
    if entry.made and directory and root.is_directory(paths.CONTAINERS):
        with root.directory(paths.CONTAINERS) as containers:
            ours = files.exists(directory, containers) and files.link_target(name, containers) != directory
        if ours:
            removal.retire(root, name, directory)
    else:
        drop_copy(root, entry)
    if state.load(root, name) is None and not removal.versions(root, name):
        record = addresses.load(root)
        if name in record.places:
            addresses.save(root, record.without(name))
        table = ranges.load(root)
        if table.pop(name, None) is not None:
            ranges.save(root, table)
