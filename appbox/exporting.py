"""`appbox export`: services with everything that another host needs to run them, in one file.

In two passes, so that the file can begin with what is in it and be written to a pipe: the first learns sizes and
digests, the second writes, and fails when anything has changed meanwhile. Nothing of a service is changed, and what is
taken is what is installed, whatever its tag or its manifest means by now.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from appbox import __version__, export_index, exported_data, lock_file, portable, secrets, sharing
from appbox.errors import AppboxError, UsageError, printable
from appbox.export_index import Entry, Exported, ExportIndex, Secret
from appbox.exported_images import Blob, Images
from appbox.host import gather
from appbox.host.facts import Facts
from appbox.oci import evidence, tar_header
from appbox.oci.cache import Cache
from appbox.oci.contents import compact
from appbox.oci.digest import Digest
from appbox.oci.model import OCI_INDEX
from appbox.oci.new_file import NewFile
from appbox.oci.tar import Kind
from appbox.portable import Content, Portable
from appbox.progress import progress
from appbox.recovery import writing
from appbox.session import Options, cache_path, require_root_user
from appbox.sizes import megabytes
from appbox.status import unknown
from appbox.store import files, paths, ranges, state
from appbox.store.data_archive import DataReader
from appbox.store.installed import Installed
from appbox.store.root import Root

_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
STDOUT: Final = "-"

Blocks = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class _Part:
    """A member of the file: what the index says of it, and where its bytes come from, as often as they are wanted."""

    entry: Entry
    blocks: Blocks


@dataclass(slots=True)
class _Plan:
    """What is going to be written; `notes` are what the operator of the other host should know."""

    services: list[Exported] = field(default_factory=list)
    locked: list[lock_file.Entry] = field(default_factory=list)
    small: dict[str, Content] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, name: str, text: str) -> None:
        self.notes.append(f"{name}: {text}")


@dataclass(frozen=True, slots=True)
class Request:
    """What to export: with `data` the volumes, too, and with `live` running services run on meanwhile."""

    names: Sequence[str]
    output: str
    data: bool = False
    live: bool = False
    wait: float | None = 0.0


@dataclass(frozen=True, slots=True)
class _Work:
    """The host that is exported from; `shown`: who is told how far copies are, None for nobody."""

    root: Root
    facts: Facts
    shown: Options | None
    live: bool


def export(options: Options, asked: Request) -> None:
    """Write services to a file, or to standard output, and say what the other host needs besides.

    Raises AppboxError for a service that is not installed or whose data cannot be
    taken, Unavailable for a blob that is nowhere any more.
    """
    require_root_user("appbox export")
    output = asked.output
    if output == STDOUT and sys.stdout.isatty():
        raise UsageError("an archive is no text for a terminal", where="-o", hint="name a file, or pipe it somewhere")
    if asked.live and not asked.data:
        raise UsageError("is about how data is taken", where="--live", hint="give --data, too")
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(options.open_root())
        if asked.data:  # nobody may change a version while its data is read
            stack.enter_context(writing(options, root, wait=asked.wait))
        facts = gather.gather(root, options.init, ranges.load(root))
        installed = [_installed(root, name) for name in dict.fromkeys(asked.names)]
        cache = Cache(cache_path(root))
        work = _Work(root, facts, None if output == STDOUT else options, asked.live)
        shown = stack.enter_context(progress(work.shown)) if work.shown else None
        plan, images = _Plan(), stack.enter_context(Images(root, cache, shown))
        for one in sorted(installed, key=lambda found: found.name):
            _add(plan, images, one, facts)
        _note_missing(plan, root)
        parts = [*_small_parts(plan, images, cache), *_blob_parts(images)]
        if asked.data:
            parts += stack.enter_context(_data_parts(work, plan, installed))
        index = ExportIndex(tuple(plan.services), tuple(part.entry for part in parts), __version__)
        size = _write(index, parts, output)
    _report(options, plan, index, output, size)


def _installed(root: Root, name: str) -> Installed:
    found = state.load(root, name) if name in state.names(root) else None
    if found is None:
        raise unknown(root, name)
    if found.problem or "manifest" not in found.meta:
        raise AppboxError(found.problem or "its bundle.toml has no manifest", where=found.directory,
                          hint=f"apply the manifest of {name}, which repairs it")  # fmt: skip
    return found


def _add(plan: _Plan, images: Images, installed: Installed, facts: Facts) -> None:
    """Add one service without its data."""
    name, meta = installed.name, installed.meta
    taken = {path[len(export_index.SERVICES) :]: content for path, content in plan.small.items()}
    found = portable.of(installed, facts, taken)
    index = images.add(installed, in_layout=found.image != str(meta["manifest"]["image"]))
    plan.small[f"{export_index.SERVICES}{name}.toml"] = (found.text.encode(), 0o644)
    plan.small |= {f"{export_index.SERVICES}{path}": content for path, content in found.files.items()}
    plan.small |= _rendered(installed)
    plan.services.append(
        Exported(
            name=name,
            version=installed.version,
            image=found.image,
            reference=str(meta["image"]["reference"]),
            digest=installed.digest,
            index=index,
            platform=str(meta["image"]["platform"]),
            elsewhere=tuple(_elsewhere(found)),
            secrets=tuple(_secrets(found)),
            requires=_required(found),
        )
    )
    plan.locked.append(_lock_entry(installed, found, index))
    for text in found.notes:
        plan.note(name, text)
    if found.manifest.security.rootfs == "persistent":
        plan.note(name, "what it wrote outside of its volumes does not go along")


def _lock_entry(installed: Installed, found: Portable, index: str) -> lock_file.Entry:
    """Return what the manifest's version means: what is installed, since it was."""
    when = installed.meta.get("created")
    return lock_file.Entry(
        name=installed.name,
        image=found.image,
        version=found.manifest.version,
        tag=installed.version,
        digest=index or installed.digest,
        platforms=(str(installed.meta["image"]["platform"]),),
        locked=when if isinstance(when, datetime) and when.tzinfo else datetime.fromtimestamp(0, UTC),
    )


def _rendered(installed: Installed) -> dict[str, Content]:
    """Return what was generated; how secrets are found is not a part of it."""
    return {
        f"{export_index.RENDERED}{installed.name}/{path}": (file.data, file.mode & 0o777)
        for path, file in installed.files.items()
        if file.mode >= 0 and not path.startswith(f"{secrets.FOLDER}/")
    }


def _elsewhere(found: Portable) -> Iterator[str]:
    for name, volume in found.manifest.volumes.items():
        if volume.source:
            yield f"{name}: {volume.source}"


def _secrets(found: Portable) -> Iterator[Secret]:
    """Yield what the other host must have; a command may hold more than its program, so no more of it is told."""
    for name, secret in found.manifest.secrets.items():
        if secret.file is not None:
            yield Secret(name, "file", secret.file)
        elif secret.command is not None:
            yield Secret(name, "command", secret.command[0])
        else:
            yield Secret(name, "age", paths.AGE_KEY)


def _required(found: Portable) -> tuple[str, ...]:
    shared = sharing.target(found.manifest)
    return tuple(dict.fromkeys((*found.manifest.service.requires, *([shared] if shared else []))))


def _note_missing(plan: _Plan, root: Root) -> None:
    """Say what does not come along and has to be there."""
    known = {one.name for one in plan.services}
    installed = set(state.names(root))
    for one in plan.services:
        for secret in one.secrets:
            words = {"file": "is read from", "command": "is what this prints:", "age": "is decrypted with"}[secret.kind]
            plan.note(one.name, f"the secret {secret.name} does not go along; it {words} {secret.source}")
        for volume in one.elsewhere:
            plan.note(one.name, f"the volume {volume} is a path of this host and does not go along")
        for other in one.requires:
            if other not in known:
                also = "" if other in installed else ", and is not installed here either"
                plan.note(one.name, f"needs {other}, which is not in the export{also}")


def _small_parts(plan: _Plan, images: Images, cache: Cache) -> Iterator[_Part]:
    """Yield the members that are at hand, in the order of the file."""
    locked = lock_file.lock_file(export_index.LOCK, plan.locked)
    yield _small(export_index.LOCK, (locked.text().encode(), 0o644))
    for name in sorted(plan.small, key=lambda name: (not name.startswith(export_index.SERVICES), name)):
        yield _small(name, plan.small[name])
    yield _small("oci-layout", (_LAYOUT, 0o644))
    listed = [images.listed(one) for one in plan.services]
    entries = list({str(entry): entry for entry in listed}.values())
    yield _small("index.json", (compact({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}), 0o644))
    for digest in sorted({Digest.parse(text) for one in plan.services for text in (one.digest, one.index) if text}):
        if found := evidence.stored(cache, digest):
            yield _small(f"{export_index.SIGNATURES}{digest.algorithm}-{digest.hex}", (found, 0o644))


def _small(name: str, content: Content) -> _Part:
    data, mode = content
    if len(data) > export_index.SMALL:
        raise AppboxError(f"is larger than {export_index.SMALL} bytes", where=name, hint="put it into a volume")
    return _Part(Entry(name, len(data), hashlib.sha256(data).hexdigest(), mode), lambda: [data])


def _blob_parts(images: Images) -> Iterator[_Part]:
    for blob in images.blobs():
        name = f"{export_index.BLOBS}{blob.digest.algorithm}/{blob.digest.hex}"
        yield _Part(Entry(name, blob.size, _sha256(blob)), blob.blocks)


def _sha256(blob: Blob) -> str:
    if blob.digest.algorithm == "sha256":
        return blob.digest.hex
    hasher = hashlib.sha256()
    for block in blob.blocks():
        hasher.update(block)
    return hasher.hexdigest()


@contextlib.contextmanager
def _data_parts(work: _Work, plan: _Plan, installed: Sequence[Installed]) -> Iterator[list[_Part]]:
    """Open the volumes of the services and read them once; what is in them is then known."""
    by_name = {one.name: one for one in installed}
    parts = []
    with contextlib.ExitStack() as stack:
        for at, one in enumerate(plan.services):
            found = by_name[one.name]
            opened = exported_data.opened(work.shown, work.root, work.facts.init, found, live=work.live)
            reader, held = stack.enter_context(opened)
            if held:
                plan.note(one.name, held)
            if reader is None:
                plan.note(one.name, "has no data")
                continue
            part = _data_part(one, reader)
            for text in reader.left_out:
                plan.note(one.name, f"{text} does not go along")
            volumes = sorted(name for name in os.listdir(reader.fd) if not name.startswith("."))
            mark = files.read_if_present(paths.FORMAT, 4096, reader.fd) or b""
            plan.services[at] = replace(one, data=tuple(volumes), format=mark.decode("utf-8", "replace").strip())
            parts.append(part)
        yield parts


def _data_part(one: Exported, reader: DataReader) -> _Part:
    hasher, size = hashlib.sha256(), 0
    for block in reader.blocks():
        hasher.update(block)
        size += len(block)
    return _Part(Entry(one.archive, size, hasher.hexdigest(), 0o600), reader.blocks)


def _write(index: ExportIndex, parts: Sequence[_Part], output: str) -> int:
    """Write the file, and return how many bytes it has before compression."""
    if output == STDOUT:
        fd = sys.stdout.fileno()
        sys.stdout.flush()
        return _write_all(index, parts, lambda data: _put(fd, data, output))
    with NewFile(output) as new:
        os.fchmod(new.fd, 0o600)  # images may be private, and data is
        with _compressed(output, lambda data: _put(new.fd, data, output)) as put:
            size = _write_all(index, parts, put)
        new.commit()
    return size


def _write_all(index: ExportIndex, parts: Sequence[_Part], put: Callable[[bytes], None]) -> int:
    size = 0
    data = index.dumps()
    first = _Part(Entry(export_index.NAME, len(data), hashlib.sha256(data).hexdigest()), lambda: [data])
    for part in (first, *parts):
        entry = part.entry
        head = tar_header.header(Kind.FILE, entry.name.encode(), entry.mode, size=entry.size)
        put(head)
        hasher, done = hashlib.sha256(), 0
        for block in part.blocks():
            done += len(block)
            if done > entry.size:
                break
            hasher.update(block)
            put(block)
        if done != entry.size or hasher.hexdigest() != entry.sha256:
            hint = "stop what writes to it and try again"
            raise AppboxError("changed while it was exported", where=entry.name, hint=hint)
        put(tar_header.padding(entry.size))
        size += len(head) + entry.size
    put(tar_header.END)
    return size


def _put(fd: int, data: bytes, output: str) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        hint = "make room and run the same command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise AppboxError("cannot be written", where=output, why=error.strerror or str(error), hint=hint) from error


@contextlib.contextmanager
def _compressed(output: str, put: Callable[[bytes], None]) -> Iterator[Callable[[bytes], None]]:
    """Yield what takes the bytes of a file that is compressed as its name says: .zst, .gz and .tgz, else not at all."""
    from appbox.oci import deflate  # noqa: PLC0415 - most exports are not compressed: their layers are

    encoder = deflate.encoder(deflate.kind_of(output))
    if encoder is None:
        yield put
        return
    yield lambda data: put(encoder.compress(data))
    put(encoder.flush())


def _report(options: Options, plan: _Plan, index: ExportIndex, output: str, size: int) -> None:
    """Say what is in the file; on standard error when the file itself went to standard output."""
    services: list[Mapping[str, Any]] = [
        {"name": one.name, "version": one.version, "digest": one.digest, "data": list(one.data),
         "requires": list(one.requires), "volumes_elsewhere": list(one.elsewhere),
         "secrets": [{"name": s.name, "kind": s.kind, "source": s.source} for s in one.secrets]}
        for one in index.services
    ]  # fmt: skip
    names = ", ".join(f"{one.name} {one.version}{' with its data' if one.data else ''}" for one in index.services)
    text = f"{output}: {names} ({megabytes(size)})\n" + "".join(f"note: {note}\n" for note in plan.notes)
    if output == STDOUT:
        options.say(printable(text), stream=sys.stderr)
        return
    result = {"file": output, "size": size, "services": services, "notes": plan.notes}
    options.result(result, "" if options.verbosity < 0 else printable(text))
