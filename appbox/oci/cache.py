"""Downloaded blobs: an OCI image layout on disk that other tools can read. Not here: where blobs come from.

A blob appears under its digest by one rename, after its size and digest were checked. What lies there may rot, or be
torn by a power cut before `settle`, so it is checked again when it is used, and dropped when it is wrong: a cache may
forget, it may not lie. Nothing is written by looking.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NoReturn, Protocol

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.host import syscalls
from appbox.oci.digest import Digest
from appbox.oci.json_document import DOCUMENT_LIMIT
from appbox.oci.model import (
    OCI_INDEX,
    Descriptor,
    Image,
    ImageManifest,
    Index,
    parse_config,
    parse_document,
    parse_index,
)
from appbox.oci.shared_directory import locked, sync_names

REF_NAME = "org.opencontainers.image.ref.name"
CHUNK = 1 << 20  # bytes; large enough that hashing runs outside the interpreter's lock
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
# Beside blobs/, not in it: a validator takes every file below blobs/ for a blob.
_PARTIAL = ".partial"
_LOCK_PAUSE = 0.05  # seconds between looks at another process's download


class Cache:
    """The layout at `path`. Any number of processes and threads may use it at once."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._prepared = False
        self._checked: set[Digest] = set()
        self._unsettled = False

    def has(self, digest: Digest) -> bool:
        """Tell whether a blob is here; whether it is sound is seen when it is used."""
        try:
            return stat.S_ISREG(os.lstat(self._blob(digest)).st_mode)
        except OSError:
            return False

    def open(self, digest: Digest) -> BinaryIO:
        """Return the blob, opened for reading; raise `Unavailable` when it is not here."""
        stream = self._open(digest)
        if stream is None:
            raise Unavailable("the blob is not in the cache", where=self._blob(digest))
        return stream

    def document(self, digest: Digest, limit: int = DOCUMENT_LIMIT) -> bytes | None:
        """Return the bytes of a small blob, verified; None when it is not here or was corrupt and is dropped."""
        stream = self._open(digest)
        if stream is None:
            return None
        with stream:
            data = stream.read(limit + 1)
        if len(data) <= limit and digest.matches(data):
            return data
        self.drop(digest)
        return None

    def read(self, descriptor: Descriptor, limit: int = DOCUMENT_LIMIT) -> bytes | None:
        """Like `document`, for a blob whose size is known too."""
        if descriptor.size > limit:
            raise Refused(f"the blob is larger than {limit} bytes", where=str(descriptor.digest))
        data = self.document(descriptor.digest, limit)
        if data is not None and len(data) != descriptor.size:
            raise Refused(f"the blob has {len(data)} bytes, not {descriptor.size}", where=str(descriptor.digest))
        return data

    def sound(self, descriptor: Descriptor) -> bool:
        """Tell whether a blob is here whole; read it once in this process, and drop it when it is not."""
        stream = self._open(descriptor.digest)
        if stream is None:
            return False
        with stream:
            size = os.fstat(stream.fileno()).st_size
            if descriptor.digest not in self._checked and not _is_whole(stream, descriptor.digest):
                self.drop(descriptor.digest)
                return False
        self._checked.add(descriptor.digest)
        if size != descriptor.size:
            raise Refused(f"the blob has {size} bytes, not {descriptor.size}", where=str(descriptor.digest))
        return True

    def put(self, digest: Digest, data: bytes) -> None:
        """Store a blob that is at hand; raise `Refused` unless `data` has that digest. Idempotent."""
        with self.writer(digest, len(data)) as blob:
            if not blob.complete:
                blob.write(data)
                blob.commit()

    @contextmanager
    def writer(self, digest: Digest, size: int, cancelled: Callable[[], bool] | None = None) -> Iterator[BlobWriter]:
        """Hold the right to write a blob of `size` bytes.

        Another process or thread that is writing the same blob is waited for; `complete` then tells that it is done.
        Unless `commit` was called, nothing is left.
        """
        with self._explained():
            self._prepare()
            fd = _lock_partial(self._partial(digest), lambda: self.has(digest), cancelled or (lambda: False))
        if fd is None:
            yield BlobWriter(self, digest, size, None)
            return
        blob = BlobWriter(self, digest, size, fd)
        try:
            with self._explained():
                yield blob
        finally:
            if not blob.complete:
                _unlink(self._partial(digest))
            os.close(fd)

    def drop(self, digest: Digest) -> None:
        """Forget a blob."""
        self._checked.discard(digest)
        with self._explained():
            _unlink(self._blob(digest))

    def index(self) -> Index:
        """Return the images that were pulled whole, each annotated with the name it was pulled by."""
        try:
            with open(f"{self.path}/index.json", "rb") as stream:
                return parse_index(stream.read(DOCUMENT_LIMIT + 1), OCI_INDEX)
        except (FileNotFoundError, Refused):
            return Index(OCI_INDEX, ())  # a damaged list costs a name, no blob

    def name(self, reference: str, descriptor: Descriptor) -> None:
        """List a whole image under `reference`, which then means this image only. No write if it does already."""
        with self._explained():
            self._prepare()
            with locked(self.path):
                entries = [e for e in self.index().manifests if e.annotations.get(REF_NAME) != reference]
                named = _entry(descriptor, {REF_NAME: reference})
                if any(_entry(e, e.annotations) == named for e in self.index().manifests):
                    return
                listed = [*(_entry(e, e.annotations) for e in entries), named]
                listed.sort(key=lambda entry: str(entry["annotations"]))
                self._list(listed)

    def unname(self, digests: Collection[Digest]) -> None:
        """Take the images with these manifests off the list. No write if none is on it."""
        if not any(entry.digest in digests for entry in self.index().manifests):
            return
        with self._explained(), locked(self.path):
            kept = [_entry(e, e.annotations) for e in self.index().manifests if e.digest not in digests]
            self._list(kept)

    def _list(self, entries: list[dict[str, object]]) -> None:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        self._replace("index.json", json.dumps(index, separators=(",", ":")).encode())

    def image(self, digest: Digest) -> Image | None:
        """Return the image whose manifest has `digest`, or None unless manifest and configuration are here."""
        data = self.document(digest)
        if data is None:
            return None
        manifest = parse_document(data)
        if not isinstance(manifest, ImageManifest) or (config_bytes := self.read(manifest.config)) is None:
            return None
        config = parse_config(config_bytes)
        names = (e.annotations.get(REF_NAME, "") for e in self.index().manifests if e.digest == digest)
        reference = next(filter(None, names), str(digest))
        return Image(reference, digest, None, config.platform, manifest, config, data, config_bytes)

    def settle(self) -> None:
        """Return when all that was stored is on the disk: once, as an fsync for each of a hundred blobs is slow."""
        if not self._unsettled:
            return
        self._unsettled = False  # first: what another thread stores meanwhile may come too late for this
        try:
            with self._explained():
                fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    syscalls.syncfs(fd)
                finally:
                    os.close(fd)
        except AppboxError:
            self._unsettled = True
            raise

    def publish(self, digest: Digest) -> None:
        """Give the finished file its name. For `BlobWriter` only."""
        try:
            os.rename(self._partial(digest), self._blob(digest))
        except IsADirectoryError as error:
            where = self._blob(digest)
            raise AppboxError("a directory has the name of a blob", where=where, hint="remove it") from error
        self._unsettled = True
        self._checked.add(digest)

    def _blob(self, digest: Digest) -> str:
        return f"{self.path}/blobs/{digest.algorithm}/{digest.hex}"

    def _partial(self, digest: Digest) -> str:
        return f"{self.path}/{_PARTIAL}/{digest.algorithm}-{digest.hex}"

    def _open(self, digest: Digest) -> BinaryIO | None:
        with self._explained("read"):
            return open_regular(self._blob(digest), follow=False)

    def _prepare(self) -> None:
        """Make the layout's fixed parts, and remove what processes that died have left."""
        if self._prepared:
            return
        # Images may be private, so their layers are for root alone.
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        for name in ("blobs/sha256", "blobs/sha512", _PARTIAL):
            os.makedirs(f"{self.path}/{name}", mode=0o755, exist_ok=True)
        with locked(self.path):
            if not os.path.exists(f"{self.path}/oci-layout"):
                self._replace("oci-layout", _LAYOUT)
            if not os.path.exists(f"{self.path}/index.json"):
                self._list([])
        for name in os.listdir(f"{self.path}/{_PARTIAL}"):
            _sweep(f"{self.path}/{_PARTIAL}/{name}")
        self._prepared = True

    def _replace(self, name: str, data: bytes) -> None:
        """Write a file of the layout whole; the lock of the directory is held, so that one scratch name is enough."""
        scratch = f"{self.path}/{_PARTIAL}.{name}"
        with open(scratch, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(scratch, f"{self.path}/{name}")
        sync_names(self.path)

    @contextmanager
    def _explained(self, verb: str = "written") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "run it as root" if isinstance(error, PermissionError) else ""
            what = f"the cache cannot be {verb}"
            raise AppboxError(what, where=self.path, why=error.strerror or str(error), hint=hint) from error


class Sink(Protocol):
    """Takes the bytes of one blob, in order. `done` counts those so far, `size` is what there should be."""

    @property
    def done(self) -> int: ...

    @property
    def size(self) -> int: ...

    def write(self, data: bytes) -> None:
        """Take the next bytes; raise `Refused` as soon as there are more than the size allows."""

    def restart(self) -> None:
        """Forget what was written."""


class BlobWriter:
    """One blob on its way into a cache; made by `Cache.writer`. `done` counts the bytes so far."""

    def __init__(self, cache: Cache, digest: Digest, size: int, fd: int | None) -> None:
        self.digest, self.size, self.done = digest, size, 0
        self.complete = fd is None
        self._cache, self._fd, self._hash = cache, fd, digest.hasher()

    def write(self, data: bytes) -> None:
        """Take the next bytes; raise `Refused` as soon as there are more than the size allows."""
        if self.done + len(data) > self.size:
            raise Refused(f"the blob is longer than its {self.size} bytes", where=str(self.digest))
        fd = self.fileno()
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        self.done += len(data)

    def restart(self) -> None:
        """Forget what was written."""
        fd = self.fileno()
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        self.done, self._hash = 0, self.digest.hasher()

    def verify(self) -> None:
        """Raise `Refused` unless size and digest are what they must be."""
        if self.done != self.size:
            raise Refused(f"the blob has {self.done} bytes, not {self.size}", where=str(self.digest))
        if self._hash.hexdigest() != self.digest.hex:
            found = f"{self.digest.algorithm}:{self._hash.hexdigest()}"
            raise Refused("the blob does not have its digest", where=str(self.digest), why=f"it has {found}")

    def commit(self) -> None:
        """Publish the blob. Raises as `verify` does."""
        self.verify()
        if self.complete:
            _closed()
        self._cache.publish(self.digest)
        self.complete = True

    def fileno(self) -> int:
        """Return the descriptor of the file that is being written."""
        if self._fd is None or self.complete:
            _closed()
        return self._fd


def open_regular(path: str, *, follow: bool) -> BinaryIO | None:
    """Return the regular file at `path`, opened for reading; None when there is none.

    `follow`: whether the last component may be a symlink. Never waits on a fifo.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return os.fdopen(fd, "rb")


def digest_of(stream: BinaryIO, like: Digest) -> Digest:
    """Return the digest of the rest of `stream`, by the algorithm of `like`."""
    hasher = like.hasher()
    while data := stream.read(CHUNK):
        hasher.update(data)
    return Digest(like.algorithm, hasher.hexdigest())


def _is_whole(stream: BinaryIO, digest: Digest) -> bool:
    """Tell whether the rest of `stream` has a digest; what the disk cannot read has not."""
    try:
        return digest_of(stream, digest) == digest
    except OSError:
        return False


def _lock_partial(path: str, done: Callable[[], bool], cancelled: Callable[[], bool]) -> int | None:
    """Return the locked and empty file at `path`, or None as soon as `done` without us."""
    while not done():
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it before may have renamed or removed it since we opened it.
            if not done() and _is_file(fd, path):
                os.ftruncate(fd, 0)
                return fd
        except BlockingIOError:
            if cancelled():
                raise AppboxError("cancelled") from None
            time.sleep(_LOCK_PAUSE)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    return None


def _is_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _sweep(path: str) -> None:
    """Remove a partial blob that nobody holds."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_file(fd, path):
            _unlink(path)
    except BlockingIOError:
        pass  # another process is at work on it
    finally:
        os.close(fd)


def _entry(descriptor: Descriptor, annotations: object) -> dict[str, object]:
    entry: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "annotations": annotations,
    }
    if descriptor.platform:
        platform = descriptor.platform
        variant = {"variant": platform.variant} if platform.variant else {}
        entry["platform"] = {"architecture": platform.architecture, "os": platform.os, **variant}
    return entry


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _closed() -> NoReturn:
    raise ValueError("the blob is complete")
