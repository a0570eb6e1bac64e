"""Copies between layouts and archives: what arrives, what is refused, and that a failed copy leaves nothing."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appbox.errors import AppboxError, Locked, Refused
from appbox.oci import copy as copies
from appbox.oci.cache import Cache
from appbox.oci.contents import contents
from appbox.oci.copy import Tree, Watch
from appbox.oci.destination import Destination, open_destination
from appbox.oci.digest import Digest
from appbox.oci.docker_writer import write_docker_archive
from appbox.oci.limits import Limits
from appbox.oci.model import Platform
from appbox.oci.new_file import NewFile
from appbox.oci.reference import DockerArchive, parse_transport
from appbox.oci.source import Source, open_source
from appbox.oci.tar_writer import TarWriter
from tests.ground.tiny import OCI_INDEX, Content, layer, sha256

AMD64 = Platform("linux", "amd64")
REF_NAME = "org.opencontainers.image.ref.name"
OPAQUE = "application/vnd.in-toto+json"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def content() -> Content:
    """A layout "src" with the image "1", and with "all": two platforms, an attestation and something unknown."""
    content = Content()
    same = layer({"a": b"a"})
    content.image("1", layers=(same, layer({"b": b"b" * 5000}), same))
    amd, arm = content.image(), content.image(architecture="arm64")
    attestation = {
        "schemaVersion": 2,
        "config": content.blob(b"{}", "application/vnd.oci.image.config.v1+json"),
        "layers": [content.blob(b'{"claim": 1}', OPAQUE)],
    }
    said = content.document(attestation, "application/vnd.oci.image.manifest.v1+json")
    unknown = content.blob(b"\x00 no JSON", "application/x-other")
    content.index("all", amd, arm, {**said, "platform": {"os": "unknown", "architecture": "unknown"}}, unknown)
    content.write_layout("src")
    return content


def source_of(text: str) -> Source:
    return open_source(parse_transport(text), Cache("cache"))


def copy(source: str, destination: str, *, every: bool = False) -> Tree:
    ref, target = parse_transport(source), parse_transport(destination)
    with open_source(ref, Cache("cache")) as opened:
        image = None if every else opened.resolve(None, None, AMD64)
        tree = copies.tree_of_image(image) if image else copies.tree_of(opened, opened.top(None, None))
        if isinstance(target.image, DockerArchive):
            assert image
            copies.copy_to_docker_archive(opened, image, target.image.path, target.image.ref, Watch())
        else:
            with open_destination(target) as destined:
                copies.copy_tree(opened, tree, destined, Watch())
        return tree


def digest_at(text: str) -> Digest:
    with source_of(text) as source:
        image = source.resolve(None, None, AMD64)
        source.fetch(image)
        return image.digest


def names(folder: str) -> list[str]:
    index = json.loads(Path(folder, "index.json").read_text(encoding="utf-8"))
    return [entry.get("annotations", {}).get(REF_NAME, "") for entry in index["manifests"]]


PLACES = ("oci:new/deep/layout:x", "oci:plain", "oci-archive:new.tar:x", "oci-archive:plain.tar")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("content")
def test_one_platform_keeps_its_digest(place: str) -> None:
    wanted = digest_at("oci:src:1")
    assert copy("oci:src:1", place).top.digest == wanted
    assert digest_at(place) == wanted


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("content")
def test_all_of_an_index_arrives_byte_by_byte(place: str) -> None:
    tree = copy("oci:src:all", place, every=True)
    back = copy(place, "oci:back:all", every=True)
    assert {one.digest: one.data for one in back.documents} == {one.digest: one.data for one in tree.documents}
    assert len(back.documents) == 5
    for digest in [one.digest for one in back.documents] + [one.digest for one in back.blobs]:
        assert digest.matches(Path(f"back/blobs/sha256/{digest.hex}").read_bytes())


@pytest.mark.usefixtures("content")
def test_a_docker_archive_and_back() -> None:
    copy("oci:src:1", "docker-archive:d.tar:a/b:1")
    assert digest_at("docker-archive:d.tar:a/b:1") == digest_at("docker-archive:d.tar")
    with source_of("docker-archive:d.tar") as source, source_of("oci:src:1") as original:
        one, other = source.resolve("1", None, AMD64), original.resolve(None, None, AMD64)
        assert one.config_bytes == other.config_bytes
        assert [layer.digest for layer in one.manifest.layers] == list(other.config.diff_ids)
    copy("docker-archive:d.tar", "docker-archive:again.tar:a/b:1")
    assert Path("again.tar").read_bytes() == Path("d.tar").read_bytes()
    copy("docker-archive:d.tar", "oci:o")
    assert digest_at("oci:o") == digest_at("docker-archive:d.tar")


@pytest.mark.usefixtures("content")
def test_entries_of_a_layout() -> None:
    os.mkdir("empty")
    for ref in ("a", "b", "", "", "a"):
        copy("oci:src:1", f"oci:empty:{ref}" if ref else "oci:empty")
    assert names("empty") == ["a", "b", ""]
    index = json.loads(Path("empty/index.json").read_text(encoding="utf-8"))
    index["manifests"][1]["annotations"]["more"] = "kept"
    index["x-more"] = [1]
    Path("empty/index.json").write_text(json.dumps(index), encoding="utf-8")
    before = {path.name: path.stat().st_mtime_ns for path in Path("empty/blobs/sha256").iterdir()}
    copy("oci:src:all", "oci:empty:a", every=True)
    assert names("empty") == ["a", "b", ""]
    after = json.loads(Path("empty/index.json").read_text(encoding="utf-8"))
    assert after["manifests"][0]["mediaType"] == OCI_INDEX
    assert (after["manifests"][1]["annotations"]["more"], after["x-more"]) == ("kept", [1])
    now = {path.name: path.stat().st_mtime_ns for path in Path("empty/blobs/sha256").iterdir()}
    assert {name: now[name] for name in before} == before
    assert sorted(os.listdir("empty")) == ["blobs", "index.json", "oci-layout"]


@pytest.mark.usefixtures("content")
def test_a_corrupt_blob_of_a_layout_is_mended() -> None:
    tree = copy("oci:src:1", "oci:dst:x")
    for digest in [tree.top.digest, *(blob.digest for blob in tree.blobs)]:
        path = Path(f"dst/blobs/sha256/{digest.hex}")
        good = path.read_bytes()
        path.write_bytes(b"?" + good[1:])
        copy("oci:src:1", "oci:dst:x")
        assert path.read_bytes() == good


@pytest.mark.parametrize("place", ["oci:dst:x", "oci-archive:dst.tar", "docker-archive:dst.tar"])
@pytest.mark.usefixtures("content")
def test_every_blob_of_the_source_corrupted_in_turn(place: str) -> None:
    """Nothing of the destination is left, and what was there before stays as it was."""
    with source_of("oci:src:1") as source:
        image = source.resolve(None, None, AMD64)
    before = sorted(os.listdir())
    for blob in (image.manifest.config, *dict.fromkeys(image.manifest.layers)):
        path = Path(f"src/blobs/sha256/{blob.digest.hex}")
        good = path.read_bytes()
        for bad in (good[:-1] + b"?", good[:-1], good + b"x"):
            path.write_bytes(bad)
            with pytest.raises(Refused):
                copy("oci:src:1", place)
            assert sorted(os.listdir()) == before
        path.write_bytes(good)
    copy("oci:src:1", place)


@pytest.mark.usefixtures("content")
def test_a_failed_copy_into_a_layout_leaves_the_others() -> None:
    copy("oci:src:1", "oci:dst:x")
    before = sorted(str(path) for path in Path("dst").rglob("*"))
    with source_of("oci:src:all") as source:
        tree = copies.tree_of(source, source.top(None, None))
        with open_destination(parse_transport("oci:dst:y")) as destination:
            blob = tree.blobs[0]
            destination.write(blob, lambda: source.blob(blob), int)
            with pytest.raises(Refused, match=r"has 1 bytes, not"):
                destination.write(tree.blobs[1], lambda: io.BytesIO(b"x"), int)
    assert sorted(str(path) for path in Path("dst").rglob("*")) == before


@pytest.mark.parametrize(
    ("prepare", "place", "says"),
    [
        (lambda: Path("f").touch(), "oci:f", "this is not a directory"),
        (lambda: (os.mkdir("d"), Path("d/x").touch()), "oci:d", "no OCI image layout, and not empty"),
        (lambda: os.mkdir("d"), "oci-archive:d", "it is a directory"),
        (lambda: os.mkfifo("p"), "oci-archive:p", "it is no regular file"),
        (lambda: os.mkfifo("p"), "docker-archive:p", "it is no regular file"),
        (lambda: Path("f").write_text("x"), "docker-archive:f", "is there already"),
        (lambda: None, "oci-archive:none/f", "No such file"),
    ],
)
@pytest.mark.usefixtures("content")
def test_places_that_cannot_be_written(prepare: Callable[[], object], place: str, says: str) -> None:
    prepare()
    before = sorted(str(path) for path in Path().rglob("*") if "cache" not in str(path))
    with pytest.raises(AppboxError, match=says):
        copy("oci:src:1", place)
    assert sorted(str(path) for path in Path().rglob("*") if "cache" not in str(path)) == before


@pytest.mark.parametrize(
    ("name", "data"), [("index.json", b"{"), ("index.json", b"{}"), ("oci-layout", b'{"imageLayoutVersion": "9"}')]
)
@pytest.mark.usefixtures("content")
def test_a_damaged_layout_is_not_written_to(name: str, data: bytes) -> None:
    copy("oci:src:1", "oci:dst:x")
    Path("dst", name).write_bytes(data)
    before = sorted(str(path) for path in Path("dst").rglob("*"))
    with pytest.raises(Refused):
        copy("oci:src:all", "oci:dst:y", every=True)
    assert sorted(str(path) for path in Path("dst").rglob("*")) == before
    assert Path("dst", name).read_bytes() == data


@pytest.mark.usefixtures("content")
def test_archives_that_are_there() -> None:
    Path("e.tar").touch()
    copy("oci:src:1", "docker-archive:e.tar")  # what mktemp made is no archive yet
    copy("oci:src:1", "oci-archive:o.tar:x")
    os.symlink("o.tar", "link.tar")
    with source_of("oci-archive:o.tar:x") as reading:
        image = reading.resolve(None, None, AMD64)
        copy("oci:src:all", "oci-archive:link.tar:y", every=True)
        reading.fetch(image)  # who has it open reads the old one
    assert os.readlink("link.tar") == "o.tar"
    with pytest.raises(AppboxError, match="no image 'x'"):
        digest_at("oci-archive:o.tar:x")


@pytest.mark.usefixtures("content")
def test_copies_side_by_side_into_one_layout() -> None:
    def put(ref: str) -> None:
        copy("oci:src:1", f"oci:dst:{ref}")

    copy("oci:src:1", "oci:dst:first")
    threads = [threading.Thread(target=put, args=(f"r{at}",)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names("dst")) == ["first", *(f"r{at}" for at in range(8))]
    assert sorted(os.listdir("dst")) == ["blobs", "index.json", "oci-layout"]


@pytest.mark.usefixtures("content")
def test_copies_side_by_side_into_a_new_layout_while_others_fail() -> None:
    errors: list[BaseException] = []

    def put(at: int) -> None:
        try:
            with contextlib.suppress(ZeroDivisionError):
                if at % 2:
                    copy("oci:src:1", f"oci:deep/er/dst:r{at}")
                else:
                    with open_destination(parse_transport("oci:deep/er/dst")):
                        raise ZeroDivisionError
        except AppboxError as error:
            errors.append(error)

    for _ in range(5):
        threads = [threading.Thread(target=put, args=(at,)) for at in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert sorted(names("deep/er/dst")) == sorted(f"r{at}" for at in range(1, 12, 2))
        shutil.rmtree("deep")


@pytest.mark.usefixtures("content")
def test_a_copy_that_ends_while_it_publishes_can_be_run_again() -> None:
    with source_of("oci:src:1") as source:
        tree = copies.tree_of_image(source.resolve(None, None, AMD64))
        last = max(digest.hex for digest in (tree.top.digest, *(blob.digest for blob in tree.blobs)))
        with open_destination(parse_transport("oci:dst:x")) as destination:
            os.makedirs(f"dst/blobs/sha256/{last}")  # stands for a crash before the last blob has its name
            with pytest.raises(AppboxError, match="cannot be written"):
                copies.copy_tree(source, tree, destination, Watch())
    os.rmdir(f"dst/blobs/sha256/{last}")
    assert os.listdir("dst/blobs/sha256")
    copy("oci:src:1", "oci:dst:x")
    assert names("dst") == ["x"]


@pytest.mark.usefixtures("content")
def test_what_the_dead_have_left_is_swept() -> None:
    copy("oci:src:1", "oci:dst:x")
    os.mkdir("dst/.copy-dead")
    Path("dst/.copy-dead/x").touch()
    Path(".new.tar.appbox-tmp").write_bytes(b"half")
    with open_destination(parse_transport("oci:dst:z")):
        copy("oci:src:1", "oci:dst:y")  # the living are left alone
        assert len([name for name in os.listdir("dst") if name.startswith(".copy-")]) == 1
    copy("oci:src:1", "oci-archive:new.tar")
    assert not [name for name in os.listdir() + os.listdir("dst") if name.startswith(".")]


def test_two_writers_of_one_file() -> None:
    with NewFile("x.tar"):
        with pytest.raises(Locked, match="another appbox writes this file"), NewFile("x.tar"):
            raise AssertionError
        assert os.listdir() == [".x.tar.appbox-tmp"]
    assert os.listdir() == []


@pytest.mark.parametrize("other", ["writes", "is gone"])
def test_a_file_taken_for_a_dead_ones_before_it_was_locked(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """Another writer comes between making the file and locking it: nobody may publish what the other has begun."""
    temporary, lock = ".x.tar.appbox-tmp", fcntl.flock

    def late(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        os.unlink(temporary)
        if other == "writes":
            Path(temporary).write_bytes(b"another's")
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(Locked, match="another appbox writes this file"), NewFile("x.tar"):
        raise AssertionError
    assert os.listdir() == ([temporary] if other == "writes" else [])


class Failing:
    """A destination of which one step fails, around a real one."""

    def __init__(self, inner: Destination, step: str) -> None:
        self._inner, self._step = inner, step

    def __getattr__(self, name: str) -> Any:
        if name == self._step:
            raise OSError(28, "No space left on device")
        return getattr(self._inner, name)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("step", ["has", "write", "document", "commit"])
@pytest.mark.usefixtures("content")
def test_a_full_disk_at_every_step(place: str, step: str) -> None:
    before = sorted(os.listdir())
    with source_of("oci:src:all") as source:
        tree = copies.tree_of(source, source.top(None, None))
        with pytest.raises(OSError, match="No space"), open_destination(parse_transport(place)) as destination:
            copies.copy_tree(source, tree, Failing(destination, step), Watch())  # type: ignore[arg-type]
    assert [name for name in sorted(os.listdir()) if name != "cache"] == before


@pytest.mark.usefixtures("content")
def test_a_bomb_does_not_become_a_docker_archive() -> None:
    with source_of("oci:src:1") as source:
        image = source.resolve(None, None, AMD64)

        def report(*_: object) -> None:
            pass

        for limits, says in ((Limits(size=5000), "larger than the limit"), (Limits(ratio=2, ratio_from=0), "bomb")):
            with pytest.raises(Refused, match=says):
                write_docker_archive("d.tar", None, image, source.blob, report, limits=limits)
    assert not Path("d.tar").exists()


def test_a_wrong_diff_id_does_not_become_a_docker_archive() -> None:
    content = Content()
    wrong = {"rootfs": {"type": "layers", "diff_ids": [sha256(b"another")]}, "os": "linux", "architecture": "amd64"}
    config = content.blob(json.dumps(wrong).encode(), "application/vnd.oci.image.config.v1+json")
    content.image("2", layers=(layer({"a": b"a"}),))
    manifest = json.loads(content.manifests[content.tags["2"]][1])
    content.document({**manifest, "config": config}, manifest["mediaType"], "2")
    content.write_layout("src")
    copy("oci:src:2", "oci:dst")  # a layout holds what it is given; unpacking refuses it
    with pytest.raises(Refused, match="diff_id of a layer is wrong"):
        copy("oci:src:2", "docker-archive:d.tar")
    assert not Path("d.tar").exists()


@pytest.mark.parametrize(
    ("data", "media_type", "says"),
    [
        (b"[]", "application/vnd.oci.image.manifest.v1+json", "not a JSON object"),
        (b'{"schemaVersion": 2, "manifests": [], "layers": []}', OCI_INDEX, "read in two ways"),
        (b'{"schemaVersion": 2, "manifests": []}', "application/vnd.oci.image.manifest.v1+json", "read in two ways"),
        (b'{"layers": [{}]}', OPAQUE, "mediaType"),
        (b'{"mediaType": "a/b"}', "c/d", "is called a/b inside"),
        (json.dumps({"layers": [{"mediaType": "a/b", "size": 1, "digest": sha256(b"")}] * 1026}).encode(), "", "1026"),
        (
            json.dumps({"layers": [{"mediaType": "a/b", "size": at, "digest": sha256(b"")} for at in (1, 2)]}).encode(),
            "",
            "two sizes",
        ),
    ],
)
def test_documents_that_are_not_copied(data: bytes, media_type: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        contents(data, media_type)


def test_documents_of_other_kinds() -> None:
    assert contents(b"\x00", "a/b") == contents(b"{}", "a/b")
    blob = {"mediaType": "a/b", "size": 0, "digest": sha256(b"")}
    assert [one.digest for one in contents(json.dumps({"blobs": [blob, blob]}).encode(), "a/b").blobs] == [
        Digest.of(b"")
    ]


def test_nested_indexes_are_bounded() -> None:
    content = Content()
    inner = content.image()
    for _ in range(5):
        inner = content.index("deep", inner)
    content.write_layout("src")
    with source_of("oci:src:deep") as source, pytest.raises(Refused, match="nested more than 3 deep"):
        copies.tree_of(source, source.top(None, None))


def test_manifests_do_not_fill_the_memory() -> None:
    content = Content()
    padding = {"x": "y" * ((4 << 20) - 2000)}
    entries = [content.image(architecture=f"a{at}", annotations=padding) for at in range(18)]
    content.index("wide", *entries)
    content.write_layout("src")
    with source_of("oci:src:wide") as source, pytest.raises(Refused, match="manifests have more than"):
        copies.tree_of(source, source.top(None, None))


def test_the_index_of_a_layout_may_be_that_of_the_image() -> None:
    content = Content()
    entries = [content.image(architecture=one) for one in ("amd64", "arm64")]
    content.write_layout("src")
    Path("src/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}), encoding="utf-8")
    assert len(copy("oci:src", "oci:dst:x", every=True).documents) == 3
    assert str(digest_at("oci:dst:x")) == entries[0]["digest"]


def test_a_tar_archive_that_others_read(tmp_path: Path) -> None:
    with NewFile("x.tar") as file:
        tar = TarWriter(file.fd, 0o640)
        tar.directory("d/")
        with tar.member("d/a") as write:
            for _ in range(3):
                write(b"abc" * 100)
        tar.add("n" * 150, b"n")
        tar.link("d/l", "../" + "t" * 150)
        tar.finish()
        file.commit()
    with tarfile.open(tmp_path / "x.tar") as archive:
        got = {one.name: (one.size, one.linkname, one.mode) for one in archive}
        read = archive.extractfile("d/a")
        assert read is not None
        assert read.read() == b"abc" * 300
    assert got == {
        "d": (0, "", 0o755),
        "d/a": (900, "", 0o640),
        "n" * 150: (1, "", 0o640),
        "d/l": (0, "../" + "t" * 150, 0o777),
    }


def test_progress_is_told_of_layers_only(content: Content) -> None:
    del content
    told: list[tuple[str, int, int]] = []
    with source_of("oci:src:1") as source:
        tree = copies.tree_of_image(source.resolve(None, None, AMD64))
        watch = Watch(far=lambda digest, done, total: told.append((str(digest), done, total)))
        with open_destination(parse_transport("oci:dst")) as destination:
            copies.copy_tree(source, tree, destination, watch)
    assert {(digest, total) for digest, done, total in told if done == total} == {
        (str(blob.digest), blob.size) for blob in tree.blobs[1:]
    }
