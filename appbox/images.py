"""`appbox image …`: images without services."""

from __future__ import annotations

import os
from typing import Any

from appbox.actions import megabytes
from appbox.errors import AppboxError, UsageError, printable
from appbox.host.inside import remove_tree
from appbox.layers import layers_of
from appbox.oci import source as sources
from appbox.oci import unpack as unpacker
from appbox.oci.cache import Cache
from appbox.oci.model import Image, Platform
from appbox.oci.reference import parse_transport
from appbox.oci.source import Source
from appbox.progress import progress
from appbox.session import Options, cache_path, require_root_user
from appbox.store import files

_MAP_LIMIT = 2**32 - 1
"""The id -1 means "leave it" to chown(2)."""


def _resolve(source: Source, text: str, platform: str) -> Image:
    reference = parse_transport(text)
    wanted = Platform.parse(platform) if platform else Platform.host(os.uname().machine)
    return source.resolve(reference.tag, reference.digest, wanted)


def unpack(options: Options, text: str, directory: str, *, id_map: str, platform: str) -> None:
    """Unpack an image to a new directory, by one rename; nothing is left of a refused one."""
    idmap = _parse_map(id_map)
    require_root_user("appbox image unpack")
    place = os.path.abspath(directory)
    parent, name = os.path.realpath(os.path.dirname(place)), os.path.basename(place)
    if not name:
        raise UsageError("the root of the system cannot be unpacked to", where=directory)
    with options.open_root() as root:
        cache = Cache(cache_path(root))
    with files.directory(parent) as folder:
        _refuse_occupied(folder, name, directory)
        temporary = f".{name}{files.TEMPORARY}"
        remove_tree(folder, temporary)
        try:
            image = _unpack_to(options, cache, text, platform, idmap, folder, temporary)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            remove_tree(folder, temporary)
    data = {"directory": directory, "reference": image.reference, "digest": str(image.digest)}
    options.result(data, "" if options.verbosity < 0 else printable(f"{directory}: {image.reference} {image.digest}\n"))


def _unpack_to(  # noqa: PLR0917
    options: Options, cache: Cache, text: str, platform: str, idmap: unpacker.IdMap, folder: int, name: str
) -> Image:
    with sources.open_source(parse_transport(text), cache) as source:
        image = _resolve(source, text, platform)
        with progress(options) as shown:
            source.fetch(image, shown)
        os.mkdir(name, 0o700, dir_fd=folder)
        with files.directory(name, folder) as fd:
            unpacker.unpack(layers_of(source, image), fd, idmap)
    return image


def _refuse_occupied(folder: int, name: str, directory: str) -> None:
    """Refuse to write over anything; an empty directory is taken as a new one."""
    if not files.exists(name, folder):
        return
    try:
        with files.directory(name, folder) as fd:
            if not os.listdir(fd):
                return
    except OSError:
        pass
    raise AppboxError("is there already", where=directory, hint="name a new directory")


def _parse_map(text: str) -> unpacker.IdMap:
    if not text:
        return unpacker.IdMap(0, 65536)
    parts = text.split(":")
    numbers = [int(p) for p in parts if p.isascii() and p.isdigit() and len(p) <= 10]
    if len(numbers) != 2 or len(parts) != 2 or numbers[1] < 1 or sum(numbers) > _MAP_LIMIT:
        raise UsageError(f"{text!r} is no range of ids", where="--map", hint="write BASE:SIZE, as in 200000:65536")
    return unpacker.IdMap(numbers[0], numbers[1])


def inspect(options: Options, text: str, *, platform: str) -> None:
    """Print what an image is and wants."""
    with options.open_root() as root:
        cache = Cache(cache_path(root))
    with sources.open_source(parse_transport(text), cache) as source:
        image = _resolve(source, text, platform)
    data = describe(image)
    options.result(data, _text(data))


def describe(image: Image) -> dict[str, Any]:
    """Return an image as JSON data; sizes in bytes, compressed."""
    config = image.config
    return {
        "reference": image.reference,
        "digest": str(image.digest),
        "index": str(image.index_digest or ""),
        "platform": str(image.platform),
        "created": config.created,
        "entrypoint": list(config.entrypoint),
        "cmd": list(config.cmd),
        "user": config.user,
        "workdir": config.working_dir,
        "env": list(config.env),
        "volumes": list(config.volumes),
        "ports": list(config.exposed_ports),
        "stop_signal": config.stop_signal,
        "labels": dict(config.labels),
        "size": sum(layer.size for layer in image.manifest.layers),
        "layers": [
            {"digest": str(d.digest), "diff_id": str(diff), "size": d.size, "media_type": d.media_type}
            for d, diff in zip(image.manifest.layers, config.diff_ids, strict=True)
        ],
    }


def _text(data: dict[str, Any]) -> str:
    lines = []
    for key, value in data.items():
        if key == "layers":
            lines += [f"layer: {one['digest']} {megabytes(one['size'])}" for one in value]
        elif key == "size":
            lines.append(f"size: {megabytes(value)}")
        elif isinstance(value, dict):
            lines += [f"label: {name}={text}" for name, text in sorted(value.items())]
        elif isinstance(value, list) and key in {"env", "volumes", "ports"}:
            lines += [f"{key.removesuffix('s')}: {item}" for item in value]
        elif value:
            lines.append(f"{key}: {value}")
    return "".join(printable(line).replace("\n", "\\n") + "\n" for line in lines)
