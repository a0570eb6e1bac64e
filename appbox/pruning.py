"""`--prune`: which installed services are removed because their manifests are gone. It reads, and removes nothing.

A service goes when it came from one of the directories that were given and no manifest describes it any more. One that
came from somewhere else stays, whatever became of its manifest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from appbox import dependencies, displacing
from appbox.actions import RemoveService
from appbox.dependencies import Graph, Needs
from appbox.errors import AppboxError, UsageError
from appbox.plan_values import Removal
from appbox.sources import Loaded
from appbox.store import state
from appbox.store.root import Root


def removals(root: Root, arguments: Sequence[str], loaded: Sequence[Loaded]) -> tuple[Removal, ...]:
    """Return the services whose manifests are gone from the directories among `arguments`.

    `loaded` is what all arguments hold, read without a fault. Each comes after those that require it. Raises
    UsageError without a directory, AppboxError when a service that stays requires one that goes.
    """
    folders = {place for argument in arguments if os.path.isdir(argument) for place in _names(argument)}
    if not folders:
        raise UsageError("--prune needs a directory", hint="name the directory that has all manifests")
    _refuse_unreadable([argument for argument in arguments if os.path.isdir(argument)])
    described = {one.manifest.name for one in loaded}
    gone = {}
    for name in state.names(root):
        installed = state.load(root, name) if name not in described else None
        if installed is not None and installed.source and _names(os.path.dirname(installed.source)) & folders:
            gone[name] = Removal(installed, installed.source, _action(name, installed.directory, installed.source))
    if not gone:
        return ()
    graph = _graph(root, loaded)
    _refuse_required(gone, graph)
    gone = displacing.sorted_out(gone, [one.manifest for one in loaded], graph)
    return tuple(gone[name] for name in reversed(dependencies.order(gone, graph)))


def _refuse_unreadable(folders: Sequence[str]) -> None:
    """Refuse to take a manifest for gone that only cannot be read, like a link that leads nowhere."""
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if name.endswith(".toml") and not name.startswith(".") and not os.path.exists(path):
                hint = "mend it, or delete it to have its service removed"
                raise AppboxError("leads nowhere", where=path, why="nothing is pruned then", hint=hint)


def _names(folder: str) -> set[str]:
    """Return a directory as its user calls it and as the kernel does: either may have been noted."""
    return {os.path.abspath(folder), os.path.realpath(folder)}


def _action(name: str, directory: str, source: str) -> RemoveService:
    return RemoveService(name, f"its manifest {source} is gone", directory)


def _graph(root: Root, loaded: Sequence[Loaded]) -> dict[str, Needs]:
    """Return who needs whom after the run: what is installed, with what the manifests say now."""
    found = {}
    for name in state.names(root):
        installed = state.load(root, name)
        found[name] = dependencies.of_installed(installed.meta) if installed else Needs()
    return {**found, **{one.manifest.name: dependencies.of(one.manifest) for one in loaded}}


def _refuse_required(gone: dict[str, Removal], graph: Graph) -> None:
    for name, removal in gone.items():
        needing = sorted(other for other, needs in graph.items() if name in needs.requires and other not in gone)
        if needing:
            raise AppboxError(
                f"cannot be removed: {' and '.join(needing)} {'requires' if len(needing) == 1 else 'require'} it",
                where=name,
                why=f"its manifest {removal.source} is gone",
                hint=f"put the manifest back, or take {name} out of service.requires of {needing[0]}",
            )
