"""`appbox prune`: old versions of services and unused blobs of the cache go. Data stays unless it is purged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from appbox import history, old_data, pins, removal, sizes
from appbox.errors import AppboxError, printable
from appbox.history import Generation
from appbox.lock_file import LockFile
from appbox.oci import retaining
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.retaining import Blob
from appbox.old_data import OldData
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
    """A version that goes: its directory below the containers. `data`: what it has of its own; `purge`: that, too."""

    service: str
    directory: str
    data: OldData | None
    purge: bool

    @property
    def stays(self) -> bool:
        """Whether nothing goes: only data is left of it, which is to stay."""
        return self.data is not None and self.data.only and not self.purge

    def sentence(self, now: datetime) -> str:
        """Return what is done, beginning with a verb."""
        if self.data is None:
            return f"remove the old version {self.directory}"
        much = self.data.words(now)
        if self.data.only:
            return f"delete the data of the old version {self.directory} ({much})"
        return f"remove the old version {self.directory}; its data{', too' if self.purge else ' stays'} ({much})"

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """Return it as JSON data."""
        has = {"data": self.data is not None, "size": self.data.size if self.data else 0}
        written = {"written": self.data.written if self.data else ""}
        return {"service": self.service, "directory": self.directory, **has, "purge": self.purge, **written} | {
            "sentence": self.sentence(now)
        }


def prune(
    options: Options,
    names: Sequence[str],
    *,
    purge: bool,
    only_plan: bool,
    wait: float | None,
    ask: Callable[[str], bool] | None = None,
) -> None:
    """Remove what is not needed any more, or say what that would be; data only if `ask` agrees."""
    if not only_plan:
        require_root_user("appbox prune")
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(options.open_root())
        if not only_plan:
            stack.enter_context(writing(options, root, wait=wait))
        found = [one for name in names or state.names(root) for one in _of(root, name, purge=purge)]
        doomed = [one for one in found if not one.stays]
        left = [one.data for one in found if one.data is not None and not one.purge]
        if purge and not only_plan and ask is not None:
            _ask([one.data for one in doomed if one.data is not None], ask)
        cache = Cache(cache_path(root))
        blobs = [] if names else retaining.unused(cache, _roots(root, {one.directory for one in doomed}))
        if not only_plan:
            for one in doomed:
                removal.retire(root, one.service, one.directory, purge=one.purge)
            retaining.forget(cache, blobs)
    now = datetime.now(UTC)
    text = "" if options.verbosity < 0 else _text(doomed, left, blobs, now)
    options.result(_data(doomed, left, blobs, now, done=not only_plan), text)


def _ask(data: list[OldData], ask: Callable[[str], bool]) -> None:
    """Raise AppboxError when somebody who can be asked does not want data of old versions to be deleted."""
    listed = ", ".join(f"{one.directory} ({one.words(datetime.now(UTC))})" for one in data)
    if data and not ask(printable(f"Delete the data of {listed} for good?")):
        raise AppboxError("was not gone on with, and nothing was removed", hint="--yes asks nothing")


def _of(root: Root, name: str, *, purge: bool) -> list[Doomed]:
    """Return the versions of a service that go."""
    current = state.load(root, name)
    if current is None:
        raise unknown(root, name)
    if current.problem == GONE:
        return []  # any of the others may have the data that it is made anew with
    found = history.of(root, name)
    with root.directory(paths.CONTAINERS) as containers:
        kept = snapshots.every(containers, name)
        newest = {path: numbers[-1] if numbers else 0 for path, numbers in state.generations(containers, name)}
        stay = _staying(current, found, kept, _locked(current, name))
        gone = surplus(list(newest.items()), stay & set(newest), _keep(current))
        data = {one.directory: one for one in old_data.of(containers, name, current.directory)}
        # What a persistent root file system was written to is data, too; of what is left without any nobody has use.
        written = {path for path in gone if not newest[path] and path not in data and _has_writes(containers, path)}
    doomed = [Doomed(name, path, data.get(path), purge) for path in gone]
    return [one for one in doomed if purge or one.directory not in written]


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


def _has_writes(containers: int, directory: str) -> bool:
    with files.directory(directory, containers) as version:
        return state.has_writes(version)


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


def _data(
    doomed: Sequence[Doomed], left: Sequence[OldData], blobs: Sequence[Blob], now: datetime, *, done: bool
) -> dict[str, Any]:
    return {
        "done": done,
        "versions": [one.as_dict(now) for one in doomed],
        "data": [one.as_dict() for one in left],
        "blobs": [{"digest": str(blob.digest), "size": blob.size} for blob in blobs],
    }


def _text(doomed: Sequence[Doomed], left: Sequence[OldData], blobs: Sequence[Blob], now: datetime) -> str:
    lines = [f"{one.service}: {one.sentence(now)}" for one in doomed]
    if blobs:
        many = "blob" if len(blobs) == 1 else "blobs"
        lines.append(f"remove {len(blobs)} unused {many} ({sizes.megabytes(sum(b.size for b in blobs))})")
    lines = lines or ["nothing to remove"]
    lines += [f"{one.service}: the data of {one.directory} stays ({one.words(now)})" for one in left if one.only]
    if left:
        services = ", ".join(sorted({one.service for one in left}))
        lines.append(f"data of old versions of {services} stays; appbox prune --purge removes it")
    return printable("".join(f"{line}\n" for line in lines))
