"""Removing a service. Data stays unless it is purged; what stays is said."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from appbox.errors import AppboxError
from appbox.host import process, runc, services
from appbox.host.facts import InitKind
from appbox.host.inside import remove_tree
from appbox.store import files, paths, ranges, state, unitfiles
from appbox.store.root import Root


@dataclass(slots=True)
class Removed:
    """What happened, as sentences, for the report."""

    name: str
    sentences: list[str] = field(default_factory=list)


def versions(root: Root, name: str) -> list[str]:
    """Return the version directories of a service below the containers, replaced and removed ones included, sorted."""
    found: list[str] = []
    try:
        with root.directory(paths.CONTAINERS) as containers:
            found += _versions_in(containers, name, "")
            if files.exists(paths.REPLACED, containers):
                with files.directory(paths.REPLACED, containers) as replaced:
                    found += _versions_in(replaced, name, f"{paths.REPLACED}/")
    except FileNotFoundError:
        return []
    return sorted(found)


def _versions_in(folder: int, name: str, prefix: str) -> list[str]:
    found = []
    for entry in os.listdir(folder):
        if not entry.startswith(f"{name}-") or files.link_target(entry, folder) is not None:
            continue
        try:
            with files.directory(entry, folder) as bundle:
                mine = state.service_of(bundle) == name
        except NotADirectoryError:
            continue
        if mine:
            found.append(f"{prefix}{entry}")
    return found


def remove(root: Root, init: InitKind, name: str, *, purge: bool) -> Removed:
    """Stop a service and remove its unit, its links and its versions; with `purge` also its data.

    Raises AppboxError when there is no such service, or when it does not stop.
    """
    done = Removed(name)
    found = versions(root, name)
    unit = unitfiles.read(root, init, name)
    linked = name in state.names(root)
    if not found and unit is None and not linked:
        raise AppboxError("is not installed", where=name, hint="appbox status lists what is")
    if root.live:
        _stop(init, name, unit, done)
    unitfiles.enable(root, init, name, on=False)
    if unitfiles.remove(root, init, name):
        done.sentences.append("removed its unit")
        if root.live:
            services.of_kind(init).reload()
    with root.directory(paths.CONTAINERS) as containers:
        if linked:
            files.remove(name, dir_fd=containers)
        for directory in found:
            _drop(containers, directory, purge=purge, done=done)
    if purge:
        _forget(root, name)
    return done


def _stop(init: InitKind, name: str, unit: str | None, done: Removed) -> None:
    if unit is not None:
        services.of_kind(init).stop(name)
        done.sentences.append("stopped it")
    if runc.running(name) is not None:
        if unit is None:
            raise AppboxError(
                "is running without a unit", where=name, hint="end it where it was started, then try again"
            )
        result = process.run([process.need("runc", "the service runs"), "delete", "--force", name])
        if result.code != 0:
            raise AppboxError("cannot be stopped", where=name, why=result.message)


def _drop(containers: int, directory: str, *, purge: bool, done: Removed) -> None:
    """Delete a version directory, or all of it but its volumes."""
    folder, _, leaf = directory.rpartition("/")
    with files.directory(folder or ".", containers) as parent:
        with files.directory(leaf, parent) as bundle:
            keep = not purge and _has_data(bundle)
            if keep:
                _keep_only_data(bundle)
        if keep:
            done.sentences.append(f"kept its data in {paths.CONTAINERS}/{directory}/{paths.DATA}")
            return
        remove_tree(parent, leaf)
        os.fsync(parent)
        done.sentences.append(f"removed {paths.CONTAINERS}/{directory}")


def _has_data(bundle: int) -> bool:
    try:
        with files.directory(paths.DATA, bundle) as data:
            return bool(os.listdir(data))
    except FileNotFoundError:
        return False


def _keep_only_data(bundle: int) -> None:
    """Leave the volumes and bundle.toml, which says whose they are; the file is there before the links go."""
    generation = state.current_generation(bundle)
    if generation:
        path = f"{paths.GENERATIONS}/{generation}/bundle.toml"
        files.replace("bundle.toml", files.read(path, 16 << 20, bundle), mode=0o644, dir_fd=bundle)
    for entry in sorted(os.listdir(bundle)):
        if entry not in {paths.DATA, "bundle.toml"}:
            remove_tree(bundle, entry)
    os.fsync(bundle)


def _forget(root: Root, name: str) -> None:
    """Free the range of ids and delete what a service leaves outside its bundles."""
    table = ranges.load(root)
    if table.pop(name, None) is not None:
        ranges.save(root, table)
    for folder, leaf in ((paths.LOGS, f"{name}.log"), (paths.RUN, name)):
        if root.is_directory(folder):
            with root.directory(folder) as fd:
                remove_tree(fd, leaf)
