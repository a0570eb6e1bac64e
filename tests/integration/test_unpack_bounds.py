"""What a hostile image may cost: time, memory and disk of the command itself, measured, for every kind of excess."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from appbox.errors import Refused
from appbox.oci import unpack
from tests.ground.layers import (
    END,
    OCI,
    archive,
    base256,
    digest,
    directory,
    file,
    hardlink,
    header,
    long_name,
    of,
    pax,
    symlink,
)
from tests.ground.tiny import Content

pytestmark = pytest.mark.root

SECONDS: Final = 10.0
"""Of processor time, start of Python included; the largest input is 4 MB."""
MEMORY: Final = 160 << 10
"""KiB of resident memory at the peak."""
MIB: Final = 1 << 20

zstd: Any
if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def sparse(size: bytes, numbers: bytes) -> bytes:
    return pax([(b"GNU.sparse.size", size), (b"GNU.sparse.map", numbers)]) + file(b"s", b"A" * 512)


HOSTILE: Final = {
    "a size of 2^80 bytes": header(b"f", size=base256(1 << 80, 12)),
    "a size of 8 EiB": header(b"f", size=base256(1 << 63, 12)),
    "a size of 300 GiB": header(b"f", size=base256(300 << 30, 12)),
    "a negative size": header(b"f", size=base256(-512, 12)),
    "a PAX size of twenty digits": pax({b"size": b"9" * 20}) + file(b"f"),
    "an extended header of 8 GiB": header(b"x", flag=b"x", size=base256(8 << 30, 12)),
    "a global header of 2 MiB": header(b"g", flag=b"g", size=2 << 20),
    "a long name of 3 GiB": header(b"././@LongLink", flag=b"L", size=3 << 30),
    "a long link of 1 MiB": header(b"././@LongLink", flag=b"K", size=1 << 20),
    "a long name of 5,000 bytes": long_name(b"n" * 5000) + file(b"f"),
    "a component of 256 bytes": long_name(b"n" * 256) + file(b"f"),
    "a path of 600 components": long_name(b"/".join([b"a"] * 600)) + file(b"f"),
    "a sparse file of 9 EiB": sparse(b"9223372036854775807", b"0,512"),
    "a sparse map beyond the file": sparse(b"4096", b"8192,512"),
    "a sparse map of overlaps": sparse(b"99999", b"0,512,100,512"),
    "a sparse map for other bytes": sparse(b"99999", b"0,511"),
    "a sparse map of minus one": sparse(b"99999", b"-1,512"),
    "a record without an end": file(b"x", b"99999 path=a", flag=b"x") + file(b"f"),
    "a name with NUL": pax({b"path": b"a\0b"}) + file(b"f"),
    "a link with NUL": pax({b"linkpath": b"a\0b"}) + symlink(b"f", b"x"),
    "a wrong checksum": file(b"f", b"x").replace(b"f", b"g", 1),
    "a name out": file(b"../../etc/evil", b"x"),
    "a link out": hardlink(b"f", b"../../etc/passwd"),
    "a time that is no number": pax({b"mtime": b"1e99"}) + file(b"f"),
    "an owner of nobody's range": pax({b"uid": b"4294967295"}) + file(b"f"),
    "an unknown type": header(b"f", flag=b"Z"),
    "junk behind the end": file(b"f") + END + b"junk" * 128,
    "an archive behind the end": file(b"f") + END + file(b"hidden") + END,
    "a lone zero block": file(b"f") + bytes(512) + file(b"g"),
}


def layout(place: Path, raw: bytes, tar_digest: str, media_type: str) -> Path:
    """Write an image with one layer of these bytes."""
    content = Content()
    rootfs = {"type": "layers", "diff_ids": [tar_digest]}
    config = json.dumps({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs})
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": content.blob(config.encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [content.blob(raw, media_type)],
    }
    content.document(document, document["mediaType"], "1")  # type: ignore[arg-type]
    content.write_layout(str(place))
    return place


_MEASURE = """
import json, os, resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
"""Runs a program and tells what it took. A process of its own, and a small one: a child's memory begins with that of
its parent, which here has run many tests."""


def costs(source: Path, place: Path) -> tuple[int, str, float, int]:
    """Run the command; return its exit code, its words, seconds of processor time and KiB of memory."""
    (place / "out").mkdir(exist_ok=True)
    words = [
        *(sys.executable, "-c", _MEASURE),
        sys.executable,
        "-m",
        "appbox",
        "--root",
        str(place),
        "image",
        "unpack",
        f"oci:{source}",
        f"{place}/out/rootfs",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    code, seconds, memory = json.loads(done.stdout)
    return code, done.stderr, seconds, memory


def refused(source: Path, place: Path) -> str:
    """Check what a refusal costs and that nothing is left; return its words."""
    code, said, seconds, memory = costs(source, place)
    assert code == 6, said
    assert said.count("\n") == 1
    assert seconds < SECONDS
    assert memory < MEMORY
    assert os.listdir(place / "out") == []
    return said


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members(name: str, tmp_path: Path) -> None:
    """With a file before, so that something was written, and framing that is right in all else."""
    tar = archive(file(b"first", b"x" * 1000), HOSTILE[name], file(b"last"))
    source = layout(tmp_path / "layout", gzip.compress(tar, 1, mtime=0), digest(tar), OCI + "+gzip")
    assert "layer sha256:" in refused(source, tmp_path)


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_bombs(form: str, tmp_path: Path) -> None:
    """6 GiB of zeros: what gzip makes 1/1,030 of, and zstd 1/30,000, ends at the limit of what any image may have."""
    mib = bytes(MIB)
    members = [gzip.compress(mib, 9, mtime=0)] if form == "gzip" else [zstd.compress(mib)]
    front = header(b"bomb", size=base256(200 << 30, 12))
    first = gzip.compress(front, mtime=0) if form == "gzip" else zstd.compress(front)
    raw = first + members[0] * (6 << 10)
    source = layout(tmp_path / "layout", raw, digest(b"never"), f"{OCI}+{form}")
    assert "like a bomb" in refused(source, tmp_path)


@pytest.mark.parametrize("level", ["member", "header", "data", "end", "gzip", "check value"])
def test_truncation_at_each_level_of_framing(level: str, tmp_path: Path) -> None:
    """Digests that are right for what is there: the framing alone has to notice."""
    tar = archive(file(b"a", b"x" * 5000), file(b"b", b"y" * 5000))
    cuts: dict[str, Callable[[], bytes]] = {
        "member": lambda: gzip.compress(tar[: 512 + 5120], mtime=0),
        "header": lambda: gzip.compress(tar[: 512 + 5120 + 100], mtime=0),
        "data": lambda: gzip.compress(tar[:3000], mtime=0),
        "end": lambda: gzip.compress(tar[:-512], mtime=0),
        "gzip": lambda: gzip.compress(tar, mtime=0)[:-30],
        "check value": lambda: gzip.compress(tar, mtime=0)[:-3],
    }
    raw = cuts[level]()
    plain = {"member": tar[:5632], "header": tar[:5732], "data": tar[:3000], "end": tar[:-512]}.get(level, tar)
    assert "truncated" in refused(layout(tmp_path / "layout", raw, digest(plain), OCI + "+gzip"), tmp_path)


@pytest.mark.parametrize("flag", [b"V", b"M", b"g"])
def test_headers_that_make_nothing_are_few(flag: bytes) -> None:
    """Each costs the time of an entry: 4 GiB of them, which 4 MB of gzip hold, are 8 million."""
    block = pax({b"a": b"b"}, b"g") if flag == b"g" else header(b"label", flag=flag)
    with pytest.raises(Refused, match="too many extended headers"):
        unpack.list_image([of(block * 17, file(b"f"))])
    assert list(unpack.list_image([of(block * 16, file(b"f"))]).paths()) == ["/", "/f"]


def test_holes_count_as_bytes_of_the_image() -> None:
    """Somebody will read them: `apply` does, for rootfs.mtree."""
    holes = sparse(b"%d" % (40 << 30), b"0,512")
    image = [of(holes, holes)]
    with pytest.raises(Refused, match="larger than the limit"):
        unpack.list_image(image, limits=unpack.Limits(size=60 << 30))
    unpack.list_image(image, limits=unpack.Limits(size=90 << 30))


def test_an_honest_image_is_within_the_same_bounds(tmp_path: Path) -> None:
    tar = archive(directory(b"d"), *(file(b"d/%d" % index, b"x" * 700) for index in range(5000)))
    start = time.monotonic()
    code, said, seconds, memory = costs(
        layout(tmp_path / "layout", gzip.compress(tar, 1), digest(tar), OCI + "+gzip"), tmp_path
    )
    assert (code, said) == (0, "")
    assert seconds < SECONDS
    assert memory < MEMORY
    assert len(os.listdir(tmp_path / "out/rootfs/d")) == 5000
    print(f"{len(HOSTILE) + 8} hostile images; an honest one took {time.monotonic() - start:.2f} s, {memory >> 10} MiB")
