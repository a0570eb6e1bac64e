from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci import model
from appbox.oci.model import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Platform,
    parse_config,
    parse_document,
    parse_index,
    parse_manifest,
    select,
)

D = "sha256:" + "a" * 64
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def descriptor(kind: str = LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": D, "size": 5, **more}


def manifest(**changes: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG),
        "layers": [descriptor()],
        **changes,
    }
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def index(*entries: dict[str, Any], **changes: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries), **changes}
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def entry(platform: str = "", kind: str = OCI_MANIFEST, number: int = 0) -> dict[str, Any]:
    parts = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False)) if platform else None
    return {**descriptor(kind), "digest": f"sha256:{number:064x}", **({"platform": parts} if parts else {})}


def config(**changes: Any) -> bytes:
    document = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": ["A=b"], "Cmd": ["x"], "Volumes": {"/data": {}}, "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": [D]},
        **changes,
    }
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def test_a_manifest() -> None:
    parsed = parse_manifest(manifest(annotations={"a": "b"}), OCI_MANIFEST)
    assert parsed.config.size == 5
    assert [str(layer.digest) for layer in parsed.layers] == [D]
    assert parsed.annotations == {"a": "b"}
    assert hash(parsed.layers[0])


@pytest.mark.parametrize(
    ("data", "media_type", "kind"),
    [
        (manifest(), "", OCI_MANIFEST),
        (manifest(mediaType=...), "", OCI_MANIFEST),
        (manifest(mediaType=...), "application/json; charset=utf-8", OCI_MANIFEST),
        (manifest(), OCI_MANIFEST.upper().lower() + "; x=y", OCI_MANIFEST),
        (manifest(mediaType=..., config=descriptor(DOCKER_CONFIG)), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (manifest(mediaType=DOCKER_MANIFEST, config=descriptor(DOCKER_CONFIG)), "", DOCKER_MANIFEST),
        (index(), "", OCI_INDEX),
        (index(mediaType=...), "", OCI_INDEX),
        (index(mediaType=DOCKER_INDEX), DOCKER_INDEX, DOCKER_INDEX),
    ],
)
def test_the_kind_is_what_all_agree_on(data: bytes, media_type: str, kind: str) -> None:
    assert parse_document(data, media_type).media_type == kind


@pytest.mark.parametrize(
    ("data", "media_type", "says"),
    [
        (manifest(), OCI_INDEX, "not what it is called"),
        (index(), OCI_MANIFEST, "not what it is called"),
        (manifest(), DOCKER_MANIFEST, "not what it is called"),
        (manifest(mediaType=...), OCI_INDEX, "read in two ways"),
        (index(mediaType=...), OCI_MANIFEST, "read in two ways"),
        (manifest(mediaType=OCI_INDEX), "", "read in two ways"),
        (manifest(manifests=[]), "", "read in two ways"),
        (manifest(Manifests=[]), "", "read in two ways"),
        (index(layers=[]), "", "read in two ways"),
        (index(config={}), "", "read in two ways"),
        (manifest(fsLayers=[]), "", "read in two ways"),
        (manifest(mediaType="application/vnd.oci.artifact.manifest.v1+json"), "", "not a container image"),
        (manifest(), "text/html", "not what it is called"),
        (manifest(mediaType=...), "text/html", "not a container image"),
        (manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")), "", "not a container image"),
        (manifest(config=descriptor("application/vnd.oci.empty.v1+json")), "", "not a container image"),
        (manifest(layers=[descriptor("application/vnd.in-toto+json")]), "", "no part of a root file system"),
        (manifest(layers=[descriptor(LAYER + "+encrypted")]), "", "encrypted"),
        (manifest(layers=[descriptor()] * 1025), "", "more than 1024"),
        (manifest(schemaVersion=1), "", "schema 1"),
        (manifest(schemaVersion=3), "", "schemaVersion 3"),
        (manifest(schemaVersion="2"), "", "whole number"),
        (manifest(schemaVersion=True), "", "whole number"),
        (manifest(schemaVersion=2.0), "", "whole number"),
        (b'{"schemaVersion": 2, "fsLayers": []}', SCHEMA1, "pull and push it once"),
        (manifest(layers=...), "", "layers of the image's manifest is missing"),
        (manifest(layers={}), "", "must be a list"),
        (manifest(layers=[1]), "", "not an object"),
        (manifest(config=...), "", "not an object"),
        (manifest(config=descriptor(OCI_CONFIG, size=4194305)), "", "larger than 4194304"),
        (manifest(layers=[descriptor(size=-1)]), "", "out of range"),
        (manifest(layers=[descriptor(size=1 << 63)]), "", "out of range"),
        (manifest(layers=[descriptor(size="5")]), "", "whole number"),
        (manifest(layers=[descriptor(size=True)]), "", "whole number"),
        (manifest(layers=[descriptor(digest="sha256:x")]), "", "sha256 digest"),
        (manifest(layers=[descriptor(digest=None)]), "", "is missing"),
        (manifest(layers=[descriptor("no type")]), "", "malformed"),
        (manifest(layers=[descriptor(urls="x")]), "", "must be a list"),
        (manifest(layers=[descriptor(annotations={"a": 1})]), "", "must be a string"),
        (b"", "", "not valid JSON"),
        (b"[]", "", "not a JSON object"),
        (b'{"a": 1, "a": 1}', "", "there twice"),
        (manifest()[:-1] + b', "schemaVersion": 2}', "", "there twice"),
        (b'{"a": NaN}', "", "NaN"),
        (b'\xef\xbb\xbf{"a": 1}', "", "not valid JSON"),
        (b'{"a": "\xff"}', "", "not valid JSON"),
        (b'{"a": "\\ud800"}', "", "not valid JSON"),
        (b"[" * 100000, "", "not valid JSON"),
        (b'{"a":' * 100000, "", "nested too deeply"),
        (b'{"size": ' + b"9" * 5000 + b"}", "", "not valid JSON"),
        (b" " * (4194304 + 1), "", "larger than 4194304"),
    ],
)
def test_what_is_refused(data: bytes, media_type: str, says: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_document(data, media_type)
    assert says in str(caught.value)


def test_an_index_is_no_manifest_and_a_manifest_no_index() -> None:
    with pytest.raises(Refused, match="an index stands where"):
        parse_manifest(index())
    with pytest.raises(Refused, match="an image's manifest stands where"):
        parse_index(manifest())


@pytest.mark.parametrize(
    ("host", "there", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64", "windows/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], 1),
        ("linux/arm64", ["linux/aarch64"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], 1),
        ("linux/arm/v7", ["linux/arm", "linux/arm/v6"], 0),
        ("linux/arm/v6", ["linux/arm/v5", "linux/arm/v7"], 0),
        ("linux/386", ["linux/amd64", "linux/386"], 1),
        ("linux/amd64", ["unknown/unknown", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
    ],
)
def test_selection(host: str, there: list[str], chosen: int) -> None:
    entries = [entry(platform, number=number) for number, platform in enumerate(there)]
    picked = select(parse_index(index(*entries)), Platform.parse(host))
    assert picked.digest.hex == f"{chosen:064x}"


@pytest.mark.parametrize(
    ("host", "there"),
    [
        ("linux/amd64", ["linux/amd64/v2"]),
        ("linux/arm/v6", ["linux/arm/v7"]),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v9"]),
        ("linux/riscv64", ["linux/amd64"]),
    ],
)
def test_what_does_not_run_is_not_selected(host: str, there: list[str]) -> None:
    with pytest.raises(Unavailable) as caught:
        select(parse_index(index(*map(entry, there))), Platform.parse(host))
    assert all(platform in str(caught.value) for platform in there)


def test_unknown_entries_are_passed_over_and_one_without_a_platform_is_taken() -> None:
    amd64 = Platform("linux", "amd64")
    attestation = entry("linux/amd64", "application/vnd.in-toto+json", 1)
    assert select(parse_index(index(attestation, entry(number=2))), amd64).digest.hex == f"{2:064x}"
    with pytest.raises(Unavailable, match="lists no platform"):
        select(parse_index(index(entry(number=1), entry(number=2))), amd64)
    with pytest.raises(Unavailable):
        select(Index(OCI_INDEX, ()), amd64)


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("i686", "linux/386"),
        ("z", "linux/z"),
    ],
)
def test_the_hosts_platform(machine: str, platform: str) -> None:
    assert str(Platform.host(machine)) == platform


def test_a_configuration() -> None:
    parsed = parse_config(config(created="2026-01-01T00:00:00Z"))
    assert parsed.platform == Platform("linux", "amd64")
    assert (parsed.env, parsed.cmd, parsed.entrypoint, parsed.volumes) == (("A=b",), ("x",), (), ("/data",))
    assert [str(digest) for digest in parsed.diff_ids] == [D]


def test_an_empty_configuration_is_one() -> None:
    parsed = parse_config(config(config=None, rootfs={"type": "layers", "diff_ids": []}))
    assert parsed.user == parsed.working_dir == parsed.stop_signal == ""
    nulls = dict.fromkeys(("User", "Env", "Cmd", "Entrypoint", "Volumes", "Labels", "ExposedPorts", "StopSignal"))
    assert parse_config(config(config=nulls)).labels == {}


@pytest.mark.parametrize(
    "change",
    [
        {"os": ...},
        {"architecture": ...},
        {"architecture": 1},
        {"config": []},
        {"config": {"Env": "A=b"}},
        {"config": {"Env": [1]}},
        {"config": {"Env": ["A=\0"]}},
        {"config": {"Cmd": "x"}},
        {"config": {"Cmd": [["x"]]}},
        {"config": {"Entrypoint": ["a\0b"]}},
        {"config": {"Volumes": ["/data"]}},
        {"config": {"Volumes": {"/a\0": {}}}},
        {"config": {"User": 0}},
        {"config": {"WorkingDir": "/\0"}},
        {"config": {"Labels": {"a": 1}}},
        {"rootfs": {"type": "other", "diff_ids": [D]}},
        {"rootfs": {"type": "layers", "diff_ids": ["x"]}},
        {"rootfs": {"type": "layers", "diff_ids": D}},
        {"rootfs": 1},
        {"history": {}},
        {"history": [1]},
    ],
)
def test_a_configuration_with_wrong_types_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        parse_config(config(**change))


def test_manifest_and_configuration_must_belong_together() -> None:
    parsed, amd64 = parse_manifest(manifest()), Platform("linux", "amd64")
    model.check(parsed, parse_config(config()), amd64)
    with pytest.raises(Refused, match="1 layers, its configuration 2"):
        model.check(parsed, parse_config(config(rootfs={"type": "layers", "diff_ids": [D, D]})), amd64)
    with pytest.raises(Unavailable, match="it is for linux/arm64"):
        model.check(parsed, parse_config(config(architecture="arm64")), amd64)


_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just(D), st.just(OCI_CONFIG), st.just(LAYER)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["mediaType", "digest", "size", "layers", "config", "manifests", "platform", "os", "rootfs"]
            ),
            inner,
        ),
    ),
    max_leaves=10,
)


@settings(max_examples=150)
@given(_JSON, st.sampled_from(["", OCI_INDEX, OCI_MANIFEST]))
def test_any_document_is_understood_or_refused(value: Any, media_type: str) -> None:
    if isinstance(value, dict):
        value["schemaVersion"] = 2
    for parse in (lambda data: parse_document(data, media_type), parse_config):
        try:
            parse(json.dumps(value).encode())
        except AppboxError:
            continue


def test_descriptors_of_layers_have_a_compression() -> None:
    assert model.LAYER_COMPRESSION[LAYER] == "gzip"
    assert model.LAYER_COMPRESSION["application/vnd.docker.image.rootfs.diff.tar.gzip"] == "gzip"
    assert model.LAYER_COMPRESSION["application/vnd.oci.image.layer.v1.tar+zstd"] == "zstd"
    assert model.LAYER_COMPRESSION["application/vnd.oci.image.layer.v1.tar"] == "plain"
    assert Descriptor(LAYER, model.parse_manifest(manifest()).layers[0].digest, 1).annotations == {}
