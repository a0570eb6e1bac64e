"""The cache, and layouts and archives that others made."""

from __future__ import annotations

import json
import os
import tarfile
import threading
from pathlib import Path

import pytest

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.layout import open_archive
from appbox.oci.model import Image, Platform
from appbox.oci.reference import parse_image
from appbox.oci.source import open_source
from tests.ground.tiny import Content, archive, layer

AMD64 = Platform("linux", "amd64")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cache"))


@pytest.fixture
def content(tmp_path: Path) -> Content:
    content = Content()
    content.image("1", layers=(layer({"a": b"a"}), layer({"b": b"b"})))
    content.image("2", layers=(layer({"a": b"2"}),))
    content.write_layout(str(tmp_path / "two"))
    single = Content()
    single.image("only")
    single.write_layout(str(tmp_path / "one"))
    return content


def load(tmp_path: Path, cache: Cache, text: str, version: str | None = None, digest: Digest | None = None) -> Image:
    with open_source(parse_image(text), cache, base_dir=str(tmp_path)) as source:
        image = source.resolve(version, digest, AMD64)
        source.fetch(image)
        for entry in image.manifest.layers:
            with source.layer(image, entry) as stream:
                assert entry.digest.matches(stream.read())
        return image


@pytest.mark.usefixtures("content")
def test_which_image_of_a_layout_is_meant(tmp_path: Path, cache: Cache) -> None:
    assert (
        load(tmp_path, cache, "oci:two:2", "1").config.diff_ids == load(tmp_path, cache, "oci:two", "2").config.diff_ids
    )
    assert load(tmp_path, cache, "oci:one").digest == load(tmp_path, cache, "oci:one:only").digest
    with pytest.raises(Unavailable, match=r"no image '9\.9': it has only"):  # another version is not this one
        load(tmp_path, cache, "oci:one", "9.9")
    with pytest.raises(Unavailable, match=r"no image '9\.9': it has 1, 2"):
        load(tmp_path, cache, "oci:two", "9.9")
    with pytest.raises(Unavailable, match="several images: it has 1, 2"):
        load(tmp_path, cache, "oci:two")
    with pytest.raises(Unavailable, match="no image 'x'"):
        load(tmp_path, cache, "oci:one:x")


def test_a_pinned_digest_must_be_the_images(tmp_path: Path, cache: Cache, content: Content) -> None:
    pinned = Digest.parse(content.tags["2"])
    assert load(tmp_path, cache, "oci:two", None, pinned).digest == pinned
    with pytest.raises(Refused, match="does not have the digest asked for"):
        load(tmp_path, cache, "oci:two:1", None, pinned)
    with pytest.raises(Refused, match="does not have the digest asked for"):
        load(tmp_path, cache, "oci:one", None, pinned)


def test_the_index_of_a_layout_may_be_that_of_the_image(tmp_path: Path, cache: Cache) -> None:
    content = Content()
    arm, amd = content.image(architecture="arm64"), content.image(architecture="amd64")
    content.write_layout(str(tmp_path / "multi"))
    index = {"schemaVersion": 2, "manifests": [arm, amd]}
    (tmp_path / "multi/index.json").write_text(json.dumps(index))
    assert str(load(tmp_path, cache, "oci:multi").digest) == amd["digest"]
    content.index("nested", arm, amd)
    content.write_layout(str(tmp_path / "nested"))
    assert str(load(tmp_path, cache, "oci:nested").index_digest) == content.tags["nested"]


def test_a_looked_at_image_can_be_looked_at_again_from_the_cache(
    tmp_path: Path, cache: Cache, content: Content
) -> None:
    image = load(tmp_path, cache, "oci:two:1")
    kept = cache.image(image.digest)
    assert kept
    assert (kept.manifest, kept.config) == (image.manifest, image.config)
    assert cache.image(Digest.of(b"nothing")) is None


def test_every_blob_of_a_layout_corrupted_in_turn(tmp_path: Path, cache: Cache, content: Content) -> None:
    count = 0
    for path in sorted((tmp_path / "one/blobs/sha256").iterdir()):
        good = path.read_bytes()
        for bad in (b"\x00" + good[1:], good[:-1], good + b"x", b""):
            path.write_bytes(bad)
            with pytest.raises(Refused):
                load(tmp_path, cache, "oci:one")
            count += 1
        path.unlink()
        with pytest.raises(Unavailable, match="lacks a blob"):
            load(tmp_path, cache, "oci:one")
        os.mkfifo(path)
        with pytest.raises(Unavailable, match="lacks a blob"):
            load(tmp_path, cache, "oci:one")
        path.unlink()
        path.write_bytes(good)
    assert count == 12
    load(tmp_path, cache, "oci:one")


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("oci-layout", b'{"imageLayoutVersion": "2.0.0"}', Refused),
        ("oci-layout", b"{" + b" " * 5000 + b"}", Refused),
        ("oci-layout", None, Unavailable),
        ("index.json", None, Unavailable),
        ("index.json", b"{}", Refused),
        ("index.json", b'{"schemaVersion": 2, "manifests": []}', Unavailable),
    ],
)
@pytest.mark.usefixtures("content")
def test_a_layout_that_is_none(
    tmp_path: Path, cache: Cache, name: str, data: bytes | None, error: type[AppboxError]
) -> None:
    (tmp_path / "one" / name).unlink()
    if data is not None:
        (tmp_path / "one" / name).write_bytes(data)
    with pytest.raises(error):
        load(tmp_path, cache, "oci:one")


def test_nothing_there(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="no such directory"):
        load(tmp_path, cache, "oci:none")
    with pytest.raises(Unavailable, match="not a directory"):
        load(tmp_path, cache, "oci:file")
    with pytest.raises(Unavailable, match="no regular file"):
        load(tmp_path, cache, "oci-archive:none")


@pytest.mark.parametrize("prefix", ["", "./", "./" + "x" * 0])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.usefixtures("content")
def test_archives(tmp_path: Path, cache: Cache, prefix: str, form: int) -> None:
    archive(str(tmp_path / "two"), str(tmp_path / "two.tar"), prefix=prefix, format=form)
    assert load(tmp_path, cache, "oci-archive:two.tar:2").digest == load(tmp_path, cache, "oci:two:2").digest


@pytest.mark.usefixtures("content")
def test_damaged_archives_are_refused(tmp_path: Path, cache: Cache) -> None:
    path = tmp_path / "one.tar"
    good = Path(archive(str(tmp_path / "one"), str(path), format=tarfile.USTAR_FORMAT)).read_bytes()
    damaged = {
        "checksum": good[:20] + b"!" + good[21:],
        "truncated": good[:1000],
        "no end": good[: 512 * 3 + 100],
        "compressed": b"\x1f\x8b" + good,
        "empty": b"",
        "twice": good.rstrip(b"\0").ljust(-(-len(good.rstrip(b"\0")) // 512) * 512, b"\0") + good,
        "a size that is no number": good[:124] + b"x" * 12 + good[136:],
    }
    for what, data in damaged.items():
        path.write_bytes(data)
        refused = False
        try:
            load(tmp_path, cache, "oci-archive:one.tar")
        except Refused:
            refused = True
        assert refused, what


@pytest.mark.usefixtures("content")
def test_an_archive_with_absurd_sizes_is_refused(tmp_path: Path) -> None:
    for size in ("99999999999999999999", "-1", "1" * 5000, "\u0661", "9223372036854775807"):
        info = tarfile.TarInfo("index.json")
        info.pax_headers = {"size": size}
        (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + b"\0" * 1024)
        with pytest.raises(Refused):
            open_archive(str(tmp_path / "x.tar"), str(tmp_path)).close()


def test_the_cache_takes_only_what_is_right(cache: Cache, tmp_path: Path) -> None:
    digest = Digest.of(b"hello")
    for data in (b"hellO", b"hell", b"hello!"):
        with pytest.raises(Refused):
            _write(cache, digest, data, 5)
        assert not cache.has(digest)
        assert os.listdir(tmp_path / "cache/.partial") == []
    cache.put(digest, b"hello")
    cache.put(digest, b"hello")
    with cache.open(digest) as stream:
        assert stream.read() == b"hello"


def _write(cache: Cache, digest: Digest, data: bytes, size: int) -> None:
    with cache.writer(digest, size) as blob:
        blob.write(data)
        blob.commit()


def test_an_interrupted_write_leaves_nothing(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), cache.writer(Digest.of(b"x"), 1):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "cache/.partial") == []


def test_looking_at_the_cache_writes_nothing(cache: Cache, tmp_path: Path) -> None:
    assert not cache.has(Digest.of(b"x"))
    assert cache.document(Digest.of(b"x")) is None
    assert cache.image(Digest.of(b"x")) is None
    assert cache.index().manifests == ()
    with pytest.raises(Unavailable):
        cache.open(Digest.of(b"x"))
    assert not (tmp_path / "cache").exists()


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "cache")
    with Cache(path).writer(Digest.of(b"alive"), 5) as blob:
        (tmp_path / "cache/.partial/sha256-dead").write_bytes(b"x")
        Cache(path).put(Digest.of(b"other"), b"other")
        assert os.listdir(f"{path}/.partial") == [f"sha256-{Digest.of(b'alive').hex}"]
        blob.write(b"alive")
        blob.commit()
    assert os.listdir(f"{path}/.partial") == []


def test_many_writers_of_one_blob(tmp_path: Path) -> None:
    data = os.urandom(1 << 16)
    wrote: list[int] = []

    def write() -> None:
        with Cache(str(tmp_path / "cache")).writer(Digest.of(data), len(data)) as blob:
            if not blob.complete:
                blob.write(data)
                blob.commit()
                wrote.append(1)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrote) == 1
    with Cache(str(tmp_path / "cache")).open(Digest.of(data)) as stream:
        assert stream.read() == data


def test_a_name_means_the_last_image_and_no_write_is_done_twice(tmp_path: Path, cache: Cache, content: Content) -> None:
    one, two = load(tmp_path, cache, "oci:two:1"), load(tmp_path, cache, "oci:two:2")
    cache.name("h/a:1", one.descriptor())
    cache.name("h/b:1", one.descriptor())
    before = os.stat(tmp_path / "cache/index.json")
    cache.name("h/a:1", one.descriptor())
    assert os.stat(tmp_path / "cache/index.json").st_ino == before.st_ino
    cache.name("h/a:1", two.descriptor())
    listed = {str(e.annotations["org.opencontainers.image.ref.name"]): e.digest for e in cache.index().manifests}
    assert listed == {"h/a:1": two.digest, "h/b:1": one.digest}
    kept = cache.image(one.digest)
    assert kept
    assert kept.reference == "h/b:1"


def test_a_blob_that_is_a_link_or_a_fifo_is_none(cache: Cache, tmp_path: Path) -> None:
    cache.put(Digest.of(b"y"), b"y")
    digest = Digest.of(b"x")
    path = tmp_path / "cache/blobs/sha256" / digest.hex
    (tmp_path / "x").write_bytes(b"x")
    path.symlink_to(tmp_path / "x")
    assert cache.document(digest) is None
    path.unlink()
    os.mkfifo(path)
    assert cache.document(digest) is None
    assert not cache.has(digest)
    path.unlink()
    cache.put(digest, b"x")
    assert cache.document(digest) == b"x"


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(AppboxError, match="the cache cannot be written"):
        Cache(str(tmp_path / "cache")).put(Digest.of(b"x"), b"x")
