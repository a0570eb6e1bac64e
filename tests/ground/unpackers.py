"""Other people's unpackers, each given the same image: umoci, podman and GNU tar. What they make is a tree."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.ground.layers import OCI, digest
from tests.ground.tiny import OCI_CONFIG, OCI_MANIFEST
from tests.ground.trees import Thing, things

REF: Final = "x"


def compressed(tar: bytes, form: str) -> bytes:
    """Return a layer's bytes; `form` is plain, gzip, members (gzip of several) or zstd."""
    if form == "plain":
        return tar
    if form == "gzip":
        return gzip.compress(tar, 1, mtime=0)
    if form == "members":
        half = len(tar) // 2
        return gzip.compress(tar[:half], 1, mtime=0) + gzip.compress(tar[half:], 6, mtime=0)
    zstd: Any
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return bytes(zstd.compress(tar))


def layout(place: Path, tars: Sequence[bytes], forms: Sequence[str]) -> str:
    """Write an OCI layout whose one image has these layers, and return its reference without a transport."""
    (place / "blobs/sha256").mkdir(parents=True)

    def blob(data: bytes) -> dict[str, Any]:
        (place / "blobs/sha256" / digest(data).partition(":")[2]).write_bytes(data)
        return {"digest": digest(data), "size": len(data)}

    def document(value: object) -> dict[str, Any]:
        return blob(json.dumps(value).encode())

    suffix = {"plain": "", "members": "+gzip"}
    layers = [
        {"mediaType": OCI + suffix.get(form, f"+{form}"), **blob(compressed(tar, form))}
        for tar, form in zip(tars, forms, strict=True)
    ]
    rootfs = {"type": "layers", "diff_ids": [digest(tar) for tar in tars]}
    config = document({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs})
    manifest = document(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {"mediaType": OCI_CONFIG, **config}, "layers": layers}
    )
    entry = {"mediaType": OCI_MANIFEST, **manifest, "annotations": {"org.opencontainers.image.ref.name": REF}}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"{place}:{REF}"


def by_appbox(image: str, place: Path) -> dict[str, Thing]:
    """Unpack with the command."""
    words = [
        sys.executable,
        "-m",
        "appbox",
        "--root",
        place / "system",
        "image",
        "unpack",
        f"oci:{image}",
        place / "rootfs",
    ]
    (place / "system").mkdir(parents=True)
    run(*words)
    return things(place / "rootfs")


def by_umoci(image: str, place: Path) -> dict[str, Thing]:
    """Unpack with umoci, which knows neither zstd nor layers of several gzip members."""
    run("umoci", "raw", "unpack", "--image", image, place)
    return things(place)


def by_podman(image: str, place: Path) -> dict[str, Thing]:
    """Pull into a storage of its own (vfs: a plain directory for each layer), and look at the image's root."""
    # podman takes no longer name of a directory for its run-time state than 50 characters.
    with tempfile.TemporaryDirectory(prefix="appbox-podman.") as short:
        own = [
            "--root",
            f"{place}/root",
            "--runroot",
            f"{short}/run",
            "--tmpdir",
            f"{short}/tmp",
            "--storage-driver",
            "vfs",
        ]
        pulled = run("podman", *own, "pull", "--quiet", f"oci:{image}").strip()
        return things(Path(run("podman", *own, "image", "mount", pulled).strip()))


def by_tar(tar: Path, place: Path) -> dict[str, Thing]:
    """Unpack one archive with GNU tar."""
    place.mkdir()
    run("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-C", place, "-xf", tar)
    return things(place)


def run(*words: object) -> str:
    """Run a program and return what it printed; what it said goes into the error."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout
