"""Removing a service. Data stays unless it is purged; what stays is said."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from appbox import old_data, ordering, peers, sharing, sizes
from appbox.errors import AppboxError
from appbox.host import runc, services, unit_changes
from appbox.host.facts import IdRange, InitKind
from appbox.host.inside import remove_tree
from appbox.store import (
    addresses,
    bundle,
    elsewhere,
    failed,
    files,
    journal,
    paths,
    ranges,
    snapshots,
    state,
    unitfiles,
)
from appbox.store.installed import GONE
from appbox.store.journal import Entry, Place
from appbox.store.root import Root


def doomed(root: Root, name: str) -> str:
    """Return what of a service `remove --purge` deletes that nothing brings back, in words; "" for nothing."""
    if not root.is_directory(paths.CONTAINERS):
        return ""
    with root.directory(paths.CONTAINERS) as containers:
        data = old_data.of(containers, name, "")
        kept = snapshots.every(containers, name)
    found = []
    if data:
        found.append(f"its data ({_much([one.size for one in data])})")
    if kept:
        many = "1 snapshot" if len(kept) == 1 else f"{len(kept)} snapshots"
        found.append(f"{many} ({_much([one.apparent for one in kept])})")
    return " and ".join(found)


def _much(found: list[int]) -> str:
    """Return the sum of sizes in words; -1 is one that nobody knows."""
    text = sizes.megabytes(sum(size for size in found if size > 0))
    return f"more than {text}" if -1 in found else text


@dataclass(slots=True)
class Removed:
    """What happened, as sentences, for the report."""

    name: str
    sentences: list[str] = field(default_factory=list)


def versions(root: Root, name: str) -> list[str]:
    """Return the version directories of a service below the containers, replaced and removed ones included, sorted."""
    try:
        with root.directory(paths.CONTAINERS) as containers:
            found = {path for path, meta in state.version_directories(containers, name) if meta.get("name") == name}
            current = _broken_current(containers, name)
            nameless = _nameless(root, containers, name)
    except FileNotFoundError:
        return []
    return sorted(found | current | nameless)


def _nameless(root: Root, containers: int, name: str) -> set[str]:
    """Return what is left of a service's versions and does not say whose it is any more, as after a disk went bad.

    What could be of `a` in version `1-2` and of `a-1` in version `2` is of the one with the longer name, if there is
    that one.
    """
    listed = [path for path, meta in state.version_directories(containers, name) if not meta]
    unknown = {path for path in listed if _is_ours(containers, path)}
    if not unknown:
        return set()
    there = {str(meta.get("name")) for _, meta in state.version_directories(containers) if meta}
    others = {*there, *state.names(root), *ranges.load(root)} - {name}
    longer = tuple(f"{other}-" for other in others if other.startswith(f"{name}-"))
    return {path for path in unknown if not path.rpartition("/")[2].startswith(longer)}


def _is_ours(containers: int, path: str) -> bool:
    """Return whether a directory was made by appbox: nobody else puts anything beside replaced versions."""
    with files.directory(path, containers) as bundle:
        return path.startswith(f"{paths.REPLACED}/") or state.looks_like_bundle(bundle)


def _broken_current(containers: int, name: str) -> set[str]:
    """Return the current version's directory if it is one of ours whose bundle.toml is lost: nobody else has it."""
    if not state.is_current_link(name, containers):
        return set()
    target = files.link_target(name, containers) or ""
    try:
        with files.directory(target, containers) as bundle:
            ours = not state.meta_of(bundle) and state.looks_like_bundle(bundle)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {target} if ours else set()


def remove(root: Root, init: InitKind, name: str, *, purge: bool) -> Removed:
    """Stop a service and remove its unit, its links and its versions; with `purge` also its data.

    Raises AppboxError when there is no such service, or when it does not stop.
    """
    done = Removed(name)
    elsewhere.refuse(root, init, name)
    _refuse_shared(root, name)
    ordering.refuse_removal(root, name)
    network = _network(root, name)
    units = unitfiles.read(root, init, name)
    interrupted = _clean(root, name)
    found = versions(root, name)
    linked = name in state.names(root)
    given = purge and (name in ranges.load(root) or _has_snapshots(root, name))
    if not (found or units or linked or interrupted or given):
        journal.remove(root, name)  # a run that was killed had come to the end
        raise AppboxError("is not installed", where=name, hint="appbox status lists what is")
    if root.live:
        _stop(init, name, bool(units), done)
    with _making_room(purge=purge):
        journal.write(root, Entry(name, Place(), Place(), running=False, made=False))
    _remove(root, init, name, linked=linked, found=found, network=network, purge=purge, done=done)
    journal.remove(root, name)
    return done


@contextlib.contextmanager
def _making_room(*, purge: bool) -> Iterator[None]:
    """Let nothing that is only noted keep a full disk from being emptied: the same command finishes it without, too."""
    try:
        yield
    except OSError as error:
        if not purge or error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise


def _remove(
    root: Root,
    init: InitKind,
    name: str,
    *,
    linked: bool,
    found: list[str],
    network: str,
    purge: bool,
    done: Removed,
) -> None:
    """Remove what is there of a service that is down; the next command finishes what is interrupted.

    Raises AppboxError or OSError, with what is left of it to be removed by the next command.
    """
    # A unit for another init system may be left from a time when the host had that one.
    kinds: list[InitKind] = [init, *(k for k in unitfiles.KINDS if k != init and unitfiles.owned(root, k, name))]
    for kind in kinds:
        unit_changes.enable(root, kind, name, None)
        if unit_changes.remove(root, kind, name):
            done.sentences.append("removed its unit")
            if root.live:
                services.of_kind(init).reload()
    if found or linked:
        ids = ranges.load(root).get(name)
        with root.directory(paths.CONTAINERS) as containers:
            if linked:
                with _making_room(purge=purge):
                    _note_last(containers, root, name, found)
                files.remove(name, dir_fd=containers)
            for directory in found:
                _drop(containers, directory, _identity(name, directory, ids), purge=purge, done=done)
    if network:
        peers.tell(root, network)
    if purge:
        _forget(root, name, done)
    elif _has_snapshots(root, name):
        done.sentences.append(f"kept its snapshots in {paths.CONTAINERS}/{snapshots.SNAPSHOTS}/{name}")


def _note_last(containers: int, root: Root, name: str, found: list[str]) -> None:
    """Note which of the volumes that stay are the service's: once it has no current version nothing else says so."""
    current = state.load(root, name)
    if current is None or current.problem == GONE:
        return
    for directory in found:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            files.directory(f"{directory}/{paths.DATA}", containers) as data,
        ):
            if directory != (current.carry or current.directory):
                files.remove(paths.LAST, dir_fd=data)
            elif os.listdir(data):
                files.remove(paths.COPIED, dir_fd=data)
                files.replace(paths.LAST, b"", mode=0o600, dir_fd=data)


def _has_snapshots(root: Root, name: str) -> bool:
    return root.is_directory(f"{paths.CONTAINERS}/{snapshots.SNAPSHOTS}/{name}")


def _refuse_shared(root: Root, name: str) -> None:
    """Refuse to remove a service whose network another one has."""
    modes = {}
    for other in state.names(root):
        installed = state.load(root, other) if other != name else None
        table = installed.meta.get("manifest", {}).get("network", {}) if installed else {}
        modes[other] = str(table.get("mode", "")) if isinstance(table, dict) else ""
    if found := sharing.sharers(name, modes):
        raise AppboxError(
            f"has a network that {', '.join(found)} shares", where=name, hint=f"remove {' and '.join(found)} first"
        )


def _network(root: Root, name: str) -> str:
    """Return the network of the bridge that a service is on, "" for none."""
    installed = state.load(root, name)
    table = installed.meta.get("network") if installed else None
    return str(table.get("network", "")) if isinstance(table, dict) else ""


def _clean(root: Root, name: str) -> bool:
    """Finish what an interrupted run left; return whether that was a version of this service."""
    if not root.is_directory(paths.CONTAINERS):
        return False
    with root.directory(paths.CONTAINERS) as containers:
        return any(entry.startswith(f".{name}-") for entry in bundle.clean(containers))


def _identity(name: str, directory: str, ids: IdRange | None) -> bytes:
    """Return the least that bundle.toml may say; it is written where the real one is lost."""
    version = directory.rpartition("/")[2][len(name) + 1 :]
    range_ = f"uid_base = {ids.base}\nuid_size = {ids.size}\nuserns = true" if ids else "uid_base = 0\nuserns = false"
    return f'name = "{name}"\nversion = "{version}"\n{range_}\n'.encode()


def _stop(init: InitKind, name: str, has_unit: bool, done: Removed) -> None:
    if has_unit and services.of_kind(init).armed(name):
        services.of_kind(init).schedule(name, on=False)
    if has_unit:
        services.of_kind(init).stop(name)
        services.of_kind(init).forget(name)
        done.sentences.append("stopped it")
    if runc.running(name) is not None:
        if not has_unit:
            raise AppboxError(
                "is running without a unit", where=name, hint="end it where it was started, then try again"
            )
        runc.end(name)


def retire(root: Root, name: str, directory: str, *, purge: bool = False) -> str:
    """Remove an old version of a service, but for volumes of its own unless these are purged; return what was done."""
    done = Removed(name)
    ids = ranges.load(root).get(name)
    with root.directory(paths.CONTAINERS) as containers:
        _drop(containers, directory, _identity(name, directory, ids), purge=purge, done=done)
    return done.sentences[0]


def _drop(containers: int, directory: str, identity: bytes, *, purge: bool, done: Removed) -> None:
    """Delete a version directory, or all of it but its volumes."""
    with files.directory(directory, containers) as version:
        keep = not purge and (has_data(version) or state.has_writes(version))
        if keep:
            _keep_only_data(version, identity)
    if keep:
        done.sentences.append(_kept(containers, directory))
        return
    bundle.discard(containers, directory)
    done.sentences.append(f"removed {paths.CONTAINERS}/{directory}")


def _kept(containers: int, directory: str) -> str:
    with files.directory(directory, containers) as version:
        found = [paths.DATA] if has_data(version) else []
        found += [paths.UPPER] if state.has_writes(version) else []
    return f"kept its data in {' and '.join(f'{paths.CONTAINERS}/{directory}/{name}' for name in found)}"


def has_data(version: int) -> bool:
    """Return whether an open version directory has data; a copy that no service has seen is none."""
    try:
        with files.directory(paths.DATA, version) as data:
            return bool(os.listdir(data)) and not files.exists(paths.COPIED, data)
    except FileNotFoundError:
        return False


def _keep_only_data(version: int, identity: bytes) -> None:
    """Leave the volumes, a persistent root's writes and bundle.toml, which says whose they are.

    The file is there before the links go.
    """
    kept = {paths.DATA, "bundle.toml", *([paths.UPPER] if state.has_writes(version) else [])}
    if files.link_target("bundle.toml", version) is not None or not state.meta_of(version):
        path = f"{paths.GENERATIONS}/{state.current_generation(version)}/bundle.toml"
        text = files.read(path, 16 << 20, version) if state.meta_of(version) else identity
        files.replace("bundle.toml", text, mode=0o644, dir_fd=version)
    # The link to the generation comes first, because it sorts so: without it the version counts as removed.
    for entry in sorted(os.listdir(version)):
        if entry not in kept:
            remove_tree(version, entry)
    os.fsync(version)


def _is_numbered(entry: str, log: str) -> bool:
    return entry.startswith(f"{log}.") and entry[len(log) + 1 :].isdecimal()


def _forget(root: Root, name: str, done: Removed) -> None:
    """Delete what a service leaves outside its bundles, and free its range of ids."""
    left = [
        (paths.LOGS, f"{name}.log"),
        (paths.LOGS, f"{name}:hooks.log"),
        (paths.JOBS, name),
        (paths.TIMERS, f"stamp-{name}.timer"),
        (paths.TIMERS, f"stamp-{name}:snapshot.timer"),
        (paths.RUN, name),
    ]
    for folder, leaf in left:
        if root.is_directory(folder):
            with root.directory(folder) as fd:
                # Full log files have a number behind their name.
                numbered = [one for one in os.listdir(fd) if folder == paths.LOGS and _is_numbered(one, leaf)]
                for one in (leaf, *numbered):
                    remove_tree(fd, one)
    if root.is_directory(paths.CONTAINERS):
        with root.directory(paths.CONTAINERS) as containers:
            kept = snapshots.every(containers, name)
            if snapshots.delete_all(containers, name) and kept:
                many = "1 snapshot" if len(kept) == 1 else f"{len(kept)} snapshots"
                done.sentences.append(f"deleted {many} ({_much([one.apparent for one in kept])})")
    record = addresses.load(root)
    if name in record.places:
        addresses.save(root, record.without(name))
    failed.forget(root, name)
    # The range comes last: until everything that has its ids is gone, nobody else may be given it.
    table = ranges.load(root)
    if table.pop(name, None) is not None:
        ranges.save(root, table)
