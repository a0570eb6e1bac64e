"""An image pushed to a registry: what is there is not sent, what another repository there has is mounted."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from appbox.errors import AppboxError
from appbox.oci.destination import Open, Report
from appbox.oci.model import Descriptor
from appbox.oci.push import RegistryTarget
from appbox.oci.reference import ImageRef, RegistryImage
from appbox.oci.settings import Settings
from appbox.oci.source import Document


class RegistryDestination:
    """The tag or digest of `ref`. `neighbour`: the repository that the image comes from; see `open_destination`."""

    workers = 4  # as many as registries take from one client without complaint

    def __init__(
        self, ref: ImageRef, image: RegistryImage, settings: Settings, neighbour: RegistryImage | None, *, chunked: bool
    ) -> None:
        self.where, self._ref, self._chunked = str(ref), ref, chunked
        near = neighbour is not None and neighbour.registry == image.registry and neighbour != image
        self._from = neighbour.repository if near and neighbour is not None else ""
        self._target = RegistryTarget(image, settings)

    def has(self, descriptor: Descriptor) -> bool:
        """Ask the registry."""
        return self._target.has(descriptor)

    def write(self, descriptor: Descriptor, open: Open, report: Report) -> None:  # noqa: A002
        """Mount a blob, or send it."""
        if self._from and self._target.mount(descriptor, self._from):
            report(descriptor.size)
            return
        self._target.upload(descriptor, open, report, chunked=self._chunked)

    def document(self, document: Document) -> None:
        """Put an index or manifest by its digest."""
        if not self._target.has_manifest(document.digest):
            self._target.put_manifest(document.data, document.media_type, document.digest)

    def commit(self, top: Document) -> None:
        """Put the top document under the name that is asked for."""
        if self._ref.digest is not None and self._ref.digest != top.digest:
            why = f"the image has {top.digest}"
            raise AppboxError("the image cannot be stored under another digest", where=self.where, why=why)
        reference = self._ref.digest if self._ref.digest is not None else self._ref.tag
        self._target.put_manifest(top.data, top.media_type, reference or top.digest)

    def abort(self) -> None:
        """Make what is under way in other threads fail soon."""
        self._target.abort()

    def close(self) -> None:
        """Close the connections."""
        self._target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
