"""An image written as an archive that `docker load` and `podman load` take, with the same members as skopeo's.

The format holds no manifest: a list of configuration and layers stands in `manifest.json`, layers are stored
uncompressed under their diff_id. The directories and `repositories` are for Docker before 1.10 (Docker Image
Specification v1.0). Like skopeo, this does not add to an archive that is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

from appbox.errors import AppboxError, Refused
from appbox.oci import json_document as fields
from appbox.oci.cache import CHUNK
from appbox.oci.digest import Digest
from appbox.oci.expand import check_size
from appbox.oci.inflate import inflate
from appbox.oci.limits import Limits
from appbox.oci.model import LAYER_COMPRESSION, Descriptor, Image
from appbox.oci.new_file import NewFile, occupied
from appbox.oci.tar_writer import TarWriter

_LEGACY: Final = ("architecture", "config", "container", "container_config", "created", "docker_version", "os")
"""What the configuration of the top layer has of the image's, in the format of Docker before 1.10."""

Progress = Callable[[Digest, int, int], object]


def refuse_existing(path: str) -> None:
    """Raise `AppboxError` when something is at `path`; an empty file is taken as a new one."""
    if occupied(path):
        why = "a docker-archive cannot be changed"
        raise AppboxError("is there already", where=path, why=why, hint="name a new file, or remove this one first")


def write_docker_archive(
    path: str,
    name: str | None,
    image: Image,
    open_blob: Callable[[Descriptor], BinaryIO],
    report: Progress,
    *,
    limits: Limits = Limits(),  # noqa: B008 - a frozen value
) -> None:
    """Write `image` to the new file `path` under `name`, NAME:TAG written out, or without a name.

    Raises `Refused` when a layer is not what manifest and configuration say; nothing is left then.
    """
    refuse_existing(path)
    with NewFile(path) as file:
        tar = TarWriter(file.fd, 0o444)
        _Layers(tar, open_blob, report, limits).write(image)
        config = f"{image.manifest.config.digest.hex}.json"
        tar.add(config, image.config_bytes)
        top = _write_legacy(tar, image)
        layers = [_layer_name(diff_id) for diff_id in image.config.diff_ids]
        tar.add("manifest.json", _json([{"Config": config, "RepoTags": [name] if name else [], "Layers": layers}]))
        repository, _, tag = (name or "").rpartition(":")
        tar.add("repositories", _json({repository: {tag: top}} if name and top else {}))
        tar.finish()
        file.commit()


class _Layers:
    """Writes the layers of one image, each content once, and counts for the limits of the image."""

    def __init__(
        self, tar: TarWriter, open_blob: Callable[[Descriptor], BinaryIO], report: Progress, limits: Limits
    ) -> None:
        self._tar, self._open, self._report, self._limits = tar, open_blob, report, limits
        self._consumed = self._produced = 0

    def write(self, image: Image) -> None:
        written: set[Digest] = set()
        for descriptor, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
            if diff_id in written:
                continue
            written.add(diff_id)
            hasher = diff_id.hasher()
            with self._tar.member(_layer_name(diff_id)) as write:
                for block in inflate(LAYER_COMPRESSION[descriptor.media_type], self._blocks(descriptor)):
                    self._produced += len(block)
                    check_size(self._consumed, self._produced, self._limits)
                    hasher.update(block)
                    write(block)
            if hasher.hexdigest() != diff_id.hex:
                why = f"{diff_id.algorithm}:{hasher.hexdigest()} instead of {diff_id}"
                raise Refused("the diff_id of a layer is wrong", where=f"layer {descriptor.digest.short}", why=why)

    def _blocks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield the stored bytes of a layer; what is wrong with them is raised at their end."""
        hasher = descriptor.digest.hasher()
        where, done = f"layer {descriptor.digest.short}", 0
        with self._open(descriptor) as stream:
            while data := stream.read(CHUNK):
                done += len(data)
                self._consumed += len(data)
                if done > descriptor.size:
                    raise Refused("a layer is longer than its manifest says", where=where)
                hasher.update(data)
                yield data
                self._report(descriptor.digest, done, descriptor.size)
        if done != descriptor.size:
            why = f"{done} of {descriptor.size} bytes"
            raise Refused("a layer is shorter than its manifest says", where=where, why=why)
        if hasher.hexdigest() != descriptor.digest.hex:
            raise Refused("the digest of a layer is wrong", where=where, why=f"instead of {descriptor.digest}")


def _write_legacy(tar: TarWriter, image: Image) -> str:
    """Write a directory for each layer, and return the name of the top one; "" when there is no layer."""
    document = fields.parse_object(image.config_bytes, "the image's configuration")
    parent, chain, written = "", "", set[str]()
    for at, diff_id in enumerate(image.config.diff_ids):
        config: dict[str, Any] = {"parent": parent} if parent else {}
        if at == len(image.config.diff_ids) - 1:
            config |= {key: document.get(key) for key in _LEGACY}
        chain = f"{Digest.of(f'{chain} {diff_id}'.encode())}" if chain else str(diff_id)
        parent = hashlib.sha256(_json({**config, "layer_id": chain})).hexdigest()
        if parent not in written:
            written.add(parent)
            tar.link(f"{parent}/layer.tar", f"../{_layer_name(diff_id)}")
            tar.add(f"{parent}/VERSION", b"1.0")
            tar.add(f"{parent}/json", _json({**config, "id": parent}))
    return parent


def _layer_name(diff_id: Digest) -> str:
    return f"{diff_id.hex}.tar"


def _json(data: Any) -> bytes:
    """Return JSON as Go writes it, which is what made the names in the archives of others."""
    ordered = dict(sorted(data.items())) if isinstance(data, dict) else data
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()
