"""Makes the corpus anew: `python -m tests.fuzz.seeds`, as root on a Debian machine with bsdtar and zstd.

Archives of one small tree in every form that GNU tar, bsdtar and Python write, and the layers that Go's archive/tar
makes of it; a few inputs for each of the other targets. Crashes that were found are left where they are.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appbox.oci import model, mtree
from appbox.oci.tar import Kind
from tests.fuzz import corpus
from tests.ground import layers as made
from tests.ground.tiny import Content

TIME: Final = 1_600_000_000
_GNU: Final = {
    "v7": ["--format=v7", *(f"--exclude={name}" for name in ("long", "null", "fifo", "far", "old"))],
    "ustar": ["--format=ustar", *(f"--exclude={name}" for name in ("link", "far", "old"))],
    "oldgnu": ["--format=oldgnu"],
    "gnu": ["--format=gnu"],
    "posix": ["--format=posix", "--xattrs", "--xattrs-include=*"],
    "posix-delete": ["--format=posix", "--pax-option=delete=mtime,globexthdr.name=g,comment=hello"],
    "oldgnu-sparse": ["--format=oldgnu", "--sparse"],
    "gnu-sparse": ["--format=gnu", "--sparse"],
    "posix-sparse-0.0": ["--format=posix", "--sparse", "--sparse-version=0.0"],
    "posix-sparse-0.1": ["--format=posix", "--sparse", "--sparse-version=0.1"],
    "posix-sparse-1.0": ["--format=posix", "--sparse", "--sparse-version=1.0"],
    "label": ["--format=gnu", "--label=volume"],
}
_BSD: Final = {
    "v7": ["--format=v7tar", *(f"--exclude={name}" for name in ("long", "null", "fifo", "far", "old"))],
    "ustar": ["--format=ustar", *(f"--exclude={name}" for name in ("link", "far", "old"))],
    "gnutar": ["--format=gnutar"],
    "pax": ["--format=pax"],
    "restricted": ["--format=paxr"],
}
_PYTHON: Final = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


_PLAIN: Final = ("--blocking-factor=2", "--mtime=@0", "--owner=0", "--group=0", "--sort=name")


def tree(root: Path) -> None:
    """Fill a directory with one of each kind, and with what does not fit into a plain header."""
    (root / "d").mkdir()
    (root / "d/file").write_bytes(b"content\n" * 90)
    os.link(root / "d/file", root / "hard")
    (root / "symlink").symlink_to("d/file")
    os.mkfifo(root / "fifo", 0o620)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "long" / ("n" * 80)).mkdir(parents=True)
    (root / "long" / ("n" * 80) / ("f" * 90)).write_bytes(b"deep")
    (root / "long" / "link").symlink_to("t" * 160)
    (root / os.fsdecode(b"bytes-\xff\xfe")).write_bytes(b"x")
    (root / "setuid").write_bytes(b"#!")
    os.chown(root / "setuid", 33, 44)
    (root / "setuid").chmod(0o6755)
    os.setxattr(root / "setuid", "user.binary", b"\0\n=\xff")
    (root / "able").write_bytes(b"x")
    os.setxattr(root / "able", "security.capability", struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0))
    (root / "far").write_bytes(b"")
    os.chown(root / "far", 3_000_000, 4_000_000)
    with (root / "sparse").open("wb") as sparse:
        for index in range(5):  # more than the four segments of an old header
            sparse.seek(index * 65536 * 3)
            sparse.write(b"%d" % index * 100)
        sparse.truncate(3 << 20)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(0, TIME * 10**9 + 123_456_789), follow_symlinks=False)
    (root / "old").write_bytes(b"")
    os.utime(root / "old", ns=(0, -86_400 * 10**9))
    os.utime(root, ns=(0, TIME * 10**9))


def archives(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield archives of the tree with their names."""
    for name, words in _GNU.items():
        common = ["tar", "--blocking-factor=2", "--numeric-owner", "--sort=name", "-C", str(root)]
        yield f"gnu-{name}", _output([*common, *words, "-cf", "-", *_names(root, name)])
    for name, words in _BSD.items():
        common = ["bsdtar", "-b", "2", "--numeric-owner", "-C", str(root)]
        yield f"bsd-{name}", _output([*common, *words, "-cf", "-", *_names(root, name)])
    yield "bsd-pax-sparse", _output(["bsdtar", "-b", "2", "--format=pax", "-C", str(root), "-cf", "-", "sparse"])
    for name, form in _PYTHON.items():
        yield f"python-{name}", _by_python(root, form)
    yield "go-layer", go_layer()


def _names(root: Path, name: str) -> list[str]:
    """Return what goes into an archive: the sparse file goes into its own ones only, since it takes the most room."""
    return ["sparse"] if "sparse" in name else sorted(set(os.listdir(root)) - {"sparse"})


def _output(words: list[str]) -> bytes:
    done = subprocess.run(words, capture_output=True, check=False)
    # bsdtar ends with 1 when it left something out that the format cannot say, and the archive is whole.
    if not done.stdout or (done.returncode and words[0] != "bsdtar"):
        raise SystemExit(f"{' '.join(words)}: {done.stderr.decode()}")
    return done.stdout


def _by_python(root: Path, form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as tar:
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if name != "sparse" and (form != tarfile.USTAR_FORMAT or not name.startswith(("far", "old", "long"))):
                tar.add(path, name, recursive=False)
    data = out.getvalue()
    return data.rstrip(b"\0").ljust(-(-len(data.rstrip(b"\0")) // 512) * 512, b"\0") + made.END


def go_layer() -> bytes:
    """Return what Go's archive/tar writes for a layer of docker: ustar, and PAX only where that does not do."""
    xattr = {b"SCHILY.xattr.security.capability": struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0)}
    return made.archive(
        made.directory(b"etc/", mtime=TIME),
        made.pax({b"mtime": b"1600000000.123456789"}),
        made.file(b"etc/passwd", b"root:x:0:0::/:/bin/sh\n", mtime=TIME),
        made.file(b"etc/.wh.shadow"),
        made.file(b"var/.wh..wh..opq"),
        made.pax(xattr),
        made.file(b"usr/bin/ping", b"\x7fELF", mode=0o755, uid=5, gid=6),
        made.pax({b"path": b"a/" * 60 + b"\xc3\xa9", b"linkpath": b"b" * 120}),
        made.symlink(b"a", b"b"),
        made.hardlink(b"usr/bin/ping6", b"usr/bin/ping"),
        made.device(b"dev/null", 1, 3, mode=0o666),
    )


def records() -> Iterator[tuple[str, bytes]]:
    """Yield extended headers."""
    yield "times", b"".join(made.record(key, b"1600000000.5") for key in (b"mtime", b"atime", b"ctime"))
    yield (
        "names",
        made.record(b"path", b"p" * 200) + made.record(b"linkpath", b"\xff\n=") + made.record(b"uid", b"70000"),
    )
    yield "map", made.record(b"GNU.sparse.size", b"9000") + made.record(b"GNU.sparse.map", b"0,512,8192,0")
    pairs = (made.record(b"GNU.sparse.offset", b"0") + made.record(b"GNU.sparse.numbytes", b"512"),)
    yield "pairs", b"".join(pairs)
    yield "xattrs", made.record(b"SCHILY.xattr.user.a", b"\0=\n") + made.record(b"SCHILY.xattr.trusted.b", b"")


def documents() -> Iterator[tuple[str, str, bytes]]:
    """Yield target, name and bytes of manifests, indexes and configurations."""
    content = Content()
    content.index("i", content.image("t"), {**content.image(architecture="arm64"), "annotations": {"a": "b"}})
    content.image("docker", mediaType="application/vnd.docker.distribution.manifest.v2+json", annotations={"k": "v"})
    for number, (_, data) in enumerate(content.manifests.values()):
        yield "manifest", f"document-{number}", data
    config = next(data for data in content.blobs.values() if data.startswith(b"{"))
    full = json.loads(config)
    full["config"] |= {
        "User": "1:2", "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "WorkingDir": "/",
        "Labels": {"a": "b"}, "StopSignal": "SIGTERM", "Entrypoint": ["/x"],
    }  # fmt: skip
    full["history"] = [{"created": "2026-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}]
    yield "config", "small", config
    yield "config", "full", json.dumps(full).encode()
    yield (
        "manifest",
        "foreign",
        json.dumps({"schemaVersion": 2, "mediaType": "x/y", "layers": [], "config": {}}).encode(),
    )


_TEXTS: Final = {
    "reference": (
        "docker://docker.io/library/nginx:1@sha256:" + "a" * 64, "valkey/valkey", "oci:dir/x:docker.io/a/b:1",
        "oci-archive:/x.tar:ref", "docker-archive:x.tar", "[2001:db8::1]:5000/a/b:t", "localhost:5000/x__y/a--b.c",
    ),
    "challenge": (
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
        'Negotiate dG9rZW4==, Digest realm="a, b", nonce="x\\"y", Basic realm=plain\nBasic realm=""',
        'Basic realm="simple", charset="UTF-8" , , Bearer realm = "r"\t,\tscope=""',
    ),
}  # fmt: skip


def signed() -> Iterator[tuple[str, bytes]]:
    """Yield what cosign signs, and a manifest of signatures."""
    digest = "sha256:" + "a" * 64
    image = {"docker-manifest-digest": digest}
    kind = "cosign container image signature"
    critical = {"identity": {"docker-reference": "h.io/a/b"}, "image": image, "type": kind}
    yield "claim", json.dumps({"critical": critical, "optional": None}).encode()
    yield "optional", json.dumps({"critical": critical, "optional": {"creator": "x", "timestamp": 1}}).encode()
    payload = {"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": digest, "size": 200}
    layer = {**payload, "annotations": {"dev.cosignproject.cosign/signature": "MEUCIQ=="}}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": model.OCI_MANIFEST, "config": config, "layers": [layer]}
    yield "manifest", json.dumps(manifest).encode()


def listed() -> bytes:
    """Return an mtree manifest with one of each kind."""
    node = mtree.Node(b"", Kind.DIRECTORY, 0o755, 0, 0, 0)
    nodes = [
        node,
        node._replace(path=b"a\xff \\", kind=Kind.SYMLINK, link=b"\xc3\xa9 #", nlink=1),
        node._replace(path=b"d", mtime=-1, mode=0o1777, uid=65536, xattrs=(("user.a", b"\0\xff"),)),
        node._replace(path=b"d/c", kind=Kind.CHAR, device=(1, 3), nlink=1),
        node._replace(
            path=b"d/f", kind=Kind.FILE, size=5, digest=bytes(range(32)), mode=0, nlink=2, mtime=TIME * 10**9
        ),
        node._replace(path=b"d/p", kind=Kind.FIFO, nlink=1),
    ]
    return mtree.HEADER + b"".join(map(mtree.line, nodes))


def docker_layout(content: Content, folder: str) -> None:
    """Write what `docker save` writes: manifest.json, a configuration, and plain layers with links between them."""
    _, manifest = next(iter(content.manifests.values()))
    document = json.loads(manifest)
    os.makedirs(f"{folder}/one")
    config = document["config"]["digest"].partition(":")[2] + ".json"
    Path(folder, config).write_bytes(content.blobs[document["config"]["digest"]])
    Path(folder, "one/layer.tar").write_bytes(gzip.decompress(content.blobs[document["layers"][0]["digest"]]))
    Path(folder, "two.tar").symlink_to("one/layer.tar")
    Path(folder, "manifest.json").write_text(
        json.dumps([{"Config": config, "RepoTags": ["a:1"], "Layers": ["two.tar"]}])
    )
    Path(folder, "repositories").write_text("{}")


def everything(place: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield target, name and bytes of the whole corpus."""
    (place / "tree").mkdir()
    tree(place / "tree")
    for name, data in archives(place / "tree"):
        yield "tar", name, data
    for name, data in records():
        yield "pax", name, data
    yield from documents()
    for name, data in signed():
        yield "signature", name, data
    yield "mtree", "kinds", listed()
    for target, texts in _TEXTS.items():
        for number, text in enumerate(texts):
            yield target, str(number), text.encode()
    content = Content()
    content.image("1")
    content.write_layout(f"{place}/layout")
    docker_layout(content, f"{place}/docker")
    for target, folder in (("oci-archive", "layout"), ("docker-archive", "docker")):
        for form in ("gnu", "posix", "ustar"):
            words = ["tar", f"--format={form}", *_PLAIN, "-C", f"{place}/{folder}", "-cf", "-", "."]
            yield target, form, _output(words)
        yield target, "compressed", gzip.compress(_output(words), 9, mtime=0)
    tar = made.archive(made.file(b"f", b"data" * 50))
    yield "inflate", "gzip", gzip.compress(tar, mtime=0)
    yield "inflate", "members", gzip.compress(b"a", mtime=0) + gzip.compress(b"b" * 999, mtime=0)
    zstd = subprocess.run(["zstd", "-c"], input=tar, capture_output=True, check=True).stdout
    yield "inflate", "zstd", zstd
    yield "inflate", "frames", b"\x5e\x2a\x4d\x18\x02\0\0\0ab" + zstd + zstd


def main() -> None:
    """Write the corpus, large inputs gzipped."""
    with tempfile.TemporaryDirectory(prefix="appbox-seeds.") as place:
        for target, name, data in everything(Path(place)):
            path = corpus.CORPUS / target / (f"{name}.gz" if len(data) > 2048 else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)
            print(f"{target}/{path.name}: {len(data)} bytes, {path.stat().st_size} on disk")


if __name__ == "__main__":
    main()
