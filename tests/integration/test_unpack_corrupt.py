"""Every blob of an image corrupted in turn, in every way, from every kind of place.

Whatever is wrong, the command ends with 5 or 6, leaves nothing, and succeeds as soon as the image is right again.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.ground import faulty
from tests.ground.layers import archive, directory, file, symlink
from tests.ground.sandbox import Sandbox
from tests.ground.tiny import Content

pytestmark = pytest.mark.root

LOWER = archive(directory(b"d", mtime=1), file(b"d/f", b"lower" * 500), symlink(b"s", b"d"))
UPPER = archive(file(b"d/.wh.f"), file(b"d/g", b"upper" * 500, mode=0o4755))
TREE = ["d", "d/g", "s"]
BLOBS: Final = ("manifest", "config", "lower", "upper")

Change = Callable[[bytes], bytes]


def flip(place: float, bit: int) -> Change:
    """Return what flips one bit of the byte at a part of the length."""

    def change(data: bytes) -> bytes:
        at = min(int(len(data) * place), len(data) - 1)
        return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]

    return change


CHANGES: Final[Mapping[str, Change]] = {
    "first byte": flip(0, 0),
    "first byte, high bit": flip(0, 7),
    "middle": flip(0.5, 0),
    "middle, high bit": flip(0.5, 7),
    "last byte": flip(1, 0),
    "last byte, high bit": flip(1, 7),
    "one byte short": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "one byte long": lambda data: data + b"\0",
    "twice": lambda data: data * 2,
    "empty": lambda _: b"",
    "zeros": lambda data: bytes(len(data)),
}
INSTEAD: Final = ("nothing", "directory", "fifo", "symlink to itself", "symlink to endless zeros", "symlink outside")


class Image:
    """An image of two layers; `digests` has those of its blobs by what they are."""

    def __init__(self) -> None:
        self.content = Content()
        descriptor = self.content.image("1", layers=(LOWER, UPPER))
        kinds = list(self.content.blobs)
        self.digests = {"manifest": descriptor["digest"], "lower": kinds[-2], "upper": kinds[-1]}
        self.digests["config"] = next(digest for digest in kinds if self.content.blobs[digest][:1] == b"{")

    def bytes(self, blob: str) -> bytes:
        digest = self.digests[blob]
        return self.content.manifests[digest][1] if blob == "manifest" else self.content.blobs[digest]

    def replace(self, blob: str, data: bytes) -> None:
        digest = self.digests[blob]
        if blob == "manifest":
            self.content.manifests[digest] = (self.content.manifests[digest][0], data)
        else:
            self.content.blobs[digest] = data

    def other(self, blob: str) -> bytes:
        return self.bytes(BLOBS[(BLOBS.index(blob) + 1) % len(BLOBS)])


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    (tmp_path / "out").mkdir()
    return Sandbox(tmp_path)


@pytest.fixture
def good() -> Image:
    return Image()


def wrong(good: Image, blob: str) -> Iterator[tuple[str, bytes]]:
    """Yield every corruption of a blob with its name."""
    data = good.bytes(blob)
    for name, change in CHANGES.items():
        yield name, change(data)
    yield "another blob", good.other(blob)


def refused(box: Sandbox, source: str) -> None:
    """Unpack what is wrong: 5 or 6, one sentence, nothing left beside verified blobs in the cache."""
    said = box.appbox("image", "unpack", source, box.place / "out/rootfs", code=None)
    assert said.code in (5, 6), said
    assert said.err.startswith("appbox: ")
    assert said.err.count("\n") == 1
    assert os.listdir(box.place / "out") == []
    nothing_but_verified(box.root / "var/cache/appbox")


def nothing_but_verified(cache: Path) -> None:
    """Look at every file of the cache: a blob has its digest, and nothing is half there."""
    for path in cache.rglob("*"):
        if path.is_file() and path.parent.name == "sha256":
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        elif path.is_file():
            assert path.name in ("oci-layout", "index.json") or path.stat().st_size == 0, path


def accepted(box: Sandbox, source: str) -> None:
    """Unpack what is right again."""
    rootfs = box.place / "out/rootfs"
    box.appbox("image", "unpack", source, rootfs)
    assert sorted(str(path.relative_to(rootfs)) for path in rootfs.rglob("*")) == TREE
    assert (rootfs / "d/g").read_bytes() == b"upper" * 500
    box.appbox("image", "unpack", source, rootfs, code=1)  # is there already
    for path in sorted(rootfs.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    rootfs.rmdir()


def write(good: Image, folder: Path) -> Path:
    """Write the layout anew and return it."""
    folder.mkdir(exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()
    good.content.write_layout(str(folder))
    return folder


def packed(folder: Path) -> Path:
    """Return the layout as an archive, whatever its files are."""
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(folder, ".")
    return path


def instead(path: Path, kind: str, outside: Path) -> None:
    """Put something else where a blob was."""
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink to itself":
        path.symlink_to(path.name)
    elif kind == "symlink to endless zeros":
        path.symlink_to("/dev/zero")
    elif kind == "symlink outside":
        path.symlink_to(outside)


@pytest.mark.parametrize("transport", ["oci", "oci-archive"])
@pytest.mark.parametrize("blob", BLOBS)
class TestLayouts:
    """Files: their bytes, and what stands in their place."""

    def source(self, transport: str, folder: Path) -> str:
        return f"oci:{folder}" if transport == "oci" else f"oci-archive:{packed(folder)}"

    def test_bytes(self, box: Sandbox, good: Image, transport: str, blob: str) -> None:
        for _, data in wrong(good, blob):
            folder = write(good, box.place / "layout")
            (folder / "blobs" / good.digests[blob].replace(":", "/")).write_bytes(data)
            refused(box, self.source(transport, folder))
        accepted(box, self.source(transport, write(good, box.place / "layout")))

    def test_what_is_no_file(self, box: Sandbox, good: Image, transport: str, blob: str) -> None:
        (box.place / "outside").write_bytes(b"x" * len(good.bytes(blob)))
        for kind in INSTEAD:
            folder = write(good, box.place / "layout")
            instead(folder / "blobs" / good.digests[blob].replace(":", "/"), kind, box.place / "outside")
            refused(box, self.source(transport, folder))
        assert (box.place / "outside").read_bytes() == b"x" * len(good.bytes(blob))
        accepted(box, self.source(transport, write(good, box.place / "layout")))


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_the_files_that_have_no_digest(box: Sandbox, good: Image, name: str) -> None:
    """They cannot be verified, only be read strictly."""
    for data in (b"", b"{}", b"[]", b"null", b"\0" * 100, b'{"schemaVersion": 2}', b'{"manifests": 1}', b"{" * 100_000):
        folder = write(good, box.place / "layout")
        (folder / name).write_bytes(data)
        refused(box, f"oci:{folder}")
        refused(box, f"oci-archive:{packed(folder)}")
    for kind in INSTEAD:
        folder = write(good, box.place / "layout")
        (box.place / "outside").write_bytes(b"no JSON")
        instead(folder / name, kind, box.place / "outside")
        refused(box, f"oci:{folder}")


def test_an_archive_cut_anywhere(box: Sandbox, good: Image) -> None:
    whole = packed(write(good, box.place / "layout"))
    data = whole.read_bytes()
    end = len(data.rstrip(b"\0"))
    for length in (0, 1, 511, 512, *range(700, end, 997), end - 1):
        whole.write_bytes(data[:length])
        refused(box, f"oci-archive:{whole}")
    whole.write_bytes(data)
    accepted(box, f"oci-archive:{whole}")


@pytest.mark.parametrize("blob", BLOBS)
def test_a_registry(box: Sandbox, good: Image, blob: str) -> None:
    """What the registry sends for the right name; the length that it states is that of what it sends."""
    right = good.bytes(blob)
    with faulty.serve(faulty.Faulty(good.content)) as host:
        for _, data in wrong(good, blob):
            good.replace(blob, data)
            # By digest: a tag whose manifest is another one is another image.
            refused(box, f"docker://{host}/a/b@{good.digests['manifest']}")
        good.replace(blob, right)
        accepted(box, f"docker://{host}/a/b:1")


def test_how_many_cases_there_are(good: Image) -> None:
    """The count that is quoted."""
    kinds = len(list(wrong(good, "config")))
    count = len(BLOBS) * (2 * (kinds + len(INSTEAD)) + kinds)
    print(f"{count} corruptions: {len(BLOBS)} blobs, {kinds} kinds of bytes, {len(INSTEAD)} kinds of files")
    assert count > 150
