"""Tar files in, an OCI image layout out. Apart from the product, so that neither proves the other's faults right."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

CHUNK = 1 << 20
EPOCH = 1_700_000_000  # the same bytes at each build
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as it lies in the layout."""

    digest: str
    size: int
    diff_id: str
    media_type: str = "application/vnd.oci.image.layer.v1.tar+gzip"


class _Hashing:
    """Writes to a file and hashes what passes; what gzip needs to write to, and no more."""

    def __init__(self, target: BinaryIO) -> None:
        self.target, self.hash, self.size = target, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self.target.write(data)

    def flush(self) -> None:
        self.target.flush()


def add_layer(layout: Path, tar: BinaryIO) -> Layer:
    """Store the tar stream as a gzip layer in `layout`."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    plain, part = hashlib.sha256(), blobs / "part"
    with part.open("wb") as file:
        packed = _Hashing(file)
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=packed, mtime=0) as stream:
            while chunk := tar.read(CHUNK):
                plain.update(chunk)
                stream.write(chunk)
    part.rename(blobs / packed.hash.hexdigest())
    return Layer(f"sha256:{packed.hash.hexdigest()}", packed.size, f"sha256:{plain.hexdigest()}")


def add_blob(layout: Path, data: bytes) -> dict[str, Any]:
    """Store `data`; return digest and size as a descriptor has them."""
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def finish(layout: Path, layers: Iterable[Layer], config: Mapping[str, Any], ref: str, note: Mapping[str, str]) -> None:
    """Write configuration, manifest and index; `note` goes to the annotations of the index entry."""
    layers = tuple(layers)
    machine = {"architecture": ARCHITECTURES[platform.machine()], "os": "linux"}
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    image = {"created": "2023-11-14T22:13:20Z", **machine, "config": dict(config), "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **add_blob(layout, dump(image))},
        "layers": [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers],
    }
    entry = {"mediaType": manifest["mediaType"], **add_blob(layout, dump(manifest)), "platform": machine}
    entry["annotations"] = {"org.opencontainers.image.ref.name": ref, **note}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    (layout / "index.json").write_bytes(dump(index))
    (layout / "oci-layout").write_bytes(dump({"imageLayoutVersion": "1.0.0"}))


def dump(value: object) -> bytes:
    """Return `value` as JSON, the same bytes each time."""
    return json.dumps(value, indent=2, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Member:
    """A file (`data`), a symbolic link (`link`) or, with neither, a directory."""

    path: str
    mode: int = 0o755
    data: bytes | None = None
    link: str = ""


def tar_of(members: Iterable[Member]) -> BinaryIO:
    """Return a tar of `members`, owned by root, with the directories above them that `members` do not name left out."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member.path)
            info.mode, info.mtime = member.mode, EPOCH
            info.type = tarfile.SYMTYPE if member.link else tarfile.DIRTYPE if member.data is None else tarfile.REGTYPE
            info.linkname, info.size = member.link, len(member.data or b"")
            tar.addfile(info, io.BytesIO(member.data or b""))
    out.seek(0)
    return out
