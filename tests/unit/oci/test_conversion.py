"""Docker's manifests under OCI's names."""

from __future__ import annotations

import json
from typing import Any

from appbox.oci.conversion import OCI_TYPES, as_oci
from appbox.oci.digest import Digest
from appbox.oci.model import LAYER_COMPRESSION, Index, parse_document, parse_index, parse_manifest
from appbox.oci.source import Document

DOCKER = "application/vnd.docker."
MANIFEST, LIST = f"{DOCKER}distribution.manifest.v2+json", f"{DOCKER}distribution.manifest.list.v2+json"


def document(data: dict[str, Any], kind: str) -> Document:
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **data}).encode()
    return Document(Digest.of(raw), raw, kind)


def blob(kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "size": 1, "digest": f"sha256:{'1' * 64}", **more}


def docker(**more: Any) -> Document:
    layers = [blob(f"{DOCKER}image.rootfs.diff.tar{suffix}") for suffix in ("", ".gzip", ".zstd")]
    layers.append(blob(f"{DOCKER}image.rootfs.foreign.diff.tar.gzip", urls=["https://h/x"]))
    return document({"config": blob(f"{DOCKER}container.image.v1+json"), "layers": layers, **more}, MANIFEST)


def test_a_manifest_changes_its_types_only() -> None:
    before = docker(annotations={"a": "b"})
    (after,) = as_oci([before])
    one, other = parse_manifest(before.data), parse_manifest(after.data, after.media_type)
    assert after.digest == Digest.of(after.data)
    assert other.annotations == {"a": "b"}
    assert [layer.digest for layer in other.layers] == [layer.digest for layer in one.layers]
    assert [layer.urls for layer in other.layers] == [layer.urls for layer in one.layers]
    assert "docker" not in after.data.decode()
    for layer, made in zip(one.layers, other.layers, strict=True):
        assert LAYER_COMPRESSION[made.media_type] == LAYER_COMPRESSION[layer.media_type]


def test_every_type_of_docker_has_one_of_oci() -> None:
    assert {kind for kind in LAYER_COMPRESSION if kind.startswith(DOCKER)} <= set(OCI_TYPES)
    assert not set(OCI_TYPES) & set(OCI_TYPES.values())


def test_a_list_names_what_its_entries_became() -> None:
    child, other = docker(), docker(annotations={"x": "y"})
    platform = {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["x"]}
    entries = [
        {"mediaType": one.media_type, "digest": str(one.digest), "size": len(one.data), "platform": platform}
        for one in (child, other)
    ]
    made = as_oci([child, other, document({"manifests": entries}, LIST)])
    index = parse_index(made[-1].data, made[-1].media_type)
    assert [one.digest for one in index.manifests] == [one.digest for one in made[:-1]]
    assert [one.size for one in index.manifests] == [len(one.data) for one in made[:-1]]
    assert json.loads(made[-1].data)["manifests"][0]["platform"] == platform


def test_what_is_ocis_already_keeps_its_bytes() -> None:
    oci = document(
        {
            "config": blob("application/vnd.oci.image.config.v1+json"),
            "layers": [blob("application/vnd.in-toto+json")],
        },
        "application/vnd.oci.image.manifest.v1+json",
    )
    opaque = Document(Digest.of(b"\x00"), b"\x00", "a/b")
    entry = [{"mediaType": one.media_type, "digest": str(one.digest), "size": len(one.data)} for one in (oci, opaque)]
    index = document({"manifests": entry}, "application/vnd.oci.image.index.v1+json")
    assert as_oci([oci, opaque, index]) == (oci, opaque, index)


def test_an_index_of_both_kinds() -> None:
    child = docker()
    entry = {"mediaType": child.media_type, "digest": str(child.digest), "size": len(child.data)}
    made = as_oci([child, document({"manifests": [entry]}, "application/vnd.oci.image.index.v1+json")])
    index = parse_document(made[-1].data)
    assert isinstance(index, Index)
    assert index.manifests[0].digest == made[0].digest


def test_a_manifest_without_layers_or_configuration_gets_none() -> None:
    artifact = document({"artifactType": "application/x"}, "application/vnd.oci.image.manifest.v1+json")
    assert as_oci([artifact]) == (artifact,)
    (after,) = as_oci([document({}, MANIFEST)])
    assert json.loads(after.data).keys() == {"schemaVersion", "mediaType"}
