"""Archives as docker and podman save them, good ones and such as nobody should make."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.expand import open_expanded
from appbox.oci.limits import Limits
from appbox.oci.model import Image, Platform
from appbox.oci.reference import parse_image
from appbox.oci.source import open_source
from tests.ground import layers
from tests.ground.tiny import layer, sha256

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

AMD64 = Platform("linux", "amd64")
ONE, TWO = layer({"a": b"a"}), layer({"b": b"b" * 3000})
Members = dict[str, bytes | str]
"""Files as bytes, symlinks as text."""


def config(*layers: bytes, **more: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [sha256(data) for data in layers]}
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs, "config": more}).encode()


def pack(members: Members, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def listed(*items: dict[str, Any]) -> bytes:
    return json.dumps(items).encode()


def old() -> Members:
    """What `docker save` wrote until 24: a directory for each layer, links for the same one again."""
    return {
        "1/layer.tar": ONE,
        "1/VERSION": b"1.0",
        "2/layer.tar": TWO,
        "3/layer.tar": "../1/layer.tar",
        "c.json": config(ONE, TWO, ONE),
        "manifest.json": listed(
            {
                "Config": "c.json",
                "RepoTags": ["valkey/valkey:9.0.0"],
                "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"],
            }
        ),
    }


def new() -> Members:
    """What `docker save` writes since 25: blobs of a layout, compressed where the store has them so."""
    packed = gzip.compress(TWO, 1, mtime=0)
    names = [f"blobs/sha256/{hashlib.sha256(data).hexdigest()}" for data in (ONE, packed, config(ONE, TWO))]
    item = {"Config": names[2], "RepoTags": None, "Layers": names[:2], "LayerSources": {}}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": b'{"schemaVersion": 2, "manifests": []}',
        names[0]: ONE,
        names[1]: packed,
        names[2]: config(ONE, TWO),
        "manifest.json": listed(item),
    }


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cache"))


def load(folder: Path, text: str, version: str | None = None, digest: Digest | None = None) -> Image:
    with open_source(parse_image(text), Cache(str(folder / "cache")), base_dir=str(folder)) as source:
        image = source.resolve(version, digest, AMD64)
        source.fetch(image)
        for descriptor in image.manifest.layers:
            with source.layer(image, descriptor) as stream:
                assert descriptor.digest.matches(stream.read())
        return image


def refused(folder: Path, members: Members | bytes, text: str = "docker-archive:x.tar") -> AppboxError:
    (folder / "x.tar").write_bytes(members if isinstance(members, bytes) else pack(members))
    with pytest.raises((Refused, Unavailable)) as caught:
        load(folder, text)
    assert not list(folder.glob("cache/.partial/*"))
    return caught.value


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_what_docker_saved_before_25(tmp_path: Path, compress: Any) -> None:
    (tmp_path / "x.tar").write_bytes(compress(pack(old())))
    image = load(tmp_path, "docker-archive:x.tar")
    assert [str(one.digest) for one in image.manifest.layers] == [sha256(ONE), sha256(TWO), sha256(ONE)]
    assert {one.media_type for one in image.manifest.layers} == {"application/vnd.oci.image.layer.v1.tar"}
    assert str(image.manifest.config.digest) == sha256(config(ONE, TWO, ONE))
    assert load(tmp_path, "docker-archive:x.tar", digest=image.digest).manifest_bytes == image.manifest_bytes
    assert sorted(os.listdir(tmp_path / "cache")) == [".partial", "blobs", "index.json", "oci-layout"]


def test_what_docker_saves_since_25(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(pack(new()))
    image = load(tmp_path, "docker-archive:x.tar", "any")
    kinds = [one.media_type.rpartition("v1.")[2] for one in image.manifest.layers]
    assert kinds == ["tar", "tar+gzip"]
    assert str(image.manifest.layers[1].digest) == sha256(gzip.compress(TWO, 1, mtime=0))


def test_layers_compressed_under_any_name(tmp_path: Path) -> None:
    packed = [gzip.compress(ONE), zstd.compress(TWO)]
    item = {"Config": "c", "RepoTags": [], "Layers": ["./a.tar.gz", "b"]}
    members = {"./a.tar.gz": packed[0], "b": packed[1], "c": config(ONE, TWO), "manifest.json": listed(item)}
    assert "lacks a file" in str(refused(tmp_path, dict(members)))  # names are compared as they are
    item["Layers"] = ["a.tar.gz", "b"]
    (tmp_path / "x.tar").write_bytes(pack({**members, "manifest.json": listed(item)}))
    image = load(tmp_path, "docker-archive:x.tar")
    assert [str(one.digest) for one in image.manifest.layers] == [sha256(data) for data in packed]


def test_which_image_is_meant(tmp_path: Path) -> None:
    members: Members = {"l": ONE, "c1": config(ONE, User="1"), "c2": config(ONE, User="2"), "c3": config(ONE)}
    items = [
        {"Config": "c1", "RepoTags": ["a:1", "h.io:5/b/c:2"], "Layers": ["l"]},
        {"Config": "c2", "RepoTags": ["docker.io/library/a:2", "!"], "Layers": ["l"]},
        {"Config": "c3", "RepoTags": None, "Layers": ["l"]},
    ]
    (tmp_path / "x.tar").write_bytes(pack({**members, "manifest.json": listed(*items)}))

    def user(text: str, version: str | None = None, digest: Digest | None = None) -> str:
        return load(tmp_path, f"docker-archive:x.tar{text}", version, digest).config.user

    assert [user(f":@{at}") for at in range(3)] == ["1", "2", ""]
    assert [user(text) for text in (":a:1", ":docker.io/a:1", ":a:2", ":h.io:5/b/c:2")] == ["1", "1", "2", "1"]
    assert user("", "1") == "1"
    assert user("", "9") == ""  # the one without a name
    second = load(tmp_path, "docker-archive:x.tar:@1").digest
    assert user("", None, second) == "2"
    with pytest.raises(Refused, match="does not have the digest asked for"):
        user(":@0", None, second)
    with pytest.raises(Unavailable, match=r"several images: it has docker\.io/library/a:1, h\.io:5/b/c:2, docker"):
        user("", "2")
    for text in ("", ":@3", ":a", ":b:1"):
        with pytest.raises(Unavailable, match="image"):
            user(text)


def test_another_source_of_the_same_archive_has_the_layers(tmp_path: Path, cache: Cache) -> None:
    """What a plan has resolved is unpacked later; an archive that became another one meanwhile is refused in words."""
    (tmp_path / "x.tar").write_bytes(pack(new()))
    image = load(tmp_path, "docker-archive:x.tar")
    name = parse_image("docker-archive:x.tar")
    with open_source(name, cache, base_dir=str(tmp_path)) as source:
        source.fetch(image)
    (tmp_path / "x.tar").write_bytes(pack(old()))
    with open_source(name, cache, base_dir=str(tmp_path)) as source, pytest.raises(Unavailable, match="has changed"):
        source.fetch(image)


def test_another_platform(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(pack(old()))
    source = open_source(parse_image("docker-archive:x.tar"), Cache(str(tmp_path / "cache")), base_dir=str(tmp_path))
    with source, pytest.raises(Unavailable, match="not made for linux/arm64"):
        source.resolve(None, None, Platform("linux", "arm64"))


def test_every_member_corrupted_in_turn(tmp_path: Path) -> None:
    for make in (old, new):
        good = make()
        used = [name for name in good if not name.endswith(("VERSION", "oci-layout", "index.json"))]
        for name in used:
            data = good[name]
            without = {one: kept for one, kept in good.items() if one != name}
            refused(tmp_path, without)
            if isinstance(data, bytes):
                for bad in (b"\0" + data[1:], data[:-1], data + b"x", b""):
                    refused(tmp_path, {**good, name: bad})
        (tmp_path / "x.tar").write_bytes(pack(good))
        load(tmp_path, "docker-archive:x.tar")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"3/layer.tar": "../../1/layer.tar"}, "a link leads out of the archive"),
        ({"3/layer.tar": "/etc/passwd"}, "a link leads out of the archive"),
        ({"3/layer.tar": "layer.tar"}, "behind more than 8 links"),
        ({"3/layer.tar": "../1/none"}, "the archive lacks a file"),
        ({"3/layer.tar": ""}, "the archive lacks a file"),
        ({"manifest.json": b"{}"}, "is not a JSON list"),
        ({"manifest.json": b"[1]"}, "is not an object"),
        ({"manifest.json": b"[]"}, "the archive has no image"),
        ({"manifest.json": b"["}, "is not valid JSON"),
        ({"manifest.json": b" " * (4 << 20) + b"[]"}, "larger than"),
        ({"manifest.json": b"[" + b"{}," * 1024 + b"{}]"}, "more than 1024 images"),
        ({"manifest.json": listed({"Config": "c.json", "Layers": ["1/layer.tar"]})}, "disagree"),
        ({"manifest.json": listed({"Config": "../c.json", "Layers": []})}, "outside of the archive"),
        ({"manifest.json": listed({"Config": "c.json", "Layers": ["/1/layer.tar"]})}, "outside of the archive"),
        ({"manifest.json": listed({"Config": "c.json", "Layers": ["x"] * 1025})}, "1025 layers"),
        ({"manifest.json": listed({"Config": "c.json", "Layers": "x"})}, "must be a list"),
        ({"manifest.json": listed({"Layers": []})}, "Config"),
    ],
)
def test_hostile_archives(tmp_path: Path, changes: Members, says: str) -> None:
    assert says in str(refused(tmp_path, {**old(), **changes}))


def test_a_file_twice(tmp_path: Path) -> None:
    data = pack(old())
    cut = data.rstrip(b"\0")
    whole = cut + bytes(-len(cut) % 512)
    assert "a file twice" in str(refused(tmp_path, whole + pack({"c.json": b"{}"})))
    assert "a file twice" in str(refused(tmp_path, whole + pack({"c.json": "1/layer.tar"})))


def test_headers_without_end(tmp_path: Path) -> None:
    """Neither a million records nor gigabytes of names are worth an hour or the memory of the host."""
    began = time.process_time()
    many = layers.file(b"x", b"5 a=\n" * ((1 << 20) // 5), flag=b"x")
    assert "no archive of docker save" in str(refused(tmp_path, many + pack({"x": b""})))
    assert time.process_time() - began < 2
    names = (layers.long_name(b"%07d" % at + b"n" * 1_000_000) + layers.file(b"x") for at in range(20))
    assert "bytes of extended headers" in str(refused(tmp_path, gzip.compress(b"".join(names), 1)))


def test_another_kind_of_archive_is_named(tmp_path: Path) -> None:
    said = str(refused(tmp_path, {"index.json": b"{}", "oci-layout": b"{}"}))
    assert said.endswith("it has no manifest.json; an archive of an OCI layout is oci-archive:FILE")
    said = str(refused(tmp_path, pack(old()), "oci-archive:x.tar"))
    assert said.endswith("it has no oci-layout; an archive of docker save is docker-archive:FILE")
    assert "decompress it first" in str(refused(tmp_path, b"\xfd7zXZ\0" + bytes(1000)))
    assert "bzip2" in str(refused(tmp_path, b"BZh9" + bytes(1000)))
    assert "no regular file" in str(refused(tmp_path, b"", "docker-archive:none.tar"))


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_damaged_compression(tmp_path: Path, compress: Any) -> None:
    good = compress(pack(old()))
    for bad in (good[:-9], good + b"x", good[:50] + bytes(50) + good[100:]):
        assert "x.tar" in refused(tmp_path, bad).where


def test_bombs_are_refused_early(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(Refused, match="expands like a bomb"):
        open_expanded(str(tmp_path / "x"), str(tmp_path), Limits(ratio_from=1 << 20))
    with pytest.raises(Refused, match="larger than the limit"):
        open_expanded(str(tmp_path / "x"), str(tmp_path), Limits(size=1 << 20))
    assert os.listdir(tmp_path) == ["x"]


def test_an_archive_of_a_layout_may_be_compressed(tmp_path: Path, cache: Cache) -> None:
    from tests.ground.tiny import Content, archive

    content = Content()
    content.image("1")
    content.write_layout(str(tmp_path / "one"))
    packed = gzip.compress(Path(archive(str(tmp_path / "one"), str(tmp_path / "one.tar"))).read_bytes())
    (tmp_path / "one.tar.gz").write_bytes(packed)
    assert load(tmp_path, "oci-archive:one.tar.gz").digest == load(tmp_path, "oci:one").digest
    assert not cache.has(Digest.of(packed))
