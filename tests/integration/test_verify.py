"""`appbox verify` on installed services: what changed in a rootfs is found, whatever changed it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from appbox.layers import Recorders, unpack_image
from appbox.oci import mtree
from appbox.oci.audit import Audit
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.layer import IdMap
from appbox.oci.model import Platform
from appbox.oci.reference import parse_transport
from appbox.oci.source import open_source
from appbox.store import files
from tests.ground import layers, manifest
from tests.ground.sandbox import Sandbox, members

pytestmark = pytest.mark.root

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw=ep"""


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def installed(box: Sandbox, *, recorded: bool = True) -> Path:
    """Install a service, and return its bundle; without `recorded`, as if bundle.toml did not know of a manifest."""
    box.apply()
    bundle = box.containers / "web-1.0"
    if not recorded:
        path = (bundle / "bundle.toml").resolve()
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith("rootfs_mtree = ")))
    return bundle


def test_an_untouched_service(box: Sandbox) -> None:
    bundle = installed(box)
    assert (bundle / "rootfs.mtree").read_bytes().splitlines(True) == manifest.lines(bundle / "rootfs")
    count = len(manifest.nodes(bundle / "rootfs"))
    assert box.appbox("verify").out == f"web 1.0: {count} entries, all as they were unpacked\n"
    assert box.appbox("verify", "web").out == box.appbox("verify").out
    assert box.appbox("-q", "verify").out == ""
    assert box.appbox("--json", "verify").data() == {
        "ok": True,
        "services": [{"name": "web", "version": "1.0", "ok": True, "entries": count, "problem": "", "differences": []}],
    }


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o777])
def test_what_apply_makes_is_as_it_says_whatever_the_umask(box: Sandbox, mask: int) -> None:
    root = layers.directory(b"./", mode=0o2751, gid=33)
    box.image("1.0", root, *members(), layers.symlink(b"dev", b"/etc"), layers.file(b"proc"))
    before = os.umask(mask)
    try:
        bundle = installed(box)
    finally:
        os.umask(before)
    assert (bundle / "rootfs.mtree").read_bytes().splitlines(True) == manifest.lines(bundle / "rootfs")
    assert stat.S_IMODE((bundle / "rootfs/sys").stat().st_mode) == 0o755
    assert "all as they were unpacked" in box.appbox("verify").out


def test_nothing_is_installed(box: Sandbox) -> None:
    assert box.appbox("verify").out == "nothing is installed\n"
    assert "none: is not installed; appbox status lists what is" in box.appbox("verify", "none", code=1).err


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: (p / "bin/app").write_bytes(b"evil"), "/bin/app: content is 4 bytes, was "),
    (lambda p: (p / "bin/new").write_bytes(b""), "/bin/new: added (file, 0644, 0:0)"),
    (lambda p: (p / "bin/app").unlink(), "/bin/app: removed (file)"),
    (lambda p: (p / "bin/app").chmod(0o4755), "/bin/app: mode is 4755, was 0755"),
    (lambda p: os.chown(p / "bin/app", 12, 34), "/bin/app: owner is 12:34, was "),
    (lambda p: os.setxattr(p / "bin/app", "security.capability", CAPABILITY), "extended attribute is security.capab"),
    (lambda p: os.setxattr(p / "bin/app", "trusted.overlay.opaque", b"y"), "extended attribute is trusted.overlay.o"),
    (lambda p: os.link(p / "bin/app", p.parent / "copy"), "/bin/app: has 2 names, had 1"),
    (lambda p: os.utime(p / "bin/app", (5, 5)), "/bin/app: time is 1970-01-01T00:00:05Z, was "),
    (lambda p: os.mknod(p / "bin/disk", 0o60666, os.makedev(8, 0)), "/bin/disk: added (block device, 0644, 0:0)"),
    (lambda p: (p / "bin/a\033[2J\nb").write_bytes(b""), "/bin/a\\x1b[2J\\nb: added"),
]


@pytest.mark.parametrize(("change", "line"), CHANGES)
def test_a_change_is_said_in_one_line(box: Sandbox, change: Callable[[Path], object], line: str) -> None:
    bundle = installed(box)
    change(bundle / "rootfs")
    result = box.appbox("verify", "web", code=1)
    assert f"web 1.0: {line}" in result.out.replace("/bin/app: extended", "extended")
    assert result.out.endswith("appbox remove and appbox apply unpack it anew; its data stays\n")
    assert result.err == ""
    data = box.appbox("--json", "verify", code=1).data()
    assert data["ok"] is False
    assert {"path", "change", "was", "now"} == set(data["services"][0]["differences"][0])


def test_what_the_last_line_says_helps(box: Sandbox) -> None:
    bundle = installed(box)
    before = [node._replace(mtime=0) for node in manifest.nodes(bundle / "rootfs")]
    (bundle / "data/data/kept").write_text("kept")
    (bundle / "rootfs/bin/app").write_bytes(b"evil")
    box.appbox("remove", "web")
    box.apply()
    assert [node._replace(mtime=0) for node in manifest.nodes(bundle / "rootfs")] == before
    assert (bundle / "data/data/kept").read_text() == "kept"


def test_a_mount_is_told_and_not_entered(box: Sandbox) -> None:
    bundle = installed(box)
    os.mkdir(box.place / "other")
    (box.place / "other/secret").write_text("x")
    for kind in ("--bind", "-ttmpfs"):
        source = box.place / "other" if kind == "--bind" else "none"
        subprocess.run(["mount", kind, source, bundle / "rootfs/bin"], check=True)
        try:
            result = box.appbox("verify", "web", code=1)
        finally:
            subprocess.run(["umount", bundle / "rootfs/bin"], check=True)
        assert "web 1.0: /bin: something is mounted here" in result.out
        assert "secret" not in result.out


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.unlink(), "rootfs.mtree is missing: so nothing can be compared"),
        (lambda p: p.write_bytes(b""), "rootfs.mtree was changed: bundle.toml has the digest sha256:"),
        (lambda p: (p.unlink(), p.mkdir()), "rootfs.mtree is damaged: it is not a regular file"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "rootfs.mtree is damaged: it is not a regular file"),
        (lambda p: (p.unlink(), p.symlink_to("/etc/passwd")), "rootfs.mtree cannot be read: Too many levels"),
    ],
)
def test_a_manifest_that_is_not_the_one(box: Sandbox, damage: Callable[[Path], object], words: str) -> None:
    bundle = installed(box)
    damage(bundle / "rootfs.mtree")
    assert f"web 1.0: {words}" in box.appbox("verify", code=1).out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is no mtree manifest"),
        (b"#mtree\n", "is damaged: it lists nothing"),
        (b"#mtree\n./a type=dir\n", "is damaged: line 2: it is malformed"),
        (b"#mtree\n" + b"x" * (mtree.LINE + 100), "is damaged: line 2: it is malformed"),
    ],
)
def test_a_damaged_manifest_that_no_digest_is_known_of(box: Sandbox, text: bytes, words: str) -> None:
    bundle = installed(box, recorded=False)
    (bundle / "rootfs.mtree").write_bytes(text)
    assert f"web 1.0: rootfs.mtree {words}" in box.appbox("verify", code=1).out


def test_a_bundle_of_an_older_appbox(box: Sandbox) -> None:
    bundle = installed(box, recorded=False)
    (bundle / "rootfs.mtree").unlink()
    words = "web 1.0: there is no rootfs.mtree to compare with: it was unpacked by an appbox that wrote none\n"
    said = box.appbox("verify", code=1).out
    assert said.startswith(words)
    assert said.endswith(": appbox remove and appbox apply unpack it anew; its data stays\n")
    assert box.appbox("-q", "verify", code=1).out == words
    assert box.appbox("apply", box.services).out == "nothing to do\n"
    box.appbox("remove", "web")
    box.appbox("apply", box.services)
    assert box.appbox("verify").out.endswith("all as they were unpacked\n")


def test_after_everything_that_an_apply_changes(box: Sandbox) -> None:
    def sound(version: str) -> bytes:
        bundle = box.current()
        lines = (bundle / "rootfs.mtree").read_bytes()
        assert lines.splitlines(True) == manifest.lines(bundle / "rootfs")
        assert re.fullmatch(rf"web {version}: \d+ entries, all as they were unpacked\n", box.appbox("verify").out)
        return lines

    box.apply()
    first = sound("1.0")
    box.apply(config={"/etc/web.conf": {"text": "x"}})
    assert sound("1.0") == first  # another generation, the same rootfs
    box.image("1.0", *members(b"moved"), layers.file(b"new", b"x"))
    box.apply()
    moved = sound("1.0")
    assert b"./new " in moved
    assert b"./new " not in first
    (replaced,) = (box.containers / ".replaced").iterdir()
    assert (replaced / "rootfs.mtree").read_bytes() == first
    box.image("2.0", *members(b"2"))
    box.apply(version="2.0")
    sound("2.0")
    assert (box.containers / "web-1.0/rootfs.mtree").read_bytes() == moved
    box.apply(version="1.0")
    assert sound("1.0") == moved
    box.apply(name="other", version="2.0")
    assert len(box.appbox("verify").out.splitlines()) == 2


@pytest.mark.parametrize("on_change", ["restart", "none"])
def test_a_bundle_of_an_older_appbox_takes_new_configuration(box: Sandbox, on_change: str) -> None:
    bundle = installed(box, recorded=False)
    (bundle / "rootfs.mtree").unlink()
    box.apply(config={"/etc/web.conf": {"text": "x", "on_change": on_change}})
    assert (bundle / "config/etc/web.conf").read_text() == "x"
    assert "rootfs_mtree" not in (bundle / "bundle.toml").read_text()
    assert "an appbox that wrote none" in box.appbox("verify", code=1).out
    box.settled()


def test_a_service_without_its_rootfs(box: Sandbox) -> None:
    bundle = installed(box)
    shutil.rmtree(bundle / "rootfs")
    assert "web 1.0: rootfs cannot be read: No such file or directory" in box.appbox("verify", code=1).out
    shutil.rmtree(bundle)
    assert "web 1.0: cannot be verified: is missing" in box.appbox("verify", code=1).out


# The same manifest, read by NetBSD's mtree(8)


def netbsd(root: Path, lines: list[bytes], place: Path) -> tuple[int, str]:
    """Let mtree(8) of NetBSD, which Debian packages, compare a tree with a manifest."""
    if shutil.which("mtree") is None:
        pytest.skip("needs mtree; ./dev test installs it")
    path = place / "manifest"
    path.write_bytes(b"".join(lines))
    ended = subprocess.run(["mtree", "-p", root, "-f", path], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def filled(place: Path) -> Path:
    """Make a tree with a bit of everything."""
    root = place / "tree"
    (root / "usr/bin").mkdir(parents=True)
    for name in ("[", "a b", "#x", "back\\slash", "star*", "tab\t", "équipe", "nl\n", "=", "~"):
        (root / "usr/bin" / name).write_text(name)
    with open(os.fsencode(root) + b"/usr/\xff\xfe", "wb") as file:
        file.write(b"raw")
    (root / "usr/bin/twin").hardlink_to(root / "usr/bin/[")
    (root / "link").symlink_to("usr/bin/a b\\*é\n")
    os.mkfifo(root / "pipe", 0o600)
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "disk", 0o60660, os.makedev(259, 70000))
    os.chown(root / "usr/bin/#x", 1879048192, 1879048199)
    (root / "usr/bin/#x").chmod(0o6755)
    (root / "usr/bin").chmod(0o1777)
    (root / "usr/bin/~").chmod(0)
    os.utime(root / "usr/bin/~", ns=(0, -1_500_000_000))
    os.utime(root / "usr", ns=(0, 5))
    return root


def test_netbsd_reads_it_the_same_way(tmp_path: Path) -> None:
    root = filled(tmp_path)
    assert netbsd(root, manifest.lines(root), tmp_path) == (0, "")


@pytest.mark.images
@pytest.mark.parametrize("name", ["busybox", "valkey"])
def test_real_images_are_recorded_as_they_are_on_disk(tmp_path: Path, image: Callable[[str], Path], name: str) -> None:
    """The whole of a Debian image, shifted to a range of ids of its own, byte for byte; and NetBSD's mtree agrees."""
    reference = parse_transport(f"oci:{image(name)}")
    root = tmp_path / "rootfs"
    root.mkdir()
    with files.directory(tmp_path) as place, files.directory(root) as fd, Recorders(place) as recorders:
        with open_source(reference, Cache(str(tmp_path / "cache"))) as source:
            found = source.resolve(reference.tag, reference.digest, Platform.host(os.uname().machine))
            unpack_image(source, found, fd, IdMap(1879048192, 65536), durable=False, recorder=recorders.new)
        with open(tmp_path / "recorded", "wb") as file:
            written = recorders.last.write(file.fileno())
    recorded = (tmp_path / "recorded").read_bytes()
    assert recorded.splitlines(keepends=True) == manifest.lines(root)
    assert (written.digest, written.size) == (Digest.of(recorded), len(recorded))
    without = [re.sub(rb" xattr\.[^ \n]+", b"", line) for line in recorded.splitlines(keepends=True)]
    assert netbsd(root, without, tmp_path) == (0, "")


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (p / "usr/bin/[").write_text("]"),
        lambda p: (p / "usr/bin/#x").chmod(0o755),
        lambda p: os.chown(p / "usr/bin/a b", 1, 0),
        lambda p: (p / "usr/bin/star*").unlink(),
        lambda p: (p / "usr/bin/starred").write_text(""),
        lambda p: (p / "usr/bin/twin").unlink(),
        lambda p: ((p / "link").unlink(), (p / "link").symlink_to("usr/bin/a b\\*e\n")),
        lambda p: ((p / "null").unlink(), os.mknod(p / "null", 0o20666, os.makedev(1, 5))),
        lambda p: os.utime(p / "usr/bin/~", ns=(0, -1_500_000_001)),
        lambda p: ((p / "pipe").unlink(), (p / "pipe").write_text("")),
    ],
)
def test_netbsd_and_we_find_the_same(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = filled(tmp_path)
    lines = manifest.lines(root)
    change(root)
    fd = os.open(root, os.O_RDONLY)
    assert Audit(fd, lines).differences()
    os.close(fd)
    code, said = netbsd(root, lines, tmp_path)
    assert code != 0, said
