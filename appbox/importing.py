"""`appbox import`: services from another host, made ready to be applied without any registry.

Nothing is written before the whole file was verified and nothing stands in its way. Then blobs go into the cache, data
to where `apply` finds that of a service which was removed, and manifests with their files and lock into a directory,
each whole or not at all; the same command again finishes what was interrupted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from appbox import container, export_file, export_index, image_limits, lock_file
from appbox.errors import AppboxError, Refused, UsageError, printable
from appbox.export_file import ExportFile, Verified
from appbox.export_index import Exported
from appbox.host import gather
from appbox.host import ranges as id_ranges
from appbox.host.facts import Facts, IdRange
from appbox.lock_file import LockFile
from appbox.oci import evidence
from appbox.oci.cache import Cache
from appbox.oci.destination import open_destination
from appbox.oci.digest import Digest
from appbox.oci.model import Descriptor, parse_manifest
from appbox.oci.platform import Platform
from appbox.oci.reference import ImageRef, OciLayout, RegistryImage, parse_image
from appbox.oci.source import Document
from appbox.portable import IMAGES
from appbox.recovery import writing
from appbox.session import Options, cache_path, require_root_user
from appbox.store import files, imported_data, ranges
from appbox.store.root import Root

_HINT: Final = "import it elsewhere with -d DIR, or replace what is there with --force"


@dataclass(frozen=True, slots=True)
class Request:
    """What to import and how: `folder` is where manifests go; `force`: replace files there that differ.

    `apply`: the manifests are applied next.
    """

    file: str
    folder: str
    force: bool = False
    data: bool = True
    apply: bool = False
    wait: float | None = 0.0


@dataclass(slots=True)
class Imported:
    """What was done: manifests by service, the services that were given data, and sentences about the rest."""

    manifests: dict[str, str] = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run(options: Options, asked: Request) -> Imported:
    """Import a file and return what was done.

    Raises Refused for a file that is not what it should be, AppboxError when it would replace what is there; nothing
    has changed then.
    """
    require_root_user("appbox import")
    if not asked.folder:
        raise UsageError("the directory has no name", where="-d", hint="name a directory")
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(options.open_root())
        stack.enter_context(writing(options, root, wait=asked.wait))
        cache = Cache(cache_path(root))
        limits = image_limits.load(root)
        opened = stack.enter_context(export_file.opened(asked.file, cache.path, limits))
        found = opened.verify()
        work = _Work(root, cache, opened, found, asked)
        work.refuse_conflicts()
        return work.run(gather.gather(root, options.init, ranges.load(root)))


@dataclass(slots=True)
class _Work:
    root: Root
    cache: Cache
    opened: ExportFile
    found: Verified
    asked: Request
    done: Imported = field(default_factory=Imported)

    @property
    def folder(self) -> str:
        return os.path.abspath(self.asked.folder)

    def refuse_conflicts(self) -> None:
        """Raise AppboxError when files that differ, or data of a service, are there already."""
        if not self.asked.force:
            for path, data, _ in self._files():
                there = _present(os.path.join(self.folder, path))
                if there is not None and there != data:
                    what = "is there already, and says something else"
                    raise AppboxError(what, where=os.path.join(self.asked.folder, path), hint=_HINT)
            self._merged_lock()
        for one in self._with_data():
            imported_data.refuse(self.root, one.name, one.version, self._sha256(one))

    def run(self, facts: Facts) -> Imported:
        """Write everything, what others refer to first."""
        self._blobs()
        self._layouts()
        for one in self._with_data():
            self._data(one, facts.taken)
        self._write_files()
        for one in self.found.index.services:
            self._say(one, facts)
        return self.done

    def _with_data(self) -> list[Exported]:
        return [one for one in self.found.index.services if one.data and self.asked.data]

    def _sha256(self, one: Exported) -> str:
        entry = self.found.index.entry(one.archive)
        return entry.sha256 if entry else ""

    def _blobs(self) -> None:
        """Put the blobs of registries' images into the cache, and list the images there."""
        wanted: set[Digest] = set()
        for one in self.found.index.services:
            if isinstance(parse_image(one.image), RegistryImage):
                _, blobs = self._image(one)
                wanted |= {Digest.parse(text) for text in (one.digest, one.index) if text}
                wanted |= {blob.digest for blob in blobs}
        for entry in self.found.index.members:
            if entry.blob is not None and entry.blob in wanted:
                if self.cache.has(entry.blob) and self.cache.sound(Descriptor("", entry.blob, entry.size)):
                    continue
                with self.cache.writer(entry.blob, entry.size) as blob:
                    for data in self.opened.blocks(entry) if not blob.complete else ():
                        blob.write(data)
                    if not blob.complete:
                        blob.commit()
            elif entry.signed is not None:
                evidence.restore(self.cache, entry.signed, self.found.small[entry.name])
        self.cache.settle()

    def _image(self, one: Exported) -> tuple[Document, list[Descriptor]]:
        """Return the manifest of a service's image, and what it refers to."""
        data = self.opened.read(self._entry_of(Digest.parse(one.digest)))
        manifest = parse_manifest(data)
        blobs = list({blob.digest: blob for blob in (manifest.config, *manifest.layers)}.values())
        return Document(Digest.parse(one.digest), data, manifest.media_type), blobs

    def _entry_of(self, digest: Digest) -> export_index.Entry:
        entry = self.found.index.entry(f"{export_index.BLOBS}{digest.algorithm}/{digest.hex}")
        if entry is None:
            raise Refused("the export lacks a blob", where=str(digest))
        return entry

    def _layouts(self) -> None:
        """Put the images that came from no registry into a layout beside their manifests."""
        for one in self.found.index.services:
            image = parse_image(one.image)
            if not isinstance(image, OciLayout):
                continue
            document, blobs = self._image(one)
            place = ImageRef(OciLayout(os.path.join(self.folder, IMAGES), image.ref), None, None)
            with open_destination(place) as destination:
                for blob in blobs:
                    if not destination.has(blob):
                        name = self._entry_of(blob.digest).name
                        destination.write(blob, lambda name=name: self.opened.open(name), lambda _: None)  # type: ignore[misc]
                destination.commit(document)

    def _data(self, one: Exported, taken: Sequence[IdRange]) -> None:
        mapped = container.is_mapped(self.found.manifests[one.name])
        before = ranges.load(self.root)
        ids = self._ids(one, before, taken)
        if mapped and before.get(one.name) != ids:
            ranges.save(self.root, {**before, one.name: ids})
        entry = self.found.index.entry(one.archive)
        assert entry is not None  # noqa: S101
        place = imported_data.Place(one.name, one.version, ids, mapped=mapped)
        try:
            if imported_data.publish(self.root, place, entry.sha256, one.format, lambda: self.opened.blocks(entry)):
                self.done.data.append(one.name)
        except BaseException:
            if mapped and one.name not in before:
                ranges.save(self.root, before)
            raise

    def _ids(self, one: Exported, given: Mapping[str, IdRange], taken: Sequence[IdRange]) -> IdRange:
        """Return the ids that a service is going to have on this host."""
        manifest = self.found.manifests[one.name]
        if not container.is_mapped(manifest):
            return IdRange(0, container.id_count(manifest))
        ids = container.fixed_ids(manifest) or id_ranges.allocate(one.name, given, taken)
        if holder := id_ranges.holder(one.name, ids, given, []):
            raise AppboxError(f"has the ids of {holder}", where=one.name, hint="change security.userns")
        return ids

    def _files(self) -> Iterator[tuple[str, bytes, int]]:
        """Yield the manifests and their files by their paths in the directory, the lock left out."""
        for entry in self.found.index.members:
            if entry.name.startswith(export_index.SERVICES):
                path = entry.name.removeprefix(export_index.SERVICES)
                yield path, self.found.small[entry.name], entry.mode & 0o755 | 0o600

    def _merged_lock(self) -> LockFile:
        """Return the lock of the directory with the services of the export in it."""
        path = os.path.join(self.folder, export_index.LOCK)
        there = _present(path)
        # No registry need be asked about what comes along: there may be none.
        ours = {e.name: replace(e, offline=_from_registry(e.image)) for e in self.found.lock.entries}
        if there is None:
            return lock_file.lock_file(path, ours.values())
        before = lock_file.parse(there.decode("utf-8", "replace"), path)
        for entry in before.entries:
            mine = ours.get(entry.name)
            if mine is not None and (entry.tag, entry.digest) == (mine.tag, mine.digest):
                ours[entry.name] = replace(mine, offline=entry.offline)
            elif mine is not None and not self.asked.force:
                what = f"locks {entry.name} to another image"
                raise AppboxError(what, where=os.path.join(self.asked.folder, export_index.LOCK), hint=_HINT)
        return lock_file.lock_file(path, [*(e for e in before.entries if e.name not in ours), *ours.values()])

    def _write_files(self) -> None:
        merged = self._merged_lock().text().encode()
        _make(self.folder)
        # Manifests come last: whatever they name is there by then.
        listed = sorted(self._files(), key=lambda found: ("/" not in found[0] and found[0].endswith(".toml"), found[0]))
        for path, data, mode in [(export_index.LOCK, merged, 0o644), *listed]:
            _write(self.folder, path, data, mode)
        for one in self.found.index.services:
            self.done.manifests[one.name] = os.path.join(self.asked.folder, f"{one.name}.toml")

    def _say(self, one: Exported, facts: Facts) -> None:
        """Note what this host needs besides."""
        note = self.done.notes.append
        if facts.platform.rank(Platform.parse(one.platform)) is None:
            note(f"{one.name}: its image is for {one.platform}, and this host is {facts.platform}")
        for secret in one.secrets:
            words = {"file": "from", "command": "by running", "age": "with the key"}.get(secret.kind, "from")
            note(f"{one.name}: the secret {secret.name} is read {words} {secret.source}")
        for volume in one.elsewhere:
            note(f"{one.name}: the volume {volume} is a path of the host, and was not exported")
        known = {other.name for other in self.found.index.services}
        for other in one.requires:
            if other not in known:
                note(f"{one.name}: needs {other}, which was not exported")
        if one.data and not self.asked.data:
            note(f"{one.name}: its data stays in {self.asked.file}")


def _from_registry(image: str) -> bool:
    return isinstance(parse_image(image), RegistryImage)


def _present(path: str) -> bytes | None:
    """Return what is in a file, None when there is none; AppboxError for anything but a file of a manifest's size."""
    try:
        return files.read_if_present(path, 8 << 20)
    except OSError as error:
        raise AppboxError("cannot be read", where=path, why=error.strerror or str(error)) from error


def _make(folder: str) -> None:
    """Make a directory and its missing parents, durably."""
    missing = []
    path = folder
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    try:
        for one in reversed(missing):
            os.mkdir(one, 0o755)
            with files.directory(os.path.dirname(one)) as parent:
                os.fsync(parent)
    except OSError as error:
        raise AppboxError("cannot be made", where=folder, why=error.strerror or str(error)) from error


def _write(folder: str, path: str, data: bytes, mode: int) -> None:
    """Write a file below the directory unless it has those bytes; no symlink below it is followed."""
    try:
        with contextlib.ExitStack() as stack:
            fd = stack.enter_context(files.directory(folder))
            *parents, name = path.split("/")
            for parent in parents:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(parent, 0o755, dir_fd=fd)
                    os.fsync(fd)
                fd = stack.enter_context(files.directory(parent, fd))
            if files.read_if_present(name, 8 << 20, fd) != data:
                files.replace(name, data, mode=mode, dir_fd=fd, owner=(os.geteuid(), os.getegid()))
    except OSError as error:
        where = os.path.join(folder, path)
        raise AppboxError("cannot be written", where=where, why=error.strerror or str(error)) from error


def text(asked: Request, done: Imported) -> str:
    """Return what was done, in words."""
    lines = [f"{path}: {name}{' with its data' if name in done.data else ''}" for name, path in done.manifests.items()]
    lines += [f"note: {note}" for note in done.notes]
    if not asked.apply:
        lines.append(f"appbox apply --locked {asked.folder} runs them")
    return printable("".join(f"{line}\n" for line in lines))


def as_dict(asked: Request, done: Imported) -> dict[str, Any]:
    """Return what was done as JSON data."""
    return {"directory": asked.folder, "manifests": done.manifests, "data": done.data, "notes": done.notes}
