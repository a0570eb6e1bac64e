"""Small images made in memory, good ones and such as nobody should make. Standard library only."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(files: dict[str, bytes]) -> bytes:
    """Return an uncompressed layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Content:
    """Blobs and manifests by digest, and tags; what a registry has in one repository."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # digest -> media type, bytes
    tags: dict[str, str] = field(default_factory=dict)

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[sha256(data)] = data
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def document(self, document: dict[str, Any], media_type: str, tag: str = "") -> dict[str, Any]:
        """Store an index or a manifest and return its descriptor."""
        data = json.dumps(document, sort_keys=True).encode()
        self.manifests[sha256(data)] = (media_type, data)
        if tag:
            self.tags[tag] = sha256(data)
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def image(
        self,
        tag: str = "",
        *,
        layers: tuple[bytes, ...] = (),
        architecture: str = "amd64",
        config: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> dict[str, Any]:
        """Store an image of uncompressed `layers` and return its descriptor. `overrides` go into the manifest."""
        plain = layers or (layer({"etc/hello": b"hello\n"}),)
        document = {
            "os": "linux",
            "architecture": architecture,
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/true"], **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in plain]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(json.dumps(document).encode(), OCI_CONFIG),
            "layers": [self.blob(gzip.compress(data, 1, mtime=0), OCI_LAYER) for data in plain],
            **overrides,
        }
        descriptor = self.document(manifest, manifest["mediaType"], tag)
        return {**descriptor, "platform": {"os": "linux", "architecture": architecture}}

    def index(self, tag: str, *manifests: dict[str, Any]) -> dict[str, Any]:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
        return self.document(document, OCI_INDEX, tag)

    def manifest(self, reference: str) -> tuple[str, str, bytes] | None:
        """Return digest, media type and bytes for a tag or digest."""
        digest = self.tags.get(reference, reference)
        found = self.manifests.get(digest)
        return (digest, *found) if found else None

    def write_layout(self, folder: str, *, names: bool = True) -> None:
        """Write an OCI image layout in which each tag is a name."""
        os.makedirs(f"{folder}/blobs/sha256")
        everything = {**self.blobs, **{digest: data for digest, (_, data) in self.manifests.items()}}
        for digest, data in everything.items():
            _write(f"{folder}/blobs/{digest.replace(':', '/')}", data)
        entries = []
        for tag, digest in self.tags.items():
            media_type, data = self.manifests[digest]
            entry: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": len(data)}
            if names:
                entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
            entries.append(entry)
        _write(f"{folder}/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _write(f"{folder}/index.json", json.dumps({"schemaVersion": 2, "manifests": entries}).encode())


def archive(folder: str, path: str, *, prefix: str = "", format: int = tarfile.PAX_FORMAT) -> str:  # noqa: A002
    """Write the layout in `folder` as a tar archive and return its path."""
    with tarfile.open(path, "w", format=format) as tar:
        for root, _, files in sorted(os.walk(folder)):
            for name in sorted(files):
                full = f"{root}/{name}"
                tar.add(full, prefix + os.path.relpath(full, folder))
    return path


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data)
