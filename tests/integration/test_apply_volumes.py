"""Volumes: made once, with what the image has in their place, and never touched again; and where they are mounted."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appbox import planning, several, sources
from appbox.actions import Action
from appbox.errors import AppboxError
from appbox.host.facts import Abilities
from appbox.oci import runtimes
from appbox.oci.cache import Cache
from appbox.store.root import Root
from tests.ground import layers
from tests.ground.rootfs import mounted
from tests.ground.sandbox import BASE, Sandbox, members

pytestmark = pytest.mark.root


class Quiet:
    """Listens to a run, and says nothing of it; see `several.Listener`."""

    def preparing(self, names: Sequence[str]) -> None: ...
    def begun(self, name: str, version: str) -> None: ...
    def told(self, action: Action) -> None: ...
    def said(self, text: str) -> None: ...
    def failed(self, name: str, error: AppboxError) -> None: ...
    def left(self, names: Sequence[str]) -> None: ...


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def host(path: str = "/seed", source: str = "/srv/x", **more: Any) -> dict[str, Any]:
    return {"volumes": {"h": {"path": path, "source": source, **more}}}


def identity(path: Path) -> tuple[int, int, int]:
    info = path.lstat()
    return stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid


def mounts(box: Sandbox, name: str = "web") -> dict[str, Any]:
    return {mount["destination"]: mount for mount in box.spec(name)["mounts"]}


def is_seeded(folder: Path, *, reachable: bool = False) -> None:
    """See that a directory is the image's /seed, down to the last attribute; setuid where no user gets at it."""
    base = BASE
    assert identity(folder) == (0o750, base + 33, base + 33)
    assert identity(folder / "version") == (0o640, base + 33, base + 7)
    assert os.readlink(folder / "link") == "version"
    assert (folder / "twin").stat().st_ino == (folder / "version").stat().st_ino
    assert identity(folder / "sub") == (0o1777, base, base)
    assert identity(folder / "sub/file") == (0o755 if reachable else 0o4755, base, base)
    assert os.getxattr(folder / "sub/file", "user.note") == b"kept"
    assert (folder / "sub").stat().st_mtime == (folder / "sub/file").stat().st_mtime == 1_000_000_000


def test_a_new_volume_is_what_the_image_has_there(box: Sandbox) -> None:
    box.apply()
    is_seeded(box.current() / "data/data")
    assert (box.current() / "data/data/version").stat().st_ino != (box.current() / "rootfs/seed/version").stat().st_ino
    box.settled()


def test_seed_and_owner_are_the_manifest_s(box: Sandbox) -> None:
    box.apply(volumes={"a": {"path": "/seed", "seed": "never", "owner": "5:6"}, "b": {"path": "/new", "owner": "www"}})
    data = box.current() / "data"
    assert (os.listdir(data / "a"), identity(data / "a")) == ([], (0o750, BASE + 5, BASE + 6))
    assert (os.listdir(data / "b"), identity(data / "b")) == ([], (0o755, BASE + 33, BASE + 33))
    box.settled()


def test_what_is_in_a_volume_stays_as_it_is(box: Sandbox) -> None:
    box.apply()
    volume = box.current() / "data/data"
    (volume / "version").write_text("mine")
    (volume / "twin").unlink()
    volume.chmod(0o700)
    box.apply(volumes={"data": {"path": "/seed", "owner": "5:6"}})
    assert sorted(os.listdir(volume)) == ["link", "sub", "version"]
    assert (identity(volume), (volume / "version").read_text()) == ((0o700, BASE + 33, BASE + 33), "mine")
    box.settled()


def test_data_that_is_no_volume_any_more_stays_and_is_named(box: Sandbox) -> None:
    box.apply()
    (box.current() / "data/data/version").write_text("mine")
    said = box.apply(volumes={"data": {"path": "/seed", "source": "/srv/x"}}).out
    assert "web: note: data/data of the bundle is not mounted: what is in it stays there" in said
    assert (box.current() / "data/data/version").read_text() == "mine"
    box.settled()
    assert "is not mounted" not in box.apply(volumes={"data": {"path": "/seed"}}).out
    assert (box.current() / "data/data/version").read_text() == "mine"


def test_a_volume_that_is_gone_is_made_again(box: Sandbox) -> None:
    box.apply()
    (box.current() / "data/data").rename(box.current() / "data/aside")
    assert box.actions() == ["make-volume"]
    box.appbox("apply", box.services)
    is_seeded(box.current() / "data/data")
    box.settled()


def test_a_volume_that_is_no_longer_named_stays(box: Sandbox) -> None:
    box.apply()
    box.apply(volumes=None)
    assert "/seed" not in mounts(box)
    is_seeded(box.current() / "data/data")
    box.settled()
    box.apply()
    assert mounts(box)["/seed"]["source"] == "/opt/containers/web-1.0/data/data"
    box.settled()


def test_a_tmpfs_is_only_in_the_spec(box: Sandbox) -> None:
    box.apply(volumes={"t": {"path": "/empty", "tmpfs": True, "size": "1M"}})
    assert os.listdir(box.current() / "data") == []
    assert mounts(box)["/empty"]["options"] == ["nosuid", "nodev", "mode=700", "uid=33", "gid=33", "size=1048576"]
    box.settled()


def test_a_path_of_the_host_that_is_not_there_is_made(box: Sandbox) -> None:
    box.apply(**host())
    is_seeded(box.root / "srv/x", reachable=True)
    assert identity(box.root / "srv") == (0o755, 0, 0)
    assert mounts(box)["/seed"]["source"] == "/srv/x"
    box.settled()


@pytest.mark.parametrize("path", ["/empty", "/new"])
def test_a_path_of_the_host_may_stay_empty(box: Sandbox, path: str) -> None:
    (box.root / "srv/x").mkdir(parents=True)
    box.apply(**host(path))
    assert identity(box.root / "srv/x")[1] == BASE + (33 if path == "/empty" else 0)
    box.settled()
    for entry in ("x", "y"):
        (box.root / "srv/x" / entry).mkdir()
        (box.root / "srv/x" / entry).rmdir()
        box.settled()
    (box.root / "srv/x").rmdir()
    assert box.actions(**host(path)) == ["make-volume"]
    box.appbox("apply", box.services)
    box.settled()


def test_an_empty_directory_of_the_host_is_filled_once(box: Sandbox) -> None:
    (box.root / "srv/x").mkdir(parents=True, mode=0o777)
    box.apply(**host())
    is_seeded(box.root / "srv/x", reachable=True)
    box.settled()
    box.image("2.0", *members(b"2"))
    box.apply(version="2.0", **host())
    assert (box.root / "srv/x/version").read_text() == "1"
    box.settled()


def test_what_somebody_has_in_a_directory_is_theirs(box: Sandbox) -> None:
    (box.root / "srv/x").mkdir(parents=True, mode=0o700)
    (box.root / "srv/x/theirs").write_text("")
    said = box.apply(**host()).out
    assert "web: note: /srv/x keeps its owner, 0:0, who is nobody in the service" in said
    assert "make volume" not in said
    assert (os.listdir(box.root / "srv/x"), identity(box.root / "srv/x")) == (["theirs"], (0o700, 0, 0))
    box.settled()


def test_an_empty_directory_that_another_service_has_stays_that_one_s(box: Sandbox) -> None:
    for name in ("one", "two"):
        box.manifest(name, volumes={"h": {"path": "/new", "source": "/srv/x"}})
        said = box.appbox("apply", box.services).out
    ids = box.ranges["one"]
    assert f"two: note: /srv/x keeps its owner, {ids}:{ids}, who is nobody in the service" in said
    assert identity(box.root / "srv/x")[1:] == (ids, ids)
    box.settled()


def test_a_path_that_another_service_of_the_run_has_made_is_mounted_as_the_other_ones(box: Sandbox) -> None:
    """What runtime a live host has decides; below another root nobody asks, so that it is said here."""
    for name in ("one", "two"):
        box.manifest(name, volumes={"h": {"path": "/new", "source": "/srv/x", "owner": "5:6"}})
    with Root(str(box.root)) as root:
        loaded = sources.load([str(box.services)], "box")
        cache = Cache(str(box.root / "var/cache/appbox"))
        planned = planning.prepare(root, loaded, cache, init="systemd", start=False)
        able = Abilities(runtime=runtimes.parse("runc version 1.3.6"), kernel=(6, 18))
        planned = replace(planned, facts=replace(planned.facts, abilities=able))
        done = several.carry_out(root, cache, planned, Quiet(), progress=contextlib.nullcontext, fail_fast=False)
    assert [one.result for one in done] == ["done", "done"]
    mount = {name: mounts(box, name)["/new"] for name in ("one", "two")}
    assert "uidMappings" not in mount["one"]
    first, second = (box.ranges[name] for name in ("one", "two"))
    assert mount["two"]["uidMappings"][0] == {"containerID": first + 5, "hostID": second + 5, "size": 1}


def test_a_file_of_the_host_is_mounted_as_it_is(box: Sandbox) -> None:
    (box.root / "srv").mkdir()
    (box.root / "srv/file").write_text("x")
    box.apply(**host("/etc/file", "/srv/file", read_only=True))
    assert mounts(box)["/etc/file"]["options"][-1] == "ro"
    box.settled()


def test_a_mount_point_is_filled_in_its_place(box: Sandbox) -> None:
    (box.root / "srv/x").mkdir(parents=True)
    with mounted(box.root / "srv/x", "tmpfs"):
        (box.root / "srv/x/lost+found").mkdir()
        box.apply(**host())
        assert (box.root / "srv/x/lost+found").is_dir()
        is_seeded(box.root / "srv/x", reachable=True)
        assert os.listdir(box.root / "srv") == ["x"]
        box.settled()


def test_lost_and_found_alone_is_still_empty(box: Sandbox) -> None:
    (box.root / "srv/x/lost+found").mkdir(parents=True)
    box.apply(**host())
    is_seeded(box.root / "srv/x", reachable=True)
    box.settled()


@pytest.mark.parametrize(
    ("link", "target", "place"),
    [
        ("srv", "/mnt", "mnt/x"),
        ("srv", "../outside", "outside/x"),
        ("srv", "/not/there", "not/there/x"),
        ("srv/x", "/mnt/disk", "mnt/disk"),
    ],
)
def test_root_s_own_link_on_the_way_is_followed_inside_the_root(
    box: Sandbox, tmp_path: Path, link: str, target: str, place: str
) -> None:
    (tmp_path / "outside").mkdir()
    (box.root / link).parent.mkdir(exist_ok=True)
    (box.root / link).symlink_to(target)
    box.apply(**host())
    is_seeded(box.root / place, reachable=True)
    assert os.listdir(tmp_path / "outside") == []
    box.settled()


def test_a_link_of_somebody_else_is_refused(box: Sandbox) -> None:
    (box.root / "srv").symlink_to("/mnt")
    os.chown(box.root / "srv", 1000, 1000, follow_symlinks=False)
    box.refuse(6, "/srv: cannot be on the way to a volume", **host())


def test_a_path_through_a_file_is_refused(box: Sandbox) -> None:
    (box.root / "srv").write_text("")
    box.refuse(6, "/srv: is not a directory", **host())


@pytest.mark.parametrize(("mode", "owner"), [(0o777, 0), (0o775, 1000), (0o755, 1000)])
def test_a_path_that_others_could_redirect_is_refused(box: Sandbox, mode: int, owner: int) -> None:
    (box.root / "srv/x").mkdir(parents=True)
    os.chown(box.root / "srv", owner, owner)
    (box.root / "srv").chmod(mode)
    box.refuse(6, "/srv: cannot be on the way to a volume", **host())


# Where the image's links lead


LINKS = (
    layers.directory(b"real"),
    layers.directory(b"real/data", uid=33, gid=33, mode=0o711),
    layers.file(b"real/data/file", b"x"),
    layers.symlink(b"final", b"real/data"),
    layers.symlink(b"middle", b"/real"),
    layers.symlink(b"dangling", b"/nowhere/else"),
    layers.symlink(b"outward", b"../../../../real"),
    layers.symlink(b"loop", b"loop"),
    layers.symlink(b"kernel", b"/proc/1/root"),
    layers.symlink(b"parent", b"/dev"),
)


@pytest.mark.parametrize(
    ("path", "place", "seeded"),
    [
        ("/final", "/real/data", True),
        ("/middle/data", "/real/data", True),
        ("/outward/data", "/real/data", True),
        ("/middle/new/deep", "/real/new/deep", False),
        ("/dangling", "/nowhere/else", False),
        ("/dangling/deep", "/nowhere/else/deep", False),
    ],
)
def test_a_volume_is_mounted_where_the_image_s_links_lead(box: Sandbox, path: str, place: str, seeded: bool) -> None:
    box.image("links", *members(), *LINKS)
    box.apply(version="links", volumes={"data": {"path": path}})
    assert place in mounts(box)
    assert path not in mounts(box)
    assert os.listdir(box.current() / "data/data") == (["file"] if seeded else [])
    assert identity(box.current() / "data/data") == ((0o711, BASE + 33, BASE + 33) if seeded else (0o755, BASE, BASE))
    box.settled()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/kernel", "the image makes /kernel a link to /proc/1/root"),
        ("/kernel/etc", "the image makes /kernel/etc a link to /proc/1/root/etc"),
        ("/parent/x", "the image makes /parent/x a link to /dev/x"),
        ("/loop", "loop: cannot be resolved inside the root"),
    ],
)
def test_links_into_the_kernel_s_trees_are_refused(box: Sandbox, path: str, words: str) -> None:
    box.image("links", *members(), *LINKS)
    box.apply()
    for tables in ({"volumes": {"data": {"path": path}}}, {"config": {path: {"text": ""}}}):
        result = box.refuse(6, "", version="links", **tables)
        assert words in result.err or "loop" in path


def test_files_that_appbox_mounts_follow_links_too(box: Sandbox) -> None:
    link = layers.symlink(b"etc/resolv.conf", b"../run/resolv/stub.conf")
    box.image("links", *members(), link, layers.symlink(b"etc/conf", b"/real.conf"), layers.file(b"real.conf", b""))
    box.apply(version="links", config={"/etc/conf": {"text": "x"}})
    found = mounts(box)
    assert found["/run/resolv/stub.conf"]["source"] == "/opt/containers/web-links/.live/resolv.conf"
    assert found["/real.conf"]["source"] == "/opt/containers/web-links/config/etc/conf"
    box.settled()


def test_a_link_at_a_file_of_ours_into_proc_is_refused(box: Sandbox) -> None:
    box.image("links", *members(), layers.symlink(b"etc/hosts", b"/proc/self/environ"))
    box.apply()
    box.refuse(6, "the image makes /etc/hosts a link to /proc/self/environ", version="links")
