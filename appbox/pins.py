"""Manifests held against the lock beside them: which tag and digest each version means. Reads appbox.lock.

The manifest's own digest decides over the lock's. A tag without an entry in the lock, or whose entry is for something
else, is asked of its registry, unless only what is locked may be used; a constraint always needs its entry.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from appbox import lock_file
from appbox.constraints import is_constraint
from appbox.document import Document
from appbox.errors import AppboxError, ManifestError, Problem
from appbox.lock_file import Entry, LockFile
from appbox.manifest import Manifest
from appbox.oci.reference import RegistryImage, parse_image
from appbox.store import files


@dataclass(frozen=True, slots=True)
class Pinned:
    """A manifest whose version is a tag. `entry` is what the lock says of it, None when that is not used.

    `note` is what somebody should know about the lock.
    """

    manifest: Manifest
    entry: Entry | None = None
    note: str = ""


def read(folder: str, shown: str = "") -> LockFile:
    """Return the lock of a directory of manifests, an empty one when there is none; `shown` is the directory's name.

    Raises ManifestError for what is wrong inside, AppboxError when it cannot be read.
    """
    file = os.path.join(shown, lock_file.NAME)
    try:
        data = files.read_if_present(os.path.join(folder, lock_file.NAME), lock_file.SIZE_LIMIT)
    except OSError as error:
        why = "it is a symlink" if os.path.islink(os.path.join(folder, lock_file.NAME)) else error.strerror
        raise AppboxError("cannot be read", where=file, why=why or str(error)) from error
    if data is None:
        return LockFile(file)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError([Problem(file, line, "", "is not UTF-8", "take it back from git")]) from None
    return lock_file.parse(text, file)


def pin(manifest: Manifest, document: Document, lock: LockFile, *, strict: bool) -> Pinned:
    """Return a manifest with the tag that its version means.

    With `strict` everything that a registry would have to be asked for must be locked. Raises ManifestError where the
    lock would have to say something and does not.
    """
    if not manifest.image:
        return Pinned(manifest)
    entry = lock.answer(manifest.name, manifest.image, manifest.version)
    if entry is not None and manifest.digest in (None, entry.digest):
        return Pinned(manifest.model_copy(update={"version": entry.tag}), entry)
    others = lock.of(manifest.name)
    if is_constraint(manifest.version) or (strict and manifest.digest is None and _from_registry(manifest)):
        raise _unlocked(manifest, document, lock, others)
    if not others or entry is not None:
        return Pinned(manifest)
    return Pinned(
        manifest, note=f"{lock.file} is for {_listed(others)} and is not used; appbox lock brings it up to date"
    )


def _from_registry(manifest: Manifest) -> bool:
    return isinstance(parse_image(manifest.image), RegistryImage)


def _unlocked(manifest: Manifest, document: Document, lock: LockFile, others: list[Entry]) -> ManifestError:
    has = f"{lock.file} is for {_listed(others)}" if others else f"{lock.file} does not have it"
    message = f"{manifest.image} {manifest.version} is not locked: {has}"
    return ManifestError([document.problem(("version",), message, f"run appbox lock {document.file}")])


def _listed(entries: list[Entry]) -> str:
    return ", ".join(f"{entry.image} {entry.version} ({entry.tag})" for entry in entries)
