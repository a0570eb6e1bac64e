"""`appbox image inspect`, `diff` and `tags`: images looked at, not unpacked."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from appbox import comparing, describing, image_limits
from appbox.errors import UsageError, printable
from appbox.layers import layers_of
from appbox.oci import source as sources
from appbox.oci.cache import Cache
from appbox.oci.model import Image, Index, Platform, parse_document
from appbox.oci.reference import ImageRef, RegistryImage, parse_transport
from appbox.oci.settings import Settings
from appbox.oci.source import Source
from appbox.oci.unpack import list_image
from appbox.progress import on_terminal, progress
from appbox.session import Options, cache_path, wanted_platform
from appbox.tag_order import newest_last

_WANTED: Final = (comparing.PASSWD, comparing.GROUP)


def _cache(options: Options) -> Cache:
    with options.open_root(services=False) as root:
        return Cache(cache_path(root))


def inspect(options: Options, text: str, *, platform: str, raw: bool = False, config: bool = False) -> None:
    """Print what an image is and wants; with `raw` or `config` the very bytes of a document of it."""
    if raw and config:
        raise UsageError("--raw and --config cannot both be printed", hint="run it twice")
    reference, wanted = parse_transport(text), wanted_platform(platform)
    with sources.open_source(reference, _cache(options)) as source:
        top = source.top(reference.tag, reference.digest)
        if raw:
            _write(top.data)
            return
        image = source.resolve(reference.tag, reference.digest, wanted)
    if config:
        _write(image.config_bytes)
        return
    document = parse_document(top.data, top.media_type)
    data = describing.describe(image, document if isinstance(document, Index) else None)
    options.result(data, describing.text(data, datetime.now(UTC)))


def _write(data: bytes) -> None:
    """Write a document as it is: whoever asks for its bytes may want its digest."""
    sys.stdout.flush()
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(data.decode())  # a stream of text only; documents are UTF-8, or would have been refused


def diff(options: Options, before: str, after: str, *, platform: str) -> bool:
    """Print what changed from one image to the other; return whether anything did."""
    references = parse_transport(before), parse_transport(after)
    cache, wanted = _cache(options), wanted_platform(platform)
    sides = [_side(options, cache, reference, wanted) for reference in references]
    found = comparing.compare(*sides)
    paths = options.verbosity > 0
    options.result(comparing.data(found, paths=paths), comparing.text(found, paths=paths))
    return not found.same


def _side(options: Options, cache: Cache, reference: ImageRef, platform: Platform) -> comparing.Side:
    with sources.open_source(reference, cache) as source:
        image = source.resolve(reference.tag, reference.digest, platform)
        return _listed(options, source, image)


def _listed(options: Options, source: Source, image: Image) -> comparing.Side:
    # Bars go away again; lines would stand in the middle of what is asked for.
    with progress(options) if on_terminal() else contextlib.nullcontext() as shown:
        source.fetch(image, shown)
    with options.open_root(services=False) as root:
        limits = image_limits.load(root)
    listing = list_image(layers_of(image, partial(source.layer, image)), _WANTED, limits=limits, digests=True)
    passwd, group = (listing.read(path) for path in _WANTED)
    return comparing.Side(image, {entry.path: entry for entry in listing.drain()}, passwd, group)


def tags(options: Options, text: str) -> None:
    """Print the tags of a repository, those of versions in their order."""
    reference = parse_transport(text)
    if not isinstance(reference.image, RegistryImage):
        raise UsageError("only a registry has tags", where=text, hint="name a repository: docker://HOST/REPOSITORY")
    if reference.digest is not None or ":" in text.rpartition("/")[2]:
        raise UsageError("this names one image, not a repository", where=text, hint="leave the tag or digest away")
    from appbox.oci.registry import Registry  # noqa: PLC0415  # httpx costs 70 ms

    registry = Registry(reference.image, Settings())
    try:
        found = newest_last(registry.tags())
    finally:
        registry.close()
    data: dict[str, Any] = {"repository": str(reference.image), "tags": found}
    options.result(data, printable("".join(f"{tag}\n" for tag in found)))
