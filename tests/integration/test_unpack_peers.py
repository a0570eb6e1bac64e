"""The same layers through GNU tar, umoci and appbox come out the same, to the nanosecond and the attribute."""

from __future__ import annotations

import gzip
import os
import stat
import struct
from pathlib import Path

import pytest

from appbox.oci import unpack
from appbox.oci.unpack import IdMap, Layer
from tests.ground import unpackers
from tests.ground.layers import OCI, archive, directory, file, hardlink, layer, symlink
from tests.ground.trees import Thing, things
from tests.ground.unpackers import by_tar, run

pytestmark = pytest.mark.root

DEBIAN = ("etc", "usr/sbin", "usr/share/perl5", "usr/share/doc")
"""Directories of this machine: some thousand files of every kind that a package has."""


@pytest.fixture(scope="module")
def special(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what packages rarely have."""
    root = tmp_path_factory.mktemp("special")
    root.chmod(0o751)
    (root / "file").write_bytes(b"content")
    os.link(root / "file", root / "z-link")
    os.link(root / "file", root / "another")
    (root / "long" / ("n" * 200)).mkdir(parents=True)
    (root / "long" / ("n" * 200) / ("f" * 200)).write_text("deep")
    (root / "symlink").symlink_to("t" * 300)
    os.mkfifo(root / "fifo", 0o620)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 300))
    (root / "suid").write_text("x")
    os.chown(root / "suid", 33, 44)
    (root / "suid").chmod(0o6755)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o3777)
    os.setxattr(root / "suid", "user.binary", b"\0\n=\xff")
    os.setxattr(root / "sticky", "user.directory", b"yes")
    (root / "able").write_text("x")
    os.setxattr(root / "able", "security.capability", struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0))
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(5 << 20)
        sparse.write(b"in the middle" * 1000)
        sparse.truncate(9 << 20)
    (root / "old").touch()
    os.utime(root / "old", ns=(0, -123_456_789_012))
    os.utime(root / "long", ns=(0, 1_234_567_890_123_456_789))
    (root / os.fsdecode(b"bytes \xff\xfe")).write_text("name")
    return root


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tar = tmp_path_factory.mktemp("debian") / "debian.tar"
    run("tar", "--format=gnu", "-C", "/", "-cf", tar, *(name for name in DEBIAN if Path("/", name).is_dir()))
    return tar


def ours(layers: list[Layer], root: Path) -> dict[str, Thing]:
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    try:
        unpack.unpack(layers, fd, IdMap(0, 65536), durable=False)
    finally:
        os.close(fd)
    return things(root)


def by_umoci(tars: list[Path], place: Path) -> dict[str, Thing]:
    image = unpackers.layout(place / "layout", [tar.read_bytes() for tar in tars], ["plain"] * len(tars))
    return unpackers.by_umoci(image, place / "umoci")


def plain(tar: Path) -> Layer:
    return layer(tar.read_bytes())


@pytest.mark.parametrize("form", ["gnu", "pax", "gnu --sparse", "pax --sparse", "pax --sparse --sparse-version=0.1",
                                  "pax --sparse --sparse-version=0.0"])  # fmt: skip
def test_special_things_as_gnu_tar_does(special: Path, tmp_path: Path, form: str) -> None:
    tar = tmp_path / "t.tar"
    kind, *options = form.split()
    keep = ["--xattrs", "--xattrs-include=*"] if kind == "pax" else []
    run("tar", f"--format={kind}", *options, *keep, "-C", special, "-cf", tar, ".")
    mine = ours([plain(tar)], tmp_path / "ours")
    assert mine == by_tar(tar, tmp_path / "tar")
    if kind == "pax":
        assert mine == things(special)
    assert os.lstat(tmp_path / "ours/sparse").st_blocks * 512 < 1 << 20


def test_special_things_as_umoci_does(special: Path, tmp_path: Path) -> None:
    tar = tmp_path / "t.tar"
    run("tar", "--format=pax", "--xattrs", "--xattrs-include=*", "-C", special, "-cf", tar, ".")
    assert ours([plain(tar)], tmp_path / "ours") == by_umoci([tar], tmp_path)


def test_a_debian_tree_as_gnu_tar_and_umoci_do(debian: Path, tmp_path: Path) -> None:
    tar = debian.read_bytes()
    mine = ours([layer(tar, gzip.compress(tar, 1), OCI + "+gzip")], tmp_path / "ours")
    assert len(mine) > 500
    theirs = by_tar(debian, tmp_path / "tar")
    # `usr` and `usr/share` are in no header: they are made by whoever needs them first, with the time of now.
    implied = (".", "usr", "usr/share")
    assert {name: mine[name] for name in mine if name not in implied} == {
        name: theirs[name] for name in theirs if name not in implied
    }
    umocis = by_umoci([debian], tmp_path)
    assert {name: mine[name] for name in mine if name not in implied} == {
        name: umocis[name] for name in umocis if name not in implied
    }


def test_layers_over_one_another_as_umoci_does(tmp_path: Path) -> None:
    root = directory(b"./", mtime=1)
    tars = [
        archive(root, directory(b"a", mtime=2), file(b"a/x", b"1"), file(b"a/y", b"2"), directory(b"a/d", mtime=3),
                file(b"a/d/z"), directory(b"b", mtime=4), file(b"b/x"), symlink(b"l", b"a"),
                file(b"f", b"old", mtime=5), hardlink(b"h", b"f")),
        archive(root, directory(b"a", mtime=6), file(b"a/.wh.x"), file(b"a/new", b"3", uid=8), directory(b"b", mtime=7),
                file(b"b/.wh..wh..opq"), file(b"b/new"), file(b"f", b"new", mtime=9)),
        archive(root, file(b"l/through", b"link"), directory(b"a/d", mode=0o700, mtime=8), file(b".wh.b"),
                hardlink(b"i", b"h")),
    ]  # fmt: skip
    paths = []
    for index, tar in enumerate(tars):
        paths.append(tmp_path / f"{index}.tar")
        paths[-1].write_bytes(tar)
    mine = ours([layer(tar) for tar in tars], tmp_path / "ours")
    assert sorted(mine) == [".", "a", "a/d", "a/d/z", "a/new", "a/through", "a/y", "f", "h", "i", "l"]
    assert mine == by_umoci(paths, tmp_path)
