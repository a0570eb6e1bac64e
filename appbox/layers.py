"""An image's layers, brought and unpacked in one go: what the registry sends is written while it comes in."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Self

from appbox import owner
from appbox.errors import Refused, Unavailable
from appbox.host.inside import remove_tree
from appbox.oci.arrival import StartedOverError
from appbox.oci.limits import Limits
from appbox.oci.model import LAYER_COMPRESSION, Image
from appbox.oci.settings import tell
from appbox.oci.source import Opener, Progress, Source

if TYPE_CHECKING:
    from appbox.oci.ids import IdMap
    from appbox.oci.recorder import Recorder
    from appbox.oci.stream import Layer
    from appbox.oci.unpack import Report


def layers_of(image: Image, open_: Opener) -> list[Layer]:
    """Return the layers of an image as the unpacker takes them, lowest first."""
    from appbox.oci.stream import Layer  # noqa: PLC0415 - see `unpack_image`

    return [
        Layer(
            digest=str(descriptor.digest),
            diff_id=str(diff_id),
            media_type=descriptor.media_type,
            size=descriptor.size,
            open=partial(open_, descriptor),
        )
        for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True)
    ]


class Recorders:
    """Makes a `Recorder` for each try to unpack; the last one tells what is on disk. A context manager.

    `scratch_fd` is a directory on the disk that is unpacked to.
    """

    def __init__(self, scratch_fd: int) -> None:
        self._scratch = scratch_fd
        self._made: list[Recorder] = []

    def new(self) -> Recorder:
        """Return a recorder for one more try."""
        from appbox.oci.recorder import Recorder  # noqa: PLC0415 - `image unpack` does without

        self._made.append(Recorder(self._scratch))
        return self.last

    @property
    def last(self) -> Recorder:
        """The recorder of the last try."""
        return self._made[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for recorder in self._made:
            recorder.close()


def unpack_image(
    source: Source,
    image: Image,
    root_fd: int,
    idmap: IdMap,
    *,
    progress: Progress | None = None,
    durable: bool = True,
    recorder: Callable[[], Recorder] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - a frozen value
    check: Callable[[], None] | None = None,
    share: int = 1,
) -> Report:
    """Unpack an image into an empty directory, and bring the layers that are not here yet meanwhile.

    It is unpacked again when a download starts over, and when a layer rotted in the cache, which is dropped and brought
    anew, once. `check` is called now and then, and may raise to end it; `share` is as in `unpack`. Raises as `unpack`
    and `Source.fetch` do.
    """

    def write(open_: Opener) -> Report:
        # The first bytes of layers are on their way while this is loaded.
        from appbox.oci.unpack import unpack  # noqa: PLC0415

        _say_if_slow(image)
        return unpack(
            layers_of(image, open_),
            root_fd,
            idmap,
            durable=durable,
            devices="create" if owner.current() is None else "empty",
            recorder=recorder,
            limits=limits,
            progress=lambda *_: check() if check else None,
            share=share,
        )

    def once() -> Report:
        with source.arriving(image, progress) as open_:
            while True:
                try:
                    return write(open_)
                except StartedOverError:
                    _empty(root_fd)

    try:
        return once()
    except (Refused, Unavailable):
        if not source.recheck(image):
            raise
    _empty(root_fd)
    return once()


_SAID = threading.Lock()  # of the first who says so, for good: images are unpacked side by side


def _say_if_slow(image: Image) -> None:
    """Say, once, when layers take longer to inflate than they need to."""
    from appbox.oci.inflate import is_fast  # noqa: PLC0415 - see `unpack_image`

    kinds = {LAYER_COMPRESSION.get(descriptor.media_type) for descriptor in image.manifest.layers}
    if "gzip" in kinds and not is_fast("gzip") and _SAID.acquire(blocking=False):
        tell("gzip layers are inflated by zlib, which takes four times as long; install the Python package isal")


def _empty(root_fd: int) -> None:
    for name in os.listdir(root_fd):
        remove_tree(root_fd, name)
