"""The measured images: the same at each build, and what tar readers other than ours take them for."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence

import pytest

from tests.bench import content, images, shapes
from tests.bench.shapes import Directory, File, Item, Link, Whiteout


def archive(*items: Item) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(images.tar(items))))


def read(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    assert stream is not None
    with stream:
        return stream.read()


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = (b"".join(content.data(7, 600_001)) for _ in range(2))
    assert first == second
    assert len(first) == 600_001
    assert first != b"".join(content.data(8, 600_001))


def test_members_are_what_they_were_to_be() -> None:
    with archive(Directory("d"), File("d/f", 700, 3), Link("d/s", "f"), Link("d/h", "d/f", hard=True)) as tar:
        kinds = [(m.name, m.type, m.size, m.linkname) for m in tar]
        assert kinds == [
            ("d", tarfile.DIRTYPE, 0, ""),
            ("d/f", tarfile.REGTYPE, 700, ""),
            ("d/s", tarfile.SYMTYPE, 0, "f"),
            ("d/h", tarfile.LNKTYPE, 0, "d/f"),
        ]
        assert read(tar, "d/f") == b"".join(content.data(3, 700))


def test_whiteouts_have_the_names_of_the_image_specification() -> None:
    with archive(Whiteout("a/b"), Whiteout("a/c", opaque=True)) as tar:
        assert tar.getnames() == ["a/.wh.b", "a/c/.wh..wh..opq"]


@pytest.mark.parametrize("extents", [((0, 1000), (5000, 512)), ((4096, 10),), ((100, 1), (9999, 1))])
def test_a_sparse_file_reads_as_the_one_with_its_zeros(extents: Sequence[tuple[int, int]]) -> None:
    plain = File("var/plain", 10_000, 5, tuple(extents))
    with archive(plain, File("var/sparse", 10_000, 5, tuple(extents), sparse=True)) as tar:
        whole = read(tar, "var/plain")
        assert len(whole) == 10_000
        assert whole.count(0) >= 10_000 - sum(length for _, length in extents)
        assert read(tar, "var/sparse") == whole
        assert tar.getmember("var/sparse").issparse()


def test_an_upgrade_replaces_the_files_of_a_package_with_other_data() -> None:
    old, new = (list(shapes.package(3, version, 5, 1000)) for version in (0, 1))
    assert [item.path for item in old] == [item.path for item in new]
    assert [item.size for item in old if isinstance(item, File)] == [i.size for i in new if isinstance(i, File)]
    assert {i.seed for i in old if isinstance(i, File)}.isdisjoint(i.seed for i in new if isinstance(i, File))


def test_the_shapes_have_the_layers_that_they_are_named_after() -> None:
    counts = {name: len(list(shape.layers())) for name, shape in shapes.SHAPES.items()}
    assert (counts["one"], counts["zstd"], counts["six"], counts["hundred"]) == (1, 1, 6, 100)
    assert sum(1 for layer in shapes.one() for _ in layer) in range(5_600, 5_800)
