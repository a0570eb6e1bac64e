"""`appbox image copy` against a real registry, and its results in the hands of skopeo, umoci and podman."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ground import registry as ground
from tests.ground.registry import RealRegistry
from tests.ground.tiny import Content, layer

SKOPEO = ("skopeo", "--insecure-policy")
LOCAL = ("oci:{}:x", "oci-archive:{}:x", "docker-archive:{}:a/b:1")
"""Where images are copied to; {} is a new path."""


class Tool:
    """appbox with a home and a root of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "root").mkdir()

    def run(self, *words: str, code: int = 0, **how: Any) -> str:
        """Run a command, and return what it says."""
        done = subprocess.run(self.argv(*words), capture_output=True, text=True, env=self.env(), check=False, **how)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "appbox", "--root", str(self.folder / "root"), *words]

    def env(self) -> dict[str, str]:
        source = str(Path(__file__).parents[2])
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": source}


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.chdir(tmp_path)
    return Tool(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with ground.start(str(tmp_path_factory.mktemp("registry"))) as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> str:
    """An image of three layers, one of them twice, and beside it one for two platforms with an attestation."""
    content = Content()
    same, big = layer({"etc/a": b"a"}), layer({"b": os.urandom(1 << 20)})
    content.image("1", layers=(same, big, same), config={"Labels": {"a": "<&>"}, "Volumes": {"/data": {}}})
    amd, arm = content.image(), content.image(architecture="arm64")
    blobs = [content.blob(b'{"claim": 1}', "application/vnd.in-toto+json")]
    config = content.blob(b"{}", "application/vnd.oci.image.config.v1+json")
    said = content.document({"schemaVersion": 2, "config": config, "layers": blobs}, amd["mediaType"])
    content.index("all", amd, arm, {**said, "platform": {"os": "unknown", "architecture": "unknown"}})
    content.index("two", amd, arm)
    content.write_layout(str(tmp_path / "src"))
    return "oci:src:1"


@pytest.fixture
def short_folder() -> Iterator[str]:
    """Yield a directory with a short path: podman takes no runroot of more than 50 characters."""
    folder = tempfile.mkdtemp(prefix="appbox-copy.")
    yield folder
    shutil.rmtree(folder)


def skopeo(*words: str) -> bytes:
    return ground.run(*SKOPEO, *words)


def raw(place: str) -> dict[str, Any]:
    """Return the manifest of an image as skopeo reads it."""
    insecure = ["--tls-verify=false"] if place.startswith("docker://") else []
    found: dict[str, Any] = json.loads(skopeo("inspect", "--raw", *insecure, place))
    return found


def config(place: str) -> dict[str, Any]:
    insecure = ["--tls-verify=false"] if place.startswith("docker://") else []
    found: dict[str, Any] = json.loads(skopeo("inspect", "--config", "--raw", *insecure, place))
    return found


def digests(manifest: dict[str, Any]) -> tuple[str, list[str]]:
    return manifest["config"]["digest"], [one["digest"] for one in manifest["layers"]]


@pytest.mark.registry
@pytest.mark.parametrize("second", [*LOCAL, "docker"])
@pytest.mark.parametrize("first", [*LOCAL, "docker"])
def test_every_pair_of_places(tool: Tool, server: RealRegistry, layout: str, first: str, second: str) -> None:
    """From one place to another and back to a layout; skopeo reads each, and copies with the same digests itself."""

    def place(name: str, kind: str) -> str:
        return f"docker://{server.host}/{name}:1" if kind == "docker" else kind.format(name)

    one, two = place("one", first), place("two", second)
    tool.run("image", "copy", layout, one)
    tool.run("image", "copy", one, two)
    tool.run("image", "copy", two, "oci:last:x")
    assert config(one) == config(two) == config("oci:last:x") == config(layout)
    if not any(kind.startswith("docker-archive") for kind in (first, second)):
        assert raw(one) == raw(two) == raw("oci:last:x") == raw(layout)
    tls = ["--dest-tls-verify=false"] if second == "docker" else []
    peer = place("peer", second)
    skopeo("copy", "--src-tls-verify=false", "--dest-compress-format=gzip", *tls, one, peer)
    if not first.startswith(
        "docker-archive"
    ):  # of that one skopeo rewrites the configuration and compresses the layers
        assert digests(raw(peer)) == digests(raw(two))
    if shutil.which("umoci"):
        ground.run("umoci", "raw", "unpack", "--rootless", "--image", "last:x", "rootfs")
        assert Path("rootfs/etc/a").read_bytes() == b"a"


@pytest.mark.parametrize("reference", ["a/b:1", ""])
def test_a_docker_archive_has_the_members_of_skopeos(tool: Tool, layout: str, reference: str) -> None:
    name = f":{reference}" if reference else ""
    skopeo("copy", layout, f"docker-archive:theirs.tar{name}")
    tool.run("image", "copy", layout, f"docker-archive:ours.tar{name}")
    assert _members("ours.tar") == _members("theirs.tar")


def _members(path: str) -> list[tuple[str, str, bytes]]:
    with tarfile.open(path) as archive:
        return [
            (one.name, one.linkname, stream.read() if one.isreg() and (stream := archive.extractfile(one)) else b"")
            for one in archive
        ]


@pytest.mark.root
def test_podman_loads_what_was_copied(tool: Tool, layout: str, short_folder: str) -> None:
    podman = shutil.which("podman")
    assert podman, "podman is missing; ./dev test installs it"
    command = [podman, "--root", f"{short_folder}/p", "--runroot", f"{short_folder}/r", "--storage-driver", "vfs"]
    ident = config_digest(raw(layout))
    for place in ("docker-archive:d.tar:a/b:1", "oci-archive:o.tar:c/d:1"):
        tool.run("image", "copy", layout, place)
        said = ground.run(*command, "load", "-i", place.split(":")[1]).decode()
        assert "Loaded image" in said
    listed = json.loads(ground.run(*command, "images", "--format", "json"))
    assert {one["Id"] for one in listed} == {ident}
    ground.run(*command, "save", "--format", "docker-archive", "-o", "saved.tar", "docker.io/a/b:1")
    ground.run(*command, "save", "-m", "-o", "several.tar", "docker.io/a/b:1", "localhost/c/d:1")
    for saved in ("docker-archive:saved.tar", "docker-archive:several.tar:localhost/c/d:1"):
        tool.run("image", "copy", saved, "oci:back:x")
        assert config("oci:back:x") == config(layout)
        assert raw("oci:back:x")["config"]["digest"] == f"sha256:{ident}"
    ground.run(*command, "rmi", "--all", "--force")


def config_digest(manifest: dict[str, Any]) -> str:
    digest: str = manifest["config"]["digest"]
    return digest.removeprefix("sha256:")


@pytest.mark.registry
def test_all_platforms_through_a_registry(tool: Tool, server: RealRegistry, layout: str) -> None:
    del layout
    there = f"docker://{server.host}/all/platforms:1"
    tool.run("image", "copy", "--all", "oci:src:all", there)
    tool.run("image", "copy", "--all", "--preserve-digests", there, "oci-archive:all.tar:x")
    tool.run("image", "copy", "--all", "oci-archive:all.tar:x", "oci:all:x")
    assert raw(there) == raw("oci:all:x") == raw("oci:src:all")
    for blob in Path("all/blobs/sha256").iterdir():
        assert blob.read_bytes() == Path(f"src/blobs/sha256/{blob.name}").read_bytes()
    said = json.loads(tool.run("image", "copy", "--all", "--json", "oci:all:x", "oci:again:x"))
    assert len(list(Path("all/blobs/sha256").iterdir())) == said["manifests"] + said["blobs"]
    assert said["copied"] == said["blobs"]
    tool.run("image", "copy", "--platform", "linux/arm64", there, "oci:arm:x")
    assert config("oci:arm:x")["architecture"] == "arm64"
    assert "holds one platform" in tool.run("image", "copy", "--all", there, "docker-archive:d.tar", code=1)
    assert not Path("d.tar").exists()


@pytest.mark.registry
def test_docker_manifests_keep_their_bytes(tool: Tool, server: RealRegistry, layout: str) -> None:
    server.push(layout, "schema/two:1", "--format", "v2s2")
    there = f"docker://{server.host}/schema/two:1"
    again = f"docker://{server.host}/schema/again:1"
    tool.run("image", "copy", there, again)
    assert raw(again) == raw(there)
    tool.run("image", "copy", "--preserve-digests", there, "oci:kept:x")
    tool.run("image", "copy", "oci:kept:x", f"docker://{server.host}/schema/back:1")
    assert raw(f"docker://{server.host}/schema/back:1") == raw(there)


@pytest.mark.registry
def test_docker_manifests_in_layouts_are_found_by_others(tool: Tool, server: RealRegistry, layout: str) -> None:
    """skopeo finds only OCI's media types in a layout; configuration and layers stay what they are."""
    server.push(layout, "schema/found:1", "--format", "v2s2")
    there = f"docker://{server.host}/schema/found:1"
    said = json.loads(tool.run("image", "copy", "--json", there, "oci:found:x"))
    assert said["digest"] != said["source_digest"]
    assert raw("oci:found:x")["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert digests(raw("oci:found:x")) == digests(raw(there)) == digests(raw(layout))
    ground.run("umoci", "raw", "unpack", "--rootless", "--image", "found:x", "rootfs")
    server.push("oci:src:two", "schema/list:1", "--format", "v2s2")
    tool.run("image", "copy", "--all", f"docker://{server.host}/schema/list:1", "oci-archive:list.tar:x")
    listed = raw("oci-archive:list.tar:x")
    assert {one["mediaType"] for one in listed["manifests"]} == {"application/vnd.oci.image.manifest.v1+json"}
    tool.run("image", "copy", "--platform", "linux/arm64", "oci-archive:list.tar:x", "oci:arm:x")
    assert config("oci:arm:x")["architecture"] == "arm64"


@pytest.mark.registry
def test_nothing_is_sent_twice(tool: Tool, server: RealRegistry, layout: str) -> None:
    """The second copy sends nothing; into another repository of the same registry blobs are mounted, not fetched."""
    first, other = (f"docker://{server.host}/{name}:1" for name in ("once", "mounted"))
    assert json.loads(tool.run("image", "copy", "--json", layout, first))["copied"] == 3
    assert json.loads(tool.run("image", "copy", "--json", layout, first))["copied"] == 0
    assert raw(first) == raw(layout)
    tool.run("image", "copy", first, other)
    assert raw(other) == raw(layout)
    cached = {path.name for path in (tool.folder / "root/var/cache/appbox/blobs/sha256").iterdir()}
    assert not cached & {one["digest"].partition(":")[2] for one in raw(layout)["layers"]}


@pytest.mark.registry
def test_in_pieces(tool: Tool, server: RealRegistry, layout: str) -> None:
    there = f"docker://{server.host}/pieces:1"
    tool.run("image", "copy", "--chunked", layout, there)
    tool.run("image", "copy", there, "oci:back:x")
    assert raw("oci:back:x") == raw(layout)
    assert "--chunked is for registries" in tool.run("image", "copy", "--chunked", there, "oci:x", code=2)


@pytest.mark.registry
def test_a_digest_as_the_name(tool: Tool, server: RealRegistry, layout: str) -> None:
    digest = json.loads(tool.run("image", "copy", "--json", layout, "oci:x:x"))["digest"]
    there = f"docker://{server.host}/by/digest@{digest}"
    tool.run("image", "copy", layout, there)
    tool.run("image", "copy", there, "oci:y:y")
    other = f"docker://{server.host}/by/digest@sha256:{'0' * 64}"
    assert "another digest" in tool.run("image", "copy", layout, other, code=1)
    tool.run("image", "copy", other, "oci:z:z", code=5)
    assert not Path("z").exists()


def in_sha512(layout: Path, made: Path) -> str:
    """Write the image `1` of a layout again with sha512 digests throughout, and return its own."""
    (made / "blobs/sha512").mkdir(parents=True)

    def stored(data: bytes) -> str:
        digits = hashlib.sha512(data).hexdigest()
        (made / "blobs/sha512" / digits).write_bytes(data)
        return f"sha512:{digits}"

    def blob(digest: str) -> bytes:
        return (layout / "blobs" / digest.replace(":", "/")).read_bytes()

    index = json.loads((layout / "index.json").read_bytes())
    (entry,) = [e for e in index["manifests"] if e["annotations"]["org.opencontainers.image.ref.name"] == "1"]
    manifest = json.loads(blob(entry["digest"]))
    for one in (manifest["config"], *manifest["layers"]):
        one["digest"] = stored(blob(one["digest"]))
    data = json.dumps(manifest).encode()
    entry |= {"digest": stored(data), "size": len(data)}
    (made / "index.json").write_text(json.dumps({**index, "manifests": [entry]}))
    (made / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return str(entry["digest"])


@pytest.mark.registry
def test_sha512_keeps_its_digest_or_says_that_a_tag_has_none(tool: Tool, server: RealRegistry, layout: str) -> None:
    digest = in_sha512(Path(layout.split(":")[1]), Path("long"))
    place = f"docker://{server.host}/sha/long"
    refused = tool.run("image", "copy", "--preserve-digests", "oci:long:1", f"{place}:1", code=1)
    assert "cannot keep its digest sha512:" in refused
    assert f"@{digest}" in refused
    told = json.loads(tool.run("image", "copy", "--json", "oci:long:1", f"{place}:1"))
    assert told["source_digest"] == digest
    assert json.loads(tool.run("image", "inspect", "--json", f"{place}:1"))["digest"] == told["digest"]
    assert told["digest"].startswith("sha256:")
    tool.run("image", "copy", "--preserve-digests", "oci:long:1", "oci:kept:1")
    assert json.loads(tool.run("image", "inspect", "--json", "oci:kept:1"))["digest"] == digest
    tool.run("image", "copy", f"{place}:1", "oci:back:1")
    assert sorted(os.listdir("back/blobs/sha512")) == sorted(
        {one["digest"].partition(":")[2] for one in blobs_of("long", digest)}
    )


def blobs_of(layout: str, digest: str) -> list[dict[str, Any]]:
    """Return the descriptors of an image's configuration and layers."""
    manifest = json.loads((Path(layout) / "blobs" / digest.replace(":", "/")).read_bytes())
    return [manifest["config"], *manifest["layers"]]


@pytest.mark.root
def test_the_host_sets_the_limits(tool: Tool, layout: str) -> None:
    (tool.folder / "root/etc/appbox").mkdir(parents=True)
    limits = tool.folder / "root/etc/appbox/limits.toml"
    limits.write_text("entries = 2\n")
    refused = tool.run("image", "unpack", layout, "rootfs", code=6)
    assert "more entries than the limit" in refused
    assert "/etc/appbox/limits.toml" in refused
    assert not Path("rootfs").exists()
    limits.write_text("entires = 2\n")
    assert "limits.toml:1: entires: unknown key" in tool.run("image", "unpack", layout, "rootfs", code=3)
    limits.write_text("entries = 3\n")
    tool.run("image", "unpack", layout, "rootfs")


@pytest.mark.parametrize("every", [(), ("--all",)])
def test_a_policy_is_asked_before_anything_is_written(tool: Tool, layout: str, every: tuple[str, ...]) -> None:
    ground.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key")
    ground.run("openssl", "ec", "-in", "key", "-pubout", "-out", "key.pub")
    Path("policy.toml").write_text('signed_by = ["key.pub"]\n', encoding="utf-8")
    tool.run("image", "copy", layout, "docker-archive:d.tar")
    before = sorted(os.listdir())
    for source in (layout, "docker-archive:d.tar"):
        tool.run("image", "copy", *every, "--policy", "policy.toml", source, "oci:x:x", code=6)
        assert sorted(os.listdir()) == before
    Path("policy.toml").write_text('registries = ["docker.io/library"]\n', encoding="utf-8")
    refused = tool.run("image", "copy", *every, "--policy", "policy.toml", "docker://h.io/x:1", "oci:x:x", code=6)
    assert "h.io/x" in refused


def test_words_and_exit_codes(tool: Tool, layout: str) -> None:
    for words, code, says in (
        (("copy", layout), 2, "DST"),
        (("copy", "-", "oci:x"), 2, "a pipe"),
        (("copy", layout, "-"), 2, "a pipe"),
        (("copy", layout, "oci-archive:/dev/stdout"), 1, "no regular file"),
        (("copy", layout, "dir:x"), 2, "dir: is not supported"),
        (("copy", "--all", "--platform", "linux/arm64", layout, "oci:x"), 2, "exclude each other"),
        (("copy", "--platform", "linux/riscv64", layout, "oci:x"), 5, "not made for linux/riscv64"),
        (("copy", layout, "docker-archive:x.tar:@0"), 2, "named, not numbered"),
        (("copy", "--preserve-digests", layout, "docker-archive:x.tar"), 1, "digest cannot be kept"),
        (("copy", "oci:none", "oci:x"), 5, "no such directory"),
        (("copy", "docker-archive:none.tar", "oci:x"), 5, "no regular file"),
        (("unpack", "docker-archive:none.tar", "x"), 5, "no regular file"),
        (("copy", layout, "docker://127.0.0.1:1/x:1"), 5, "127.0.0.1:1"),
    ):
        before = sorted(os.listdir())
        assert says in tool.run("image", *words, code=code), words
        assert sorted(os.listdir()) == before
    assert tool.run("-q", "image", "copy", layout, "oci:quiet:1") == ""
    said = tool.run("image", "copy", layout, "docker-archive:d.tar:a:1")
    assert said.splitlines()[-1].startswith("docker-archive:d.tar:docker.io/library/a:1: oci:")
    assert "is there already" in tool.run("image", "copy", layout, "docker-archive:d.tar:a:2", code=1)
    failed = json.loads(tool.run("--json", "image", "copy", "oci:src:none", "oci:x", code=5).partition("appbox:")[0])
    assert failed["error"]["exit"] == 5
    help_text = tool.run("image", "copy", "--help")
    for word in ("docker-archive:FILE", "--all", "--preserve-digests", "--platform", "Example"):
        assert word in help_text


@pytest.mark.root
def test_unpack_and_inspect_of_docker_archives(tool: Tool, layout: str) -> None:
    tool.run("image", "copy", layout, "docker-archive:d.tar:a:1")
    ground.run("gzip", "-k", "d.tar")
    for at, name in enumerate(("d.tar:a:1", "d.tar:@0", "d.tar.gz")):
        tool.run("image", "unpack", f"docker-archive:{name}", f"rootfs{at}")
        assert Path(f"rootfs{at}/etc/a").read_bytes() == b"a"
        shown = json.loads(tool.run("image", "inspect", "--json", f"docker-archive:{name}"))
        assert len(shown["layers"]) == 3


@pytest.mark.root
def test_a_service_from_a_docker_archive(tool: Tool, layout: str) -> None:
    tool.run("image", "copy", layout, "docker-archive:d.tar:a:1")
    ground.run("gzip", "d.tar")
    manifest = 'name = "a"\nimage = "docker-archive:d.tar.gz"\nversion = "1"\n[network]\nmode = "none"\n'
    Path("a.toml").write_text(manifest, encoding="utf-8")
    tool.run("--init", "systemd", "apply", "--no-start", "a.toml")
    assert (tool.folder / "root/opt/containers/a/rootfs/etc/a").read_bytes() == b"a"
    assert tool.run("--init", "systemd", "plan", "--exit-code", "a.toml").strip() == "nothing to do"
    Path("a.toml").write_text(manifest.replace('"1"', '"2"'), encoding="utf-8")
    assert "no image '2': it has docker.io/library/a:1" in tool.run("plan", "a.toml", code=5)


@pytest.mark.parametrize("place", ["oci:dst:x", "oci-archive:dst.tar", "docker-archive:dst.tar"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_copy_leaves_nothing(tool: Tool, tmp_path: Path, place: str, number: signal.Signals) -> None:
    content = Content()
    content.image("big", layers=tuple(layer({"a": os.urandom(24 << 20)}) for _ in range(4)))
    content.write_layout(str(tmp_path / "src"))
    process = subprocess.Popen(
        tool.argv("-q", "image", "copy", "oci:src", place), env=tool.env(), stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    _wait(lambda: bool(list(tmp_path.glob("dst/.copy-*/*")) or list(tmp_path.glob(".dst.tar*"))), process)
    process.send_signal(number)
    process.wait(20)
    assert process.returncode != 0
    assert sorted(os.listdir()) == ["root", "src"]


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


@pytest.mark.images
def test_a_real_image_through_all_places(tool: Tool, image: Callable[[str], Path]) -> None:
    source = f"oci:{image('valkey')}"
    tool.run("image", "copy", source, "docker-archive:d.tar:valkey:1")
    tool.run("image", "copy", "docker-archive:d.tar", "oci-archive:o.tar:x")
    skopeo("copy", "docker-archive:d.tar", "oci:theirs:x")
    tool.run("image", "unpack", source, "one")
    tool.run("image", "unpack", "oci-archive:o.tar:x", "two")
    tool.run("image", "unpack", "oci:theirs:x", "three")
    for other in ("two", "three"):
        said = subprocess.run(
            ["rsync", "-naAXHi", "--delete", "one/", f"{other}/"], capture_output=True, text=True, check=True
        ) if shutil.which("rsync") else None  # fmt: skip
        assert said is None or said.stdout == ""
        ground.run("diff", "-r", "--no-dereference", "one", other)
