"""appbox lock, outdated and --locked: what is asked of registries, what is written, and what a lock decides."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appbox import sources
from appbox.admission import Policies
from appbox.errors import Unavailable
from appbox.oci.cache import Cache
from appbox.oci.platform import Platform
from appbox.resolve import Images
from tests.ground import cosign, faulty, registry
from tests.ground.faulty import Faulty
from tests.ground.sandbox import NOBODY, Sandbox, members, run
from tests.ground.tiny import layer

pytestmark = pytest.mark.root

TAGS = ("9", "9.0", "9.0.0", "9.0.1", "9.1.0", "10.0.0-rc1", "10.0.0", "9.0.1-alpine", "latest")


def made_for(kind: str) -> bytes:
    """Return a layer of its own for a kind of processor."""
    return layer({"etc/kind": kind.encode()})


class Shop:
    """A sandbox whose images lie in a registry that counts what it is asked for."""

    def __init__(self, box: Sandbox, host: str = "") -> None:
        self.box, self.registry = box, Faulty(box.content)
        self.registry.host = host
        for tag in TAGS:
            self.push(tag)

    @property
    def name(self) -> str:
        return f"{self.registry.host}/team/web"

    @property
    def path(self) -> Path:
        return self.box.services / "appbox.lock"

    def push(self, tag: str, text: str = "") -> str:
        """Put another image under a tag and return its digest."""
        self.box.image(tag, *members((text or tag).encode()))
        return self.box.content.tags[tag]

    def manifest(self, version: str = "~9.0", name: str = "web", **tables: Any) -> Path:
        return self.box.manifest(name, version, **{"image": self.name, **tables})

    def lock(self, *words: object, code: int = 0) -> str:
        result = self.box.appbox("lock", *words, self.box.services, code=code)
        return result.err if code else result.out

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return what is locked by service; of several the last."""
        return {one["name"]: one for one in tomllib.loads(self.path.read_text())["service"]}

    def asked(self, *words: object, code: int = 0) -> list[str]:
        """Run appbox and return what the registry was asked for."""
        self.registry.requests.clear()
        self.box.appbox(*words, code=code)
        return [f"{r.method} {r.path.rpartition('/')[2].partition('?')[0]}" for r in self.registry.requests]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(Sandbox(tmp_path))
    with faulty.serve(shop.registry):
        yield shop


def test_a_constraint_becomes_a_version_and_a_digest(shop: Shop) -> None:
    path = shop.manifest()
    assert shop.lock() == f"web: ~9.0 → 9.0.1 ({shop.box.content.tags['9.0.1'][:19]}…)\n{shop.path}: written\n"
    entry = shop.entries()["web"]
    assert (entry["version"], entry["tag"], entry["digest"]) == ("~9.0", "9.0.1", shop.box.content.tags["9.0.1"])
    assert entry["platforms"] == ["linux/amd64"]
    shop.box.appbox("apply", "--locked", path)
    assert shop.box.current().name == "web-9.0.1"
    bundle = tomllib.loads((shop.box.current() / "bundle.toml").read_text())
    assert (bundle["version"], bundle["manifest"]["version"]) == ("9.0.1", "9.0.1")
    shop.box.settled()


def test_without_a_lock_a_constraint_is_refused_and_nobody_is_asked(shop: Shop) -> None:
    path = shop.manifest()
    for words in (
        ["plan", path],
        ["apply", path],
        ["plan", "--locked", path],
        ["render", path, "-o", path.parent / "o"],
    ):
        assert shop.asked(*words, code=3) == []
    said = shop.box.appbox("plan", path, code=3).err
    where = f"appbox: {path}:3: version: {shop.name} ~9.0 is not locked: {shop.path} does not have it; "
    assert said == f"{where}run appbox lock {path}\n"
    assert "ok" in shop.box.appbox("check", path).out


def test_a_locked_plan_asks_for_no_tag_and_a_locked_apply_for_layers_alone(shop: Shop) -> None:
    path = shop.manifest()
    shop.lock()
    assert shop.asked("plan", "--locked", path) == []
    asked = shop.asked("apply", "--locked", path)
    assert [one.partition(":")[0] for one in asked if one != "GET "] == ["GET sha256"]
    assert shop.asked("plan", "--locked", path) == shop.asked("apply", "--locked", path) == []


def test_locked_works_from_another_cache_by_digest(shop: Shop) -> None:
    path = shop.manifest()
    shop.lock()
    shutil.rmtree(shop.box.root / "var/cache")
    shop.push("9.0.1", "moved")
    asked = shop.asked("apply", "--locked", path)
    assert not [one for one in asked if "9.0.1" in one or "list" in one]
    assert f"GET {shop.entries()['web']['digest']}" in asked
    assert (shop.box.current() / "rootfs/seed/version").read_text() == "9.0.1"


def test_locking_again_changes_not_a_letter(shop: Shop) -> None:
    shop.manifest()
    shop.manifest("9.1.0", "db")
    shop.lock()
    before = shop.path.stat(), shop.path.read_text()
    shop.push("9.0.2")
    assert shop.lock() == "nothing to do\n"
    assert (shop.path.stat(), shop.path.read_text()) == before
    shop.manifest("9", "cache")
    shop.lock()
    added = shop.path.read_text()
    head, table, rest = added.partition('\n[[service]]\nname = "cache"\n')
    assert table
    assert before[1] == head + "\n[[service]]" + rest.partition("\n[[service]]")[2], "only the new one came"


def test_update_moves_only_what_is_named(shop: Shop) -> None:
    shop.manifest()
    shop.manifest(name="db")
    shop.lock()
    shop.push("9.0.2")
    before = shop.entries()
    assert f"web: 9.0.1 → 9.0.2 ({shop.box.content.tags['9.0.2'][:19]}…)\n" in shop.lock("--update", "web")
    assert shop.entries()["db"] == before["db"]
    assert shop.entries()["web"]["tag"] == "9.0.2"
    assert "db: 9.0.1 → 9.0.2" in shop.lock("--update-all")
    assert "--update nobody: no manifest describes it; the manifests describe db, web" in shop.lock(
        "--update", "nobody", code=2
    )
    shop.lock("--update", "web", "--update-all", code=2)


def test_a_moved_tag_is_said_and_taken_when_asked(shop: Shop) -> None:
    path = shop.manifest("9.0.0")
    shop.lock()
    old = shop.entries()["web"]["digest"]
    shop.box.appbox("apply", path)
    new = shop.push("9.0.0", "moved")
    arrow = f"{old[:19]}… → {new[:19]}…"
    planned = shop.box.appbox("plan", path)
    assert planned.out == "nothing to do\n"
    assert f"web: note: {shop.name}:9.0.0 has moved: {arrow}; what is locked is used" in planned.err
    assert arrow in shop.box.appbox("--json", "plan", path).data()["locks"]["web"][0]
    assert shop.asked("plan", "--locked", path) == []
    assert f"web: 9.0.0: {arrow} in the registry; kept" in shop.lock()
    assert shop.entries()["web"]["digest"] == old
    assert arrow in shop.box.appbox("outdated", path).out
    assert shop.lock("--update", "web").startswith(f"web: 9.0.0: {arrow}\n")
    assert f"another digest now ({new[:19]}…)" in shop.box.appbox("plan", "--locked", path).out
    shop.box.appbox("apply", "--locked", path)
    assert (shop.box.current() / "rootfs/seed/version").read_text() == "moved"
    shop.box.settled()


def test_a_lock_for_something_else_is_not_used(shop: Shop) -> None:
    path = shop.manifest()
    shop.lock()
    shop.manifest("9.1.0")
    planned = shop.box.appbox("plan", path)
    assert "publish /opt/containers/web-9.1.0" in planned.out
    assert f"web: note: {shop.path} is for {shop.name} ~9.0 (9.0.1) and is not used" in planned.err
    assert f"{shop.name} 9.1.0 is not locked" in shop.box.appbox("plan", "--locked", path, code=3).err
    shop.manifest(">=9,<9.1")
    assert "web-9.0.1" in shop.box.appbox("plan", "--locked", path).out, "a looser constraint is answered, too"
    shop.manifest(image=f"{shop.registry.host}/team/other")
    assert "is not locked" in shop.box.appbox("plan", path, code=3).err


def test_the_manifest_s_own_digest_decides(shop: Shop) -> None:
    path = shop.manifest("9.0.0", digest=shop.box.content.tags["9.1.0"])
    assert "web-9.0.0" in shop.box.appbox("apply", "--locked", path).out
    assert (shop.box.current() / "rootfs/seed/version").read_text() == "9.1.0"
    shop.lock()
    assert shop.entries()["web"]["digest"] == shop.box.content.tags["9.1.0"]
    shop.manifest("9.0.0", digest=shop.box.content.tags["9.0.1"])
    assert "web: 9.0.0: " in shop.lock()


def test_no_version_answers(shop: Shop) -> None:
    path = shop.manifest("~11")
    said = shop.lock(code=5)
    assert said.startswith(f"appbox: {path}:3: version: {shop.name} has no version ~11: it has 10.0.0, 10.0.0-rc1, 9.1")
    assert not shop.path.exists()


def test_nothing_is_written_when_one_cannot_be_had(shop: Shop) -> None:
    shop.manifest()
    shop.lock()
    before = shop.path.read_bytes()
    shop.manifest("9.1.0")
    shop.manifest("1.2", "zz")
    shop.lock(code=5)
    assert shop.path.read_bytes() == before


def test_a_registry_that_is_down_does_not_hold_up_what_is_locked(tmp_path: Path) -> None:
    shop = Shop(Sandbox(tmp_path))
    with faulty.serve(shop.registry):
        path = shop.manifest()
        shop.lock()
        shop.box.appbox("apply", path)
        shutil.rmtree(shop.box.root / "opt")
    shop.box.appbox("apply", "--locked", path)
    assert shop.box.appbox("plan", "--locked", path).out == "nothing to do\n"
    result = shop.box.appbox("plan", path)
    assert (result.out, "did not answer" in result.err) == ("nothing to do\n", True)
    result = shop.box.appbox("lock", path)
    assert (result.out, "did not answer" in result.err) == ("nothing to do\n", True)
    shop.lock("--update", "web", code=5)


def test_one_lock_serves_hosts_of_several_architectures(shop: Shop) -> None:
    content = shop.box.content
    parts = [content.image(layers=(made_for(kind),), architecture=kind) for kind in ("amd64", "arm64", "riscv64")]
    shop.box.content.index("9.0.5", *parts)
    path = shop.manifest()
    shop.lock()
    entry = shop.entries()["web"]
    assert (entry["tag"], entry["digest"]) == ("9.0.5", content.tags["9.0.5"])
    assert entry["platforms"] == ["linux/amd64", "linux/arm64", "linux/riscv64"]
    (loaded,) = sources.load([str(path)], strict=True)
    for number, kind in enumerate(("amd64", "arm64", "riscv64")):
        images = Images(Cache(str(shop.box.place / kind)), Platform("linux", kind), Policies())
        assert str(images.look_up(loaded, None).image.digest) == parts[number]["digest"]
    with pytest.raises(Unavailable, match=r"not made for linux/s390x: it is made for linux/amd64, linux/arm64"):
        Images(Cache(str(shop.box.place / "c")), Platform("linux", "s390x"), Policies()).look_up(loaded, None)


def test_an_image_for_other_hosts_can_be_locked(shop: Shop) -> None:
    shop.box.content.image("9.0.6", layers=(made_for("x"),), architecture="riscv64")
    shop.manifest()
    shop.lock()
    assert shop.entries()["web"]["platforms"] == ["linux/riscv64"]


def test_every_host_s_version_is_locked(shop: Shop) -> None:
    path = shop.manifest()
    hosts = shop.box.services / "hosts"
    hosts.mkdir()
    (hosts / "green.toml").write_text("[vars]\nx = 1\n")
    shop.lock()
    (hosts / "blue.toml").write_text('[services.web]\nversion = "~9.1"\n')
    (shop.box.root / "etc").mkdir()
    (shop.box.root / "etc/hostname").write_text("blue\n")
    said = shop.box.appbox("plan", path, code=3).err
    assert said.startswith(f"appbox: {hosts}/blue.toml:2: services.web.version: {shop.name} ~9.1 is not locked: ")
    assert shop.lock().startswith("web: ~9.1 → 9.1.0 ("), "what another host has stays"
    locked = tomllib.loads(shop.path.read_text())["service"]
    assert [(one["version"], one["tag"]) for one in locked] == [("~9.0", "9.0.1"), ("~9.1", "9.1.0")]
    for host, version in (("blue", "9.1.0"), ("green", "9.0.1")):
        (shop.box.root / "etc/hostname").write_text(f"{host}\n")
        assert f"web-{version}" in shop.box.appbox("plan", "--locked", path).out
    rows = shop.box.appbox("--json", "outdated", path).data()["services"]
    assert [(row["version"], row["hosts"], row["current"]) for row in rows] == [
        ("~9.0", [], "9.0.1"),
        ("~9.1", ["blue"], "9.1.0"),
    ]
    (hosts / "blue.toml").unlink()
    assert "web: ~9.1 is taken out: no manifest here asks for it\n" in shop.lock()
    assert len(tomllib.loads(shop.path.read_text())["service"]) == 1


def test_services_come_and_go(shop: Shop) -> None:
    web, db = shop.manifest(), shop.manifest(name="db")
    shop.box.appbox("lock", web)
    assert list(shop.entries()) == ["web"]
    shop.box.appbox("lock", db)
    assert list(shop.entries()) == ["db", "web"]
    web.unlink()
    assert "web: ~9.0 is taken out" in shop.box.appbox("lock", shop.box.services).out
    assert list(shop.entries()) == ["db"]


def test_policies_are_in_force(shop: Shop) -> None:
    key, other = cosign.key(), cosign.key()
    key.write(shop.box.services / "keys/ours.pub")
    path = shop.manifest(policy={"signed_by": ["keys/ours.pub"]})
    assert "the image is not signed" in shop.lock(code=6)
    cosign.sign(shop.box.content, shop.box.content.tags["9.0.1"], other, reference=shop.name)
    assert "by another key" in shop.lock(code=6)
    assert not shop.path.exists()
    cosign.sign(shop.box.content, shop.box.content.tags["9.0.1"], key, reference=shop.name)
    shop.lock()
    shop.manifest(policy={"registries": ["docker.io/library"]})
    assert shop.asked("lock", path, code=6) == shop.asked("outdated", path, code=6) == []
    shop.manifest(policy={"require_digest": True})
    assert "web-9.0.1" in shop.box.appbox("plan", path).out, "what is locked is pinned"
    shop.manifest("9.1.0", policy={"require_digest": True})
    assert "not pinned to a digest" in shop.box.appbox("plan", path, code=6).err


def test_outdated_tells_within_and_beyond(shop: Shop) -> None:
    path = shop.manifest("~9.0")
    shop.manifest("9.1.0", "db")
    shop.manifest("10.0.0", "new")
    shop.manifest("latest", "rolling")
    text = shop.box.appbox("outdated", shop.box.services).out.splitlines()
    assert [line.split() for line in text] == [
        ["NAME", "VERSION", "CURRENT", "NEWEST", "BEYOND"],
        ["db", "9.1.0", "9.1.0", "-", "10.0.0"],
        ["web", "~9.0", "-", "9.0.1", "10.0.0"],
    ]
    shop.lock()
    shop.push("9.0.2")
    shop.box.appbox("outdated", "--exit-code", path, code=4)
    (row,) = shop.box.appbox("--json", "outdated", path).data()["services"]
    found = [row[key] for key in ("current", "newest", "latest", "moved", "outdated")]
    assert found == ["9.0.1", "9.0.2", "10.0.0", "", True]
    new = shop.box.services / "new.toml"
    assert shop.box.appbox("outdated", "--exit-code", new).out == "nothing newer\n"
    assert "new   10.0.0   10.0.0   -       -" in shop.box.appbox("-v", "outdated", new).out


def test_outdated_goes_on_behind_what_cannot_be_had(shop: Shop) -> None:
    shop.manifest("9.0.0")
    shop.manifest("9.0.0", "aa", image=f"{shop.registry.host}/no/such")
    result = shop.box.appbox("outdated", shop.box.services, code=5)
    assert "web   9.0.0    9.0.0    -       10.0.0" in result.out
    assert "appbox: aa: " in result.err
    rows = shop.box.appbox("--json", "outdated", shop.box.services, code=5).data()["services"]
    assert [bool(row["problem"]) for row in rows] == [True, False]


def test_json_tells_what_changed(shop: Shop) -> None:
    path = shop.manifest()
    (found,) = shop.box.appbox("--json", "lock", path).data()["locks"]
    assert (found["file"], found["changed"], [one["change"] for one in found["services"]]) == (
        str(shop.path),
        True,
        ["new"],
    )
    shop.push("9.0.2")
    (found,) = shop.box.appbox("--json", "lock", "--update", "web", path).data()["locks"]
    (one,) = found["services"]
    assert (one["change"], one["before"]["tag"], one["tag"], one["version"]) == ("changed", "9.0.1", "9.0.2", "~9.0")


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_layouts_and_archives_have_versions_too(shop: Shop, kind: str) -> None:
    image = f"oci:{shop.box.images}"
    if kind == "oci-archive":
        run(["tar", "-C", str(shop.box.images), "-cf", str(shop.box.place / "a.tar"), "."])
        image = f"oci-archive:{shop.box.place}/a.tar"
    if kind == "docker-archive":
        image = f"docker-archive:{shop.box.place}/d.tar"
        shop.box.appbox("image", "copy", f"oci:{shop.box.images}:9.0.1", f"{image}:team/web:9.0.1")
    path = shop.manifest(image=image)
    shop.box.appbox("plan", path, code=3)
    shop.lock()
    assert shop.entries()["web"]["tag"] == "9.0.1"
    shop.box.appbox("apply", "--locked", path)
    assert shop.box.current().name == "web-9.0.1"
    shop.box.settled()
    if kind == "oci":
        shop.push("9.0.1", "other")
        assert "web: 9.0.1: sha256:" in shop.lock()
        said = shop.box.appbox("plan", path, code=6).err
        assert "the image does not have the digest asked for" in said
        assert said.endswith("if that is meant to be so, appbox lock --update web\n")
        assert shop.lock("--update", "web").startswith("web: 9.0.1: sha256:")
        assert "another digest now" in shop.box.appbox("plan", path).out


def test_images_of_a_layout_that_differ_in_their_platform_are_one(shop: Shop) -> None:
    content = shop.box.content
    parts = [content.image(layers=(made_for(kind),), architecture=kind) for kind in ("amd64", "arm64")]
    shop.box.image("x", *members())  # writes the layout anew
    index = shop.box.images / "index.json"
    data = json.loads(index.read_text())
    data["manifests"] += [{**p, "annotations": {"org.opencontainers.image.ref.name": "9.0.7"}} for p in parts]
    index.write_text(json.dumps(data))
    path = shop.manifest(image=f"oci:{shop.box.images}")
    shop.lock()
    assert shop.entries()["web"]["platforms"] == ["linux/amd64", "linux/arm64"]
    (loaded,) = sources.load([str(path)])
    for part, kind in zip(parts, ("amd64", "arm64"), strict=True):
        images = Images(Cache(str(shop.box.place / kind)), Platform("linux", kind), Policies())
        assert str(images.look_up(loaded, None).image.digest) == part["digest"]


def test_local_images_need_no_lock(shop: Shop) -> None:
    path = shop.manifest("9.1.0", image=f"oci:{shop.box.images}")
    assert "web-9.1.0" in shop.box.appbox("plan", "--locked", path).out


def test_the_file_keeps_its_mode_and_owner(shop: Shop) -> None:
    shop.manifest()
    shop.lock()
    assert (shop.path.stat().st_mode & 0o777, shop.path.stat().st_uid) == (0o644, 0)
    shop.path.chmod(0o660)
    os.chown(shop.path, 1234, 4321)
    shop.push("9.0.2")
    left = shop.box.services / ".appbox.lock.appbox-tmp"
    left.write_text("left by a kill")
    shop.lock("--update-all")
    info = shop.path.stat()
    assert (info.st_mode & 0o777, info.st_uid, info.st_gid) == (0o660, 1234, 4321)
    assert not left.exists()


def test_anybody_may_lock_what_is_theirs(shop: Shop) -> None:
    path = shop.manifest()
    os.chown(shop.box.services, NOBODY, NOBODY)
    for folder in (shop.box.place, *shop.box.place.parents[:3]):
        folder.chmod(0o755)
    shop.box.appbox_as_nobody("lock", path)
    assert (shop.path.stat().st_uid, shop.path.stat().st_gid) == (NOBODY, NOBODY)
    shop.push("9.0.2")
    os.chown(shop.path, 1234, 4321)
    shop.box.appbox_as_nobody("lock", "--update", "web", path)
    assert (shop.path.stat().st_uid, shop.path.stat().st_gid) == (NOBODY, NOBODY)
    os.chown(shop.box.services, 0, 0)
    said = shop.box.appbox_as_nobody("lock", "--update", "web", path, code=0)
    assert said.out == "nothing to do\n", "what does not change is not written"
    shop.push("9.0.3")
    assert (
        "appbox.lock: cannot be written: Permission denied"
        in shop.box.appbox_as_nobody("lock", "--update", "web", path, code=1).err
    )


def test_a_symlink_is_neither_read_nor_written(shop: Shop) -> None:
    path = shop.manifest()
    target = shop.box.place / "elsewhere"
    target.write_text("format = 1\n")
    shop.path.symlink_to(target)
    for command in ("lock", "plan", "outdated"):
        assert "appbox.lock: cannot be read: it is a symlink" in shop.box.appbox(command, path, code=1).err
    assert target.read_text() == "format = 1\n"


def test_who_only_looks_at_what_is_locked_asks_nobody(shop: Shop) -> None:
    path = shop.manifest()
    shop.lock()
    shop.box.appbox("apply", "--locked", path)
    assert shop.asked("render", path, "-o", shop.box.place / "out") == []
    assert shop.asked("check", "--image", path) == []
    assert shop.asked("plan", path)[-1:] == ["HEAD 9.0.1"]
    # What appbox import has brought along is not looked after, until somebody locks it from its registry.
    shop.path.write_text(f"{shop.path.read_text()}offline = true\n")
    assert shop.asked("plan", path) == shop.asked("apply", path) == []
    assert shop.entries()["web"]["offline"] is True
    shop.lock("--update", "web")
    assert "offline" not in shop.entries()["web"]
    assert shop.asked("plan", path)[-1:] == ["HEAD 9.0.1"]


@pytest.mark.parametrize("command", ["check", "lock", "plan", "apply", "outdated"])
def test_a_damaged_lock_stops_everything(shop: Shop, command: str) -> None:
    path = shop.manifest()
    shop.lock()
    shop.path.write_text(shop.path.read_text().replace('tag = "9.0.1"', 'tag = "9.1.0"'))
    said = shop.box.appbox(command, path, code=3).err
    assert said.startswith(f'appbox: {shop.path}:8: service[0].tag: "9.1.0" does not answer the version "~9.0"; ')
    shop.path.write_bytes(b"format = 1\n\xff")
    assert f"{shop.path}:2: is not UTF-8" in shop.box.appbox(command, path, code=3).err


def test_two_at_once(shop: Shop) -> None:
    path = shop.manifest()
    fd = os.open(shop.box.services, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert "another appbox is writing it" in shop.box.appbox("lock", path, code=7).err
    finally:
        os.close(fd)
    shop.box.appbox("lock", path)


@pytest.mark.registry
def test_on_a_real_registry(tmp_path: Path) -> None:
    """A tag that moves, and a registry that is gone: on docker-registry."""
    box = Sandbox(tmp_path)
    with registry.start(str(tmp_path / "registry")) as real:
        name = f"{real.host}/team/web"
        for tag in ("9.0.0", "9.0.1", "10.0.0"):
            box.image(tag, *members(tag.encode()))
            real.push(f"oci:{box.images}:{tag}", f"team/web:{tag}")
        path = box.manifest(version="~9.0", image=name)
        box.appbox("lock", path)
        old = tomllib.loads((box.services / "appbox.lock").read_text())["service"][0]
        assert (old["tag"], old["digest"]) == ("9.0.1", box.content.tags["9.0.1"])
        box.image("9.0.1", *members(b"moved"))
        real.push(f"oci:{box.images}:9.0.1", "team/web:9.0.1")
        box.appbox("apply", "--locked", path)
        assert (box.current() / "rootfs/seed/version").read_text() == "9.0.1", "it is pulled by digest"
        assert "9.0.1 has moved" in box.appbox("plan", path).err
        assert f"web: 9.0.1: {old['digest'][:19]}… → " in box.appbox("lock", "--update", "web", path).out
        assert "10.0.0" in box.appbox("outdated", path).out
        box.appbox("apply", "--locked", path)
    assert (box.current() / "rootfs/seed/version").read_text() == "moved"
    assert box.appbox("apply", "--locked", path).out == "nothing to do\n"
    shutil.rmtree(box.root / "opt")
    box.appbox("apply", "--locked", path)
    assert (box.current() / "rootfs/seed/version").read_text() == "moved", "everything was in the cache"
