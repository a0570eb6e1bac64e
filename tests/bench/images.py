"""The measured images as OCI layouts, made once and kept: shapes in, blobs out. Apart from the product, as its peers
read what is made here too."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from tests.bench import content
from tests.bench.shapes import SHAPES, Directory, File, Item, Layer, Link, Whiteout
from tests.ground import cache, oci_image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

REF = "1"
CONFIG = {"Cmd": ["/bin/true"], "Env": ["PATH=/bin"]}
_SOURCES = ("content.py", "images.py", "shapes.py")
_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+"
_END = bytes(1024)
_BLOCK = 512


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def ensure(name: str) -> Path:
    """Return the layout of the image `name`, made when it is missing or other than the code here says."""
    here = Path(__file__).parent
    sources = [(here / source).read_text(encoding="utf-8") for source in _SOURCES]
    layout = cache.root() / "bench" / f"{name}.{cache.key(sources)}"
    with cache.locked(layout):
        if not layout.exists():
            cache.say(f"making the image {name!r} for measuring")
            cache.forget_others(layout, f"{name}.")
            with cache.replacing(layout) as fresh:
                build(name, fresh)
    return layout


def build(name: str, layout: Path) -> None:
    """Fill the empty directory `layout`."""
    shape = SHAPES[name]
    layers = [store(layout, shape.codec, tar(layer)) for layer in shape.layers()]
    oci_image.finish(layout, layers, CONFIG, REF, {})


def store(layout: Path, codec: str, chunks: Iterable[bytes]) -> oci_image.Layer:
    """Store a tar stream as a layer in `layout`."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    part = blobs / "part"
    plain, packed, packer = hashlib.sha256(), hashlib.sha256(), compressor(codec)
    with part.open("wb") as file:
        for chunk in chunks:
            plain.update(chunk)
            data = packer.compress(chunk)
            packed.update(data)
            file.write(data)
        data = packer.flush()
        packed.update(data)
        file.write(data)
        size = file.tell()
    part.rename(blobs / packed.hexdigest())
    return oci_image.Layer(f"sha256:{packed.hexdigest()}", size, f"sha256:{plain.hexdigest()}", _MEDIA_TYPE + codec)


def compressor(codec: str) -> _Compressor:
    """Return what packs as the usual tools do when nothing is said."""
    return zstd.ZstdCompressor(level=3) if codec == "zstd" else zlib.compressobj(6, zlib.DEFLATED, 31)


def tar(layer: Layer) -> Iterator[bytes]:
    """Yield a tar stream, in pieces that are no multiples of anything."""
    gathered = io.BytesIO()
    for item in layer:
        for piece in member(item):
            gathered.write(piece)
            if gathered.tell() > content.PIECE:
                yield gathered.getvalue()
                gathered = io.BytesIO()
    yield gathered.getvalue() + _END


def member(item: Item) -> Iterator[bytes]:
    """Yield the header of a member and its data."""
    info = tarfile.TarInfo(item.path)
    info.mtime, info.mode = oci_image.EPOCH, 0o755
    match item:
        case Directory():
            info.type = tarfile.DIRTYPE
            yield header(info)
        case Link():
            info.type = tarfile.LNKTYPE if item.hard else tarfile.SYMTYPE
            info.linkname = item.target
            yield header(info)
        case Whiteout():
            above, _, name = item.path.rpartition("/")
            info.name = f"{item.path}/.wh..wh..opq" if item.opaque else f"{above}/.wh.{name}"
            yield header(info)
        case File(sparse=True):
            yield from sparse_member(info, item)
        case File():
            info.mode, info.size = 0o644, item.size
            yield header(info)
            yield from file_data(item)
            yield bytes(-info.size % _BLOCK)


def header(info: tarfile.TarInfo) -> bytes:
    """Return a header block as GNU tar writes it."""
    return info.tobuf(tarfile.GNU_FORMAT)


def sparse_member(info: tarfile.TarInfo, item: File) -> Iterator[bytes]:
    """Yield a file in the sparse form of PAX, version 1.0, which all tools know (GNU tar's manual, "Storing Sparse
    Files")."""
    numbers = [len(item.extents), *(number for extent in item.extents for number in extent)]
    extents = "".join(f"{number}\n" for number in numbers).encode()
    extents += bytes(-len(extents) % _BLOCK)
    above, _, name = item.path.rpartition("/")
    info.name, info.mode = f"{above}/GNUSparseFile.0/{name}", 0o644
    info.size = len(extents) + sum(length for _, length in item.extents)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": item.path,
        "GNU.sparse.realsize": str(item.size),
    }
    yield info.tobuf(tarfile.PAX_FORMAT)
    yield extents
    yield from file_data(item)
    yield bytes(-info.size % _BLOCK)


def file_data(item: File) -> Iterator[bytes]:
    """Yield what the archive holds of a file's data."""
    if not item.extents:
        yield from content.data(item.seed, item.size)
        return
    position = 0
    for number, (offset, length) in enumerate(item.extents):
        if not item.sparse:
            yield from content.zeros(offset - position)
        yield from content.data(item.seed * 100 + number, length)
        position = offset + length
    if not item.sparse:
        yield from content.zeros(item.size - position)
