"""An image written into an OCI image layout, a new one or one that others read and write at the same time.

Blobs are staged in a directory of this copy inside of the layout and moved to their places at the end; then index.json
is replaced, under a lock that every writer here takes. A sound blob is never written again, an entry of the same name
is replaced, all others stay as they are.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

from appbox.errors import AppboxError, Refused
from appbox.oci import json_document as fields
from appbox.oci.cache import REF_NAME, digest_of, open_regular
from appbox.oci.contents import compact
from appbox.oci.destination import Open, Report, pour
from appbox.oci.digest import Digest
from appbox.oci.json_document import DOCUMENT_LIMIT
from appbox.oci.model import OCI_INDEX, Descriptor, parse_index
from appbox.oci.shared_directory import locked, sync_names
from appbox.oci.source import Document

_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_STAGING: Final = ".copy-"
_TRIES: Final = 16
"""Attempts at a directory that others make and remove."""


class LayoutDestination:
    """The layout in the directory `where`; the image gets the name `ref`, or none."""

    workers = 4

    def __init__(self, where: str, ref: str | None) -> None:
        self.where, self._ref = os.path.realpath(where), ref
        self._made: list[str] = []
        self._staging, self._lock = "", -1
        self._staged: set[Digest] = set()
        _refuse_foreign(self.where)

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether a blob is there already; it is read, and one that is corrupt is written anew."""
        with self._explained("read"):
            stream = open_regular(self._blob(descriptor.digest), follow=False)
            if stream is None:
                return False
            with stream:
                size = os.fstat(stream.fileno()).st_size
                return size == descriptor.size and digest_of(stream, descriptor.digest) == descriptor.digest

    def write(self, descriptor: Descriptor, open: Open, report: Report) -> None:  # noqa: A002
        """Stage a blob."""
        with self._explained(), open() as stream, self._new(descriptor.digest) as fd:
            pour(stream, descriptor, lambda data: _write_all(fd, data), report)
            os.fsync(fd)
        self._staged.add(descriptor.digest)

    def document(self, document: Document) -> None:
        """Stage an index or manifest."""
        if self.has(Descriptor(document.media_type, document.digest, len(document.data))):
            return
        with self._explained(), self._new(document.digest) as fd:
            _write_all(fd, document.data)
            os.fsync(fd)
        self._staged.add(document.digest)

    def commit(self, top: Document) -> None:
        """Move the blobs to their places and list the image."""
        self.document(top)
        with self._explained(), locked(self.where):
            index = self._listed(top)  # what is damaged in there is refused before anything changes
            # The marker comes first: without it what is there would be no layout to the next copy.
            if not os.path.lexists(f"{self.where}/oci-layout"):
                self._replace("oci-layout", _LAYOUT)
            self._publish()
            self._replace("index.json", index)
        for folder in reversed(self._made):
            sync_names(os.path.dirname(folder))
        self._made = []

    def abort(self) -> None:
        """Nothing here waits."""

    def close(self) -> None:
        """Remove what was staged and the directories that were made for it."""
        if self._staging:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = ""
        self._unlock()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # somebody else has put something there
                os.rmdir(folder)
        self._made = []

    def __enter__(self) -> Self:
        try:
            with self._explained():
                self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _begin(self) -> None:
        for _ in range(_TRIES):  # a copy that fails removes the directory that it has made
            self._unlock()
            with contextlib.suppress(FileNotFoundError):
                _make_directories(self.where, self._made)
                with locked(self.where):  # or another copy might sweep ours away before it is locked
                    self._sweep()
                    self._stage()
                return
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.where)

    def _stage(self) -> None:
        self._staging = f"{self.where}/{_STAGING}{secrets.token_hex(8)}"
        os.mkdir(self._staging, 0o700)
        self._lock = os.open(self._staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # The layout itself may have gone and come again meanwhile, with another lock; then this was swept away.
        os.stat(self._staging)

    def _publish(self) -> None:
        folders = sorted({os.path.dirname(self._blob(digest)) for digest in self._staged})
        for folder in folders:
            os.makedirs(folder, exist_ok=True)
        for digest in sorted(self._staged):
            os.rename(self._path(digest), self._blob(digest))
        for folder in folders:
            sync_names(folder)
        if folders:
            sync_names(f"{self.where}/blobs")

    def _listed(self, top: Document) -> bytes:
        """Return index.json with the image in it; everything else in there stays as it is."""
        data = _read_if_present(f"{self.where}/index.json")
        index: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        if data is not None:
            parse_index(data, OCI_INDEX)
            index = fields.parse_object(data, "index.json")
        entry: dict[str, Any] = {"mediaType": top.media_type, "digest": str(top.digest), "size": len(top.data)}
        if self._ref:
            entry["annotations"] = {REF_NAME: self._ref}
        index["manifests"] = _with(index["manifests"], entry)
        listed = compact(index)
        if len(listed) > DOCUMENT_LIMIT:
            raise AppboxError("the layout has too many images", where=self.where, hint="use another directory")
        return listed

    def _blob(self, digest: Digest) -> str:
        return f"{self.where}/blobs/{digest.algorithm}/{digest.hex}"

    def _path(self, digest: Digest) -> str:
        return f"{self._staging}/{digest.algorithm}-{digest.hex}"

    @contextlib.contextmanager
    def _new(self, digest: Digest) -> Iterator[int]:
        fd = os.open(self._path(digest), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            yield fd
        finally:
            os.close(fd)

    def _replace(self, name: str, data: bytes) -> None:
        scratch = f"{self._staging}/{name}"
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            _write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(scratch, f"{self.where}/{name}")
        sync_names(self.where)

    def _sweep(self) -> None:
        """Remove what copies that died have left."""
        for name in os.listdir(self.where):
            if name.startswith(_STAGING):
                with contextlib.suppress(OSError):
                    _sweep(f"{self.where}/{name}")

    @contextlib.contextmanager
    def _explained(self, verb: str = "written") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or str(error)
            raise AppboxError(f"the layout cannot be {verb}", where=self.where, why=why) from error


def _with(entries: list[dict[str, Any]], entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries with `entry` in place of the one of the same name; without a name, of the same digest."""

    def name(one: dict[str, Any]) -> str:
        return str((one.get("annotations") or {}).get(REF_NAME) or "")

    same = [
        at
        for at, one in enumerate(entries)
        if name(one) == name(entry) and (name(entry) or one["digest"] == entry["digest"])
    ]
    kept = [one for at, one in enumerate(entries) if at not in same]
    at = same[0] if same else len(kept)
    return [*kept[:at], entry, *kept[at:]]


def _refuse_foreign(where: str) -> None:
    """Refuse to write into anything but a layout, an empty directory or a new one."""
    try:
        names = os.listdir(where)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        why, hint = "this is not a directory", "name a new directory"
        raise AppboxError("cannot be written", where=where, why=why, hint=hint) from error
    marker = _read_if_present(f"{where}/oci-layout")
    if marker is None:
        if any(not name.startswith(_STAGING) for name in names):
            why = "it is no OCI image layout, and not empty"
            raise AppboxError("cannot be written", where=where, why=why, hint="name a new directory")
        return
    version = fields.parse_object(marker, "oci-layout", limit=4096).get("imageLayoutVersion")
    if version != "1.0.0":
        raise Refused("the layout's version is unknown", where=where, why=repr(version)[:100])


def _make_directories(where: str, made: list[str]) -> None:
    """Make the directory and what is missing above it; add what was made to `made`, the outermost first."""
    missing = []
    path = where
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another copy makes the same ones
            os.mkdir(folder)
            made.append(folder)


def _sweep(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    finally:
        os.close(fd)


def _read_if_present(path: str) -> bytes | None:
    stream = open_regular(path, follow=True)
    if stream is None:
        return None
    with stream:
        return stream.read(DOCUMENT_LIMIT + 1)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
