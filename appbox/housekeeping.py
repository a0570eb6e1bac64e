"""`appbox prune`: old versions of services and unused blobs of the cache go. Data stays unless it is purged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from appbox import history, pins, removal, sizes
from appbox.errors import AppboxError, printable
from appbox.history import Generation
from appbox.lock_file import LockFile
from appbox.oci import retaining
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.retaining import Blob
from appbox.recovery import writing
from appbox.retention import surplus
from appbox.session import Options, cache_path, require_root_user
from appbox.status import unknown
from appbox.store import files, paths, snapshots, state
from appbox.store.installed import GONE, Installed
from appbox.store.root import Root
from appbox.store.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Doomed:
    """A version that goes: its directory below the containers. `data`: it has its own; `purge`: that goes, too."""

    service: str
    directory: str
    data: bool
    purge: bool

    @property
    def sentence(self) -> str:
        """What is done, beginning with a verb."""
        kept = "its data, too" if self.purge else "its data stays"
        return f"remove the old version {self.directory}" + (f"; {kept}" if self.data else "")


def prune(options: Options, names: Sequence[str], *, purge: bool, only_plan: bool, wait: float | None) -> None:
    """Remove what is not needed any more, or say what that would be."""
    if not only_plan:
        require_root_user("appbox prune")
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(options.open_root())
        if not only_plan:
            stack.enter_context(writing(options, root, wait=wait))
        doomed = [one for name in names or state.names(root) for one in _of(root, name, purge=purge)]
        cache = Cache(cache_path(root))
        blobs = [] if names else retaining.unused(cache, _roots(root, {one.directory for one in doomed}))
        if not only_plan:
            for one in doomed:
                removal.retire(root, one.service, one.directory, purge=one.purge)
            retaining.forget(cache, blobs)
    options.result(_data(doomed, blobs, done=not only_plan), _text(doomed, blobs, quiet=options.verbosity < 0))


def _of(root: Root, name: str, *, purge: bool) -> list[Doomed]:
    """Return the versions of a service that go."""
    current = state.load(root, name)
    if current is None:
        raise unknown(name)
    if current.problem == GONE:
        return []  # any of the others may have the data that it is made anew with
    found = history.of(root, name)
    with root.directory(paths.CONTAINERS) as containers:
        kept = snapshots.every(containers, name)
        newest = {path: numbers[-1] if numbers else 0 for path, numbers in state.generations(containers, name)}
        stay = _staying(current, found, kept, _locked(current, name))
        gone = surplus(list(newest.items()), stay & set(newest), _keep(current))
        with_data = {path for path in gone if _has_data(containers, path)}
    doomed = [Doomed(name, path, path in with_data, purge) for path in gone]
    # What is left of a version is its data: without --purge there is nothing to do.
    return [one for one in doomed if newest[one.directory] or purge]


def _staying(
    current: Installed, found: Sequence[Generation], kept: Sequence[Snapshot], locked: Sequence[tuple[str, str]]
) -> set[str]:
    """Return the directories of versions that are needed: current, to roll back to, named by a snapshot or the lock."""
    stay = {current.directory, current.carry, *(one.directory for one in found if one.state == "target")}
    named = {(one.version, one.digest) for one in kept}
    for one in found:
        indexes = {digest for version, digest in locked if version == one.version}
        if (one.version, one.digest) in named or indexes & {one.digest, one.index}:
            stay.add(one.directory)
    return stay


def _locked(current: Installed, name: str) -> list[tuple[str, str]]:
    """Return version and digest of what the lock beside a service's manifest names."""
    folder = os.path.dirname(current.source)
    if not folder:
        return []
    try:
        lock: LockFile = pins.read(folder, folder)
    except AppboxError:
        return []
    return [(entry.tag, entry.digest) for entry in lock.of(name)]


def _keep(current: Installed) -> int:
    manifest = current.meta.get("manifest")
    table = manifest.get("upgrade") if isinstance(manifest, dict) else None
    keep = table.get("keep") if isinstance(table, dict) else None
    return keep if isinstance(keep, int) else 2


def _has_data(containers: int, directory: str) -> bool:
    try:
        with files.directory(directory, containers) as version:
            return removal.has_data(version)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _roots(root: Root, gone: set[str]) -> set[Digest]:
    """Return the digests of the images that installed versions were made from, and of those that locks name."""
    found: set[Digest] = set()
    if not root.is_directory(paths.CONTAINERS):
        return found
    texts: set[str] = set()
    with root.directory(paths.CONTAINERS) as containers:
        for directory, meta in state.version_directories(containers):
            image = meta.get("image")
            if directory not in gone and isinstance(image, dict):
                texts |= {str(image.get("digest", "")), str(image.get("index", ""))}
    for name in state.names(root):
        current = state.load(root, name)
        texts |= {digest for _, digest in _locked(current, name)} if current is not None else set()
    for text in texts - {""}:
        with contextlib.suppress(AppboxError):
            found.add(Digest.parse(text))
    return found


def _data(doomed: Sequence[Doomed], blobs: Sequence[Blob], *, done: bool) -> dict[str, Any]:
    return {
        "done": done,
        "versions": [{**asdict(one), "sentence": one.sentence} for one in doomed],
        "blobs": [{"digest": str(blob.digest), "size": blob.size} for blob in blobs],
    }


def _text(doomed: Sequence[Doomed], blobs: Sequence[Blob], *, quiet: bool) -> str:
    if quiet:
        return ""
    lines = [f"{one.service}: {one.sentence}" for one in doomed]
    if blobs:
        many = "blob" if len(blobs) == 1 else "blobs"
        lines.append(f"remove {len(blobs)} unused {many} ({sizes.megabytes(sum(b.size for b in blobs))})")
    left = sorted({one.service for one in doomed if one.data and not one.purge})
    if left:
        lines.append(f"data of old versions of {', '.join(left)} stays; appbox prune --purge removes it")
    return printable("".join(f"{line}\n" for line in lines or ["nothing to remove"]))
