"""An image written as a tar archive of an OCI image layout; one that is there is replaced whole, as skopeo does."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from appbox.oci.cache import REF_NAME
from appbox.oci.contents import compact
from appbox.oci.destination import Open, Report, pour
from appbox.oci.digest import Digest
from appbox.oci.model import OCI_INDEX, Descriptor
from appbox.oci.new_file import NewFile, occupied
from appbox.oci.source import Document
from appbox.oci.tar_writer import TarWriter

_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'


class ArchiveDestination:
    """The archive `where`; the image gets the name `ref`, or none."""

    workers = 1  # members follow one another

    def __init__(self, where: str, ref: str | None) -> None:
        self.where, self._ref = where, ref
        occupied(where)  # refuses what is no file
        self._file = NewFile(where)
        self._tar: TarWriter
        self._written: set[Digest] = set()
        self._folders: set[str] = set()

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether this copy has written the blob already."""
        return descriptor.digest in self._written

    def write(self, descriptor: Descriptor, open: Open, report: Report) -> None:  # noqa: A002
        """Append a blob."""
        with open() as stream, self._tar.member(self._name(descriptor.digest)) as write:
            pour(stream, descriptor, write, report)
        self._written.add(descriptor.digest)

    def document(self, document: Document) -> None:
        """Append an index or manifest."""
        if document.digest not in self._written:
            self._tar.add(self._name(document.digest), document.data)
            self._written.add(document.digest)

    def commit(self, top: Document) -> None:
        """Append what makes a layout of the archive, and put it in its place."""
        self.document(top)
        entry: dict[str, object] = {"mediaType": top.media_type, "digest": str(top.digest), "size": len(top.data)}
        if self._ref:
            entry["annotations"] = {REF_NAME: self._ref}
        self._tar.add("index.json", compact({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}))
        self._tar.add("oci-layout", _LAYOUT)
        self._tar.finish()
        self._file.commit()

    def abort(self) -> None:
        """Nothing here waits."""

    def close(self) -> None:
        """Remove what was not committed."""
        self._file.close()

    def __enter__(self) -> Self:
        self._file.__enter__()
        self._tar = TarWriter(self._file.fd, 0o644)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _name(self, digest: Digest) -> str:
        for folder in ("blobs/", f"blobs/{digest.algorithm}/"):
            if folder not in self._folders:
                self._tar.directory(folder)
                self._folders.add(folder)
        return f"blobs/{digest.algorithm}/{digest.hex}"
