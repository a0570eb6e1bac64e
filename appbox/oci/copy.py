"""An image brought from a source to a destination. Not here: what is said about it, and how either of them works.

Documents keep their bytes, so that digests stay what pins, locks and signatures say. Only a docker-archive holds no
manifest: its image is made anew of the same configuration and the same uncompressed layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar

from appbox.errors import Refused
from appbox.oci.contents import contents, kind_of
from appbox.oci.destination import Destination
from appbox.oci.digest import Digest
from appbox.oci.docker_writer import write_docker_archive
from appbox.oci.model import CONFIG_TYPES, Descriptor, Image
from appbox.oci.source import INDEX_DEPTH, Document, Progress, Source

PARALLEL: Final = 4
"""Blobs brought near at once, as many as registries take from one client without complaint."""
T = TypeVar("T")
DOCUMENT_LIMIT: Final = 2048
"""Documents of one image with all its platforms; an index has at most half as many entries."""
BYTES_LIMIT: Final = 64 << 20
"""Bytes of all of them, which are in memory at once; those of the widest images come to some hundred KB."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What is copied: documents, each behind those that it refers to, and the blobs of all of them."""

    documents: tuple[Document, ...]
    blobs: tuple[Descriptor, ...]

    @property
    def top(self) -> Document:
        """The document that gets the name."""
        return self.documents[-1]


def tree_of_image(image: Image) -> Tree:
    """Return what makes up the image of one platform."""
    blobs = {one.digest: one for one in (image.manifest.config, *image.manifest.layers)}
    return Tree((Document(image.digest, image.manifest_bytes, image.manifest.media_type),), tuple(blobs.values()))


def tree_of(source: Source, top: Document) -> Tree:
    """Return `top` and everything that it leads to, all platforms and what else an index lists."""
    documents: dict[Digest, Document] = {}
    blobs: dict[Digest, Descriptor] = {}
    size = 0

    def visit(document: Document, depth: int) -> None:
        nonlocal size
        if depth > INDEX_DEPTH:
            raise Refused(f"the image's indexes are nested more than {INDEX_DEPTH} deep", where=str(top.digest))
        found = contents(document.data, document.media_type)
        for entry in found.entries:
            if entry.digest not in documents:
                visit(Document(entry.digest, source.entry(entry), entry.media_type), depth + 1)
        blobs.update((blob.digest, blob) for blob in found.blobs)
        documents[document.digest] = document
        if len(documents) > DOCUMENT_LIMIT:
            raise Refused(f"the image has more than {DOCUMENT_LIMIT} manifests", where=str(top.digest))
        size += len(document.data)
        if size > BYTES_LIMIT:
            raise Refused(f"the image's manifests have more than {BYTES_LIMIT} bytes", where=str(top.digest))

    visit(Document(top.digest, top.data, kind_of(top.data, top.media_type)), 0)
    return Tree(tuple(documents.values()), tuple(blobs.values()))


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how far a blob is: `near` while it is brought here, `far` while it is written."""

    near: Progress | None = None
    far: Progress | None = None


def copy_tree(source: Source, tree: Tree, destination: Destination, watch: Watch) -> list[Descriptor]:
    """Copy a tree; return the blobs that the destination did not have. Raises what source and destination raise."""
    with _Workers(source, destination) as workers:
        needed = dict(zip(tree.blobs, workers.each(destination.has, tree.blobs), strict=True))
        missing = [blob for blob, there in needed.items() if not there]
        if destination.workers < PARALLEL:
            workers.each(partial(_near, source, watch.near), missing)

        def write(blob: Descriptor) -> None:
            report = partial(_report, watch.far, blob)
            destination.write(blob, partial(_open, source, watch.near, blob), report)

        if destination.workers > 1:
            workers.each(write, missing)
        else:
            for blob in missing:
                write(blob)
    for document in tree.documents[:-1]:
        destination.document(document)
    destination.commit(tree.top)
    return missing


def copy_to_docker_archive(source: Source, image: Image, path: str, name: str | None, watch: Watch) -> None:
    """Write the image of one platform to a new docker-archive."""
    with _Workers(source) as workers:
        workers.each(partial(_near, source, watch.near), dict.fromkeys(image.manifest.layers))

    def report(digest: Digest, done: int, total: int) -> None:
        if watch.far:
            watch.far(digest, done, total)

    write_docker_archive(path, name, image, source.blob, report)


class _Workers:
    """Threads that do one thing to many blobs; the first failure stops all of them, and whatever `ends` wait for."""

    def __init__(self, *ends: Source | Destination) -> None:
        self._ends = ends
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="blob")

    def each(self, act: Callable[[Descriptor], T], blobs: Iterable[Descriptor]) -> list[T]:
        """Return what `act` makes of each blob, in their order; raise the first error."""
        futures = [self._pool.submit(act, blob) for blob in blobs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for end in self._ends:
                end.abort()
        self._pool.shutdown(cancel_futures=True)


def _near(source: Source, progress: Progress | None, blob: Descriptor) -> None:
    _open(source, progress, blob).close()


def _open(source: Source, progress: Progress | None, blob: Descriptor) -> BinaryIO:
    return source.blob(blob, None if blob.media_type in CONFIG_TYPES else progress)


def _report(progress: Progress | None, blob: Descriptor, done: int) -> None:
    if progress and blob.media_type not in CONFIG_TYPES:  # what is shown are layers
        progress(blob.digest, done, blob.size)
