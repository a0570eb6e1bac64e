"""Where an image is copied to: what layouts, archives and registries have in common, and the one entry to them.

A destination takes blobs and documents in any order below the top one, and `commit` makes all of it visible at once.
Whatever is written is verified by size and digest on its way. Unless `commit` returned, nothing is left of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from appbox.errors import Refused
from appbox.oci.cache import CHUNK
from appbox.oci.digest import Digest
from appbox.oci.model import Descriptor
from appbox.oci.reference import ImageRef, OciLayout, RegistryImage
from appbox.oci.settings import Settings
from appbox.oci.source import Document

Open = Callable[[], BinaryIO]
"""Opens the bytes of a blob anew."""
Report = Callable[[int], None]
"""Told the bytes of a blob that are written so far."""


class Destination(Protocol):
    """One image of a layout, an archive or a registry, to be written. Use it in a `with` statement.

    `workers` is how many blobs it takes at once, each in its own thread.
    """

    where: str
    workers: int

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether a blob is there already, whole."""
        ...

    def write(self, descriptor: Descriptor, open: Open, report: Report) -> None:  # noqa: A002
        """Write a blob; `Refused` when it is not what its descriptor says."""
        ...

    def document(self, document: Document) -> None:
        """Write an index or manifest below the top one; what it refers to is there."""
        ...

    def commit(self, top: Document) -> None:
        """Write the top document, give it its name, and return when all is durable."""
        ...

    def abort(self) -> None:
        """Make what is under way in other threads fail soon."""
        ...

    def close(self) -> None:
        """Let go of everything; remove what was not committed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_destination(
    ref: ImageRef, settings: Settings | None = None, *, neighbour: RegistryImage | None = None, chunked: bool = False
) -> Destination:
    """Return what writes to `ref`, which is no docker-archive: that cannot hold manifests.

    `neighbour` is the repository that the image comes from: blobs of the same registry are mounted instead of sent.
    `chunked`: blobs are sent to a registry in pieces.
    """
    name = ref.image
    # Each kind is imported when it is wanted: the registry client costs 70 ms, which a layout need not pay.
    if isinstance(name, RegistryImage):
        from appbox.oci.registry_destination import RegistryDestination  # noqa: PLC0415

        return RegistryDestination(ref, name, settings or Settings(), neighbour, chunked=chunked)
    if isinstance(name, OciLayout):
        from appbox.oci.layout_destination import LayoutDestination  # noqa: PLC0415

        return LayoutDestination(os.path.abspath(name.path), name.ref)
    from appbox.oci.archive_destination import ArchiveDestination  # noqa: PLC0415

    return ArchiveDestination(os.path.abspath(name.path), name.ref)


def pour(stream: BinaryIO, descriptor: Descriptor, write: Callable[[bytes], object], report: Report) -> None:
    """Hand the bytes of a blob to `write`; raise `Refused` unless they have the size and digest of `descriptor`."""
    hasher, done = descriptor.digest.hasher(), 0
    while data := stream.read(CHUNK):
        done += len(data)
        if done > descriptor.size:
            break
        hasher.update(data)
        write(data)
        report(done)
    where = str(descriptor.digest)
    if done != descriptor.size:
        count = f"more than {descriptor.size}" if done > descriptor.size else str(done)
        raise Refused(f"the blob has {count} bytes, not {descriptor.size}", where=where)
    found = Digest(descriptor.digest.algorithm, hasher.hexdigest())
    if found != descriptor.digest:
        raise Refused("the blob does not have its digest", where=where, why=f"it has {found}")
