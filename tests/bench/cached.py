"""From the cache: that nothing is downloaded twice, by the count of the registry itself, and how long it takes then."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.bench import disk, images, measure
from tests.bench.measure import Cost
from tests.bench.peers import APPBOX
from tests.bench.table import Figure
from tests.ground.registry import RealRegistry

_BLOB = re.compile(r'"GET /v2/[^ "]*/blobs/(sha256:[0-9a-f]{64}) HTTP/[\d.]+" 20')
"""A blob that was served, in the registry's log of requests."""


def figures(registry: RealRegistry, scratch: Path) -> Iterator[Figure]:
    """Yield the times of an image, of a second service with it, and of its next version; then the counts."""
    layouts = [images.ensure(name) for name in ("shared-1", "shared-2")]
    for tag, layout in enumerate(layouts, 1):
        registry.push(f"oci:{layout}:{images.REF}", f"shared:{tag}")
    before = served(registry)
    reference = f"docker://{registry.host}/shared"
    with disk.empty(scratch / "disk") as place:
        for what, source, name in (
            ("an image for the first time", f"{reference}:1", "first"),
            ("the same image for a second service, from the cache", f"{reference}:1", "second"),
            ("its next version, of which two layers of three are in the cache", f"{reference}:2", "next"),
        ):
            yield Figure(what, unpack(place, source, name).seconds * 1000, None)
    counts = served(registry) - before
    wanted = {digest for layout in layouts for digest in blobs(layout)}
    yield Figure("blobs downloaded for these three", counts.total(), len(wanted), "")
    yield Figure("blobs downloaded more than once", sum(1 for count in counts.values() if count > 1), 0, "")


def unpack(place: Path, source: str, name: str) -> Cost:
    """Unpack with appbox, with one cache for all that is unpacked in `place`."""
    measure.sync(place)
    return measure.run([APPBOX, "--root", str(place), "image", "unpack", source, str(place / name)])


def served(registry: RealRegistry) -> Counter[str]:
    """Return how often the registry has served each blob."""
    return Counter(_BLOB.findall(Path(registry.folder, "log").read_text(encoding="utf-8")))


def blobs(layout: Path) -> Iterator[str]:
    """Yield the digests of an image's configuration and layers."""
    entry = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    manifest = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
    for descriptor in (manifest["config"], *manifest["layers"]):
        yield descriptor["digest"]
