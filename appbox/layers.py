"""An image's layers as the unpacker takes them, opened through the source that they come from."""

from __future__ import annotations

from functools import partial

from appbox.oci.model import Image
from appbox.oci.source import Source
from appbox.oci.unpack import Layer


def layers_of(source: Source, image: Image) -> list[Layer]:
    """Return the fetched layers of an image, lowest first."""
    return [
        Layer(
            digest=str(descriptor.digest),
            diff_id=str(diff_id),
            media_type=descriptor.media_type,
            size=descriptor.size,
            open=partial(source.layer, image, descriptor),
        )
        for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True)
    ]
