"""Looking at images without unpacking them: inspect, diff and tags, over a layout, an archive and a registry."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.ground.faulty import Faulty, serve
from tests.ground.layers import device, directory, file, hardlink, pax, symlink
from tests.ground.sandbox import Sandbox

pytestmark = pytest.mark.root

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def raw(box: Sandbox, *words: object) -> bytes:
    """Return the bytes that a process of its own writes."""
    return subprocess.run(box.command(*words), check=True, capture_output=True).stdout


def test_the_documents_are_printed_byte_for_byte(box: Sandbox) -> None:
    name = f"oci:{box.images}:1.0"
    data = box.appbox("--json", "image", "inspect", name).data()
    manifest = raw(box, "image", "inspect", "--raw", name)
    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == data["digest"]
    config = raw(box, "image", "inspect", "--config", name)
    assert f"sha256:{hashlib.sha256(config).hexdigest()}" == data["config"]["digest"]
    assert raw(box, "--json", "image", "inspect", "--raw", name) == manifest
    assert (
        "--raw and --config cannot both be printed"
        in box.appbox("image", "inspect", "--raw", "--config", name, code=2).err
    )


def test_everything_of_an_image_is_shown(box: Sandbox) -> None:
    check = {"Test": ["CMD", "ping"], "Interval": 5_000_000_000}
    box.image(
        "full", file(b"f"), Healthcheck=check, StopSignal="SIGINT", Entrypoint=["/e", "a b"], Labels={"x": "\033[2J"}
    )
    name = f"oci:{box.images}:full"
    text = box.appbox("image", "inspect", name).out
    for line in (
        "healthcheck: CMD ping, every 5 s",
        "stop_signal: SIGINT",
        'entrypoint: ["/e", "a b"]',
        "label: x=\\x1b[2J",
    ):
        assert f"{line}\n" in text
    assert re.search(r"^size: \d+ bytes in 1 layer, as stored$", text, re.MULTILINE)
    data = box.appbox("--json", "image", "inspect", name).data()
    assert data["healthcheck"] == check
    assert data["media_type"] == json.loads(raw(box, "image", "inspect", "--raw", name))["mediaType"]


OLD = (
    directory(b"etc"),
    file(b"etc/passwd", b"root:x:0:0::/:\nold:x:5:5::/:\nmoved:x:6:6::/:\n"),
    file(b"etc/group", b"root:x:0:\n"),
    file(b"same", b"1", mtime=1),
    file(b"changed", b"1"),
    file(b"gone", b"1"),
    file(b"su", mode=0o4755),
    hardlink(b"twin", b"changed"),
    directory(b"tmp", mode=0o1777),
)
NEW = (
    directory(b"etc"),
    file(b"etc/passwd", b"root:x:0:0::/:\nnew\033:x:7:8::/:\nmoved:x:6:9::/:\n"),
    file(b"etc/group", b"root:x:0:\ng:x:9:\n"),
    file(b"same", b"1", mtime=2),
    file(b"changed", b"2"),
    file(b"twin", b"1"),
    pax({b"SCHILY.xattr.security.capability": CAPABILITY}),
    file(b"ping"),
    file(b"sudo", mode=0o4711, uid=3),
    file(b"open", mode=0o666),
    device(b"disk", 8, 1, flag=b"4"),
    symlink(b"link", b"/nowhere"),
    directory(b"tmp", mode=0o1777),
)


def test_what_an_operator_must_know(box: Sandbox) -> None:
    box.image("old", *OLD, User="old", Env=["A=1", "B=2"], Volumes={"/v": {}}, Labels={"l": "1"})
    box.image("new", *NEW, User="new", Env=["A=1", "B=3", "C="], ExposedPorts={"80/tcp": {}}, Entrypoint=["/e"])
    names = (f"oci:{box.images}:old", f"oci:{box.images}:new")
    said = box.appbox("image", "diff", *names).out.splitlines()
    for line in (
        "user: new, was old",
        'entrypoint: ["/e"], was empty',
        "env B: 3, was 2",
        "new env C: empty",
        "gone volume /v",
        "new port 80/tcp",
        "gone label l: 1",
        "gone setuid /su: 4755, 0:0",
        "new setuid /sudo: 4711, 3:0",
        "new capabilities /ping: cap_net_raw=ep",
        "new world-writable /open: 0666, 0:0",
        "new device /disk: block device 8:1, 0644, 0:0",
        "gone account old: 5:5",
        "new account new\\x1b: 7:8",
        "account moved: 6:9, was 6:6",
        "new group g: 9",
        "files: 5 added, 2 removed, 3 changed",
    ):
        assert line in said, (line, said)
    assert not [line for line in said[2:] if "/tmp" in line or "/link" in line]
    data = box.appbox("--json", "image", "diff", *names).data()
    assert (data["same"], data["files"]) == (False, {"added": 5, "removed": 2, "changed": 3})
    assert data["layers"] == {"was": 1, "now": 1, "shared": 0}
    paths = box.appbox("--json", "-v", "image", "diff", *names).data()["files"]
    assert paths["removed"] == ["/gone", "/su"]
    assert paths["changed"] == ["/changed", "/etc/group", "/etc/passwd"]
    box.appbox("image", "diff", "--exit-code", *names, code=4)
    same = box.appbox("image", "diff", "--exit-code", names[0], names[0]).out
    assert "the same image\n" in same
    assert "1 shared, 0 bytes to download\n" in same
    box.appbox("image", "diff", names[0], f"oci:{box.images}:none", code=5)
    box.appbox("image", "diff", *names, "--platform", "linux/arm64", code=5)
    assert not [name for name in os.listdir(box.root) if name in {"etc", "sudo"}]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("oci:/x", "only a registry has tags; name a repository: docker://HOST/REPOSITORY"),
        ("docker://h.example/a:1", "this names one image, not a repository; leave the tag or digest away"),
        (f"docker://h.example/a@sha256:{'0' * 64}", "this names one image, not a repository"),
    ],
)
def test_what_has_no_tags(box: Sandbox, name: str, words: str) -> None:
    assert words in box.appbox("image", "tags", name, code=2).err


def test_tags_are_listed_page_by_page_in_the_order_of_versions(box: Sandbox) -> None:
    tags = ["latest", "8.1-rc1", "8.1", "8.1-alpine", "9.0", "10.0"]
    for tag in tags:
        box.image(tag, file(b"f"))
    with serve(Faulty(box.content, page=2)) as host:
        words = ("image", "tags", f"docker://{host}/any/repository")
        assert box.appbox(*words).out.split() == ["latest", "1.0", *tags[1:]]
        assert box.appbox("--json", *words).data()["tags"] == ["latest", "1.0", *tags[1:]]


def test_a_registry_that_is_not_there(box: Sandbox) -> None:
    box.appbox("image", "tags", "docker://127.0.0.1:1/x", code=5)
