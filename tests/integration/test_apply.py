"""`appbox apply` on a root directory: versions, generations, data, and what it does about damage."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tomllib
from pathlib import Path

import pytest

from tests.ground import layers
from tests.ground.sandbox import BASE, Sandbox, members

pytestmark = pytest.mark.root

SIZE = 65536
RANGES = "var/lib/appbox/uid-ranges.toml"


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    box = Sandbox(tmp_path)
    box.image("2.0", *members(b"2"))
    return box


def data(box: Sandbox, name: str = "web", volume: str = "data") -> Path:
    return box.current(name) / "data" / volume


def mine(box: Sandbox) -> list[str]:
    """Return where the file `mine` is: it stands for what a service wrote."""
    return [str(path.relative_to(box.containers)) for path in box.containers.rglob("mine")]


def test_a_first_apply_makes_a_whole_version(box: Sandbox) -> None:
    said = box.apply().out
    bundle = box.current()
    assert bundle.name == "web-1.0"
    assert sorted(os.listdir(bundle)) == [
        *(".current", ".generations", ".image", ".live"),
        *("bundle.toml", "config", "config.json", "data", "rootfs", "rootfs.mtree", "run"),
    ]
    info = bundle.lstat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o710, 0, BASE)
    assert {os.readlink(bundle / name) for name in ("config", "run")} == {".current/config", ".current/run"}
    assert os.readlink(bundle / ".current") == ".generations/1"
    assert (bundle / "rootfs/seed/version").stat().st_uid == BASE + 33
    assert box.spec()["root"]["path"] in {"rootfs", "/opt/containers/web-1.0/rootfs"}
    assert tomllib.loads((bundle / "bundle.toml").read_text())["uid_base"] == BASE
    assert tomllib.loads((box.root / RANGES).read_text()) == {"ranges": {"web": BASE}}
    assert (box.root / "etc/systemd/system/web.service").is_file()
    assert os.readlink(box.root / "etc/systemd/system/multi-user.target.wants/web.service") == (
        "/etc/systemd/system/web.service"
    )
    assert said.endswith("done: 1 service changed\n")
    box.settled()


def test_plan_and_apply_say_the_same(box: Sandbox) -> None:
    planned = [line for line in box.appbox("plan", box.manifest()).out.splitlines() if line.startswith("  ")]
    before = box.snapshot()
    assert not any(path.startswith(("opt", "etc", "var/lib")) for path in before)
    said = box.apply().out.splitlines()
    assert [line for line in said if line.startswith("  ") and not line.startswith("    layer")] == planned
    assert box.appbox("plan", box.services).out == "nothing to do\n"


def test_plan_tells_scripts_whether_something_would_change(box: Sandbox) -> None:
    path = box.manifest()
    assert box.appbox("plan", "--exit-code", path, code=4).out.startswith("web 1.0\n")
    assert box.appbox("plan", path).code == 0
    box.apply()
    assert box.appbox("plan", "--exit-code", path).code == 0


@pytest.mark.parametrize(
    ("init", "unit", "link"),
    [
        ("systemd", "etc/systemd/system/web.service", "etc/systemd/system/multi-user.target.wants/web.service"),
        ("openrc", "etc/init.d/web", "etc/runlevels/default/web"),
    ],
)
def test_units_of_both_init_systems(tmp_path: Path, init: str, unit: str, link: str) -> None:
    box = Sandbox(tmp_path, init)
    box.apply()
    assert stat.S_IMODE((box.root / unit).stat().st_mode) == (0o755 if init == "openrc" else 0o644)
    assert os.readlink(box.root / link) == f"/{unit}"
    box.settled()
    box.apply(service={"enable": False})
    assert not (box.root / link).is_symlink()
    box.settled()
    box.appbox("remove", "web")
    assert not (box.root / unit).exists()


def test_without_an_init_system_there_is_no_unit(tmp_path: Path) -> None:
    box = Sandbox(tmp_path, "none")
    assert "no init system was found: no unit was made; appbox run NAME" in box.apply().out
    assert not (box.root / "etc").exists()
    box.settled()


def test_the_init_system_of_a_root_is_found(box: Sandbox) -> None:
    path = box.manifest()
    for program, unit in (("sbin/openrc-run", "etc/init.d/web"), ("usr/lib/systemd/systemd", "web.service")):
        (box.root / program).parent.mkdir(parents=True)
        (box.root / program).write_text("")
        said = box.appbox("--root", box.root, "plan", path, root=False).out
        assert f"{unit} (there is no unit yet)" in said


def test_a_change_of_configuration_is_a_new_generation_of_the_same_version(box: Sandbox) -> None:
    box.apply(process={"env": {"A": "1"}})
    rootfs = (box.current() / "rootfs").stat().st_ino
    assert box.actions(process={"env": {"A": "2"}}) == ["render-config"]
    said = box.appbox("plan", box.services).out
    assert '      -      "A=1"' in said
    assert '      +      "A=2"' in said
    box.appbox("apply", box.services)
    assert (box.generation(), "A=2" in box.spec()["process"]["env"]) == ("2", True)
    assert (box.current() / "rootfs").stat().st_ino == rootfs
    box.settled()


def test_a_description_changes_nothing_but_what_describes(box: Sandbox) -> None:
    box.apply()
    before = (box.current() / "config.json").read_bytes()
    said = box.apply(description="new").out
    assert "write bundle.toml as generation 2" in said
    assert (box.current() / "config.json").read_bytes() == before
    assert box.appbox("--json", "status", "web").data()["description"] == "new"
    box.settled()


def test_only_the_last_generations_stay(box: Sandbox) -> None:
    for number in range(8):
        box.apply(description=str(number))
    assert sorted(os.listdir(box.current() / ".generations")) == ["4", "5", "6", "7", "8"]
    box.settled()


def test_configuration_files(box: Sandbox) -> None:
    (box.services / "t.j2").write_text("port {{ port }}\n")
    (box.services / "raw").write_bytes(b"\0\xff")
    config = {
        "/etc/a": {"text": "a\n", "mode": "0600", "owner": "www"},
        "/etc/deep/down/b": {"template": "t.j2"},
        "/c": {"file": "raw", "on_change": "none"},
    }
    box.apply(vars={"port": 1}, config=config)
    folder = box.current() / "config"
    assert (folder / "etc/deep/down/b").read_text() == "port 1\n"
    assert (folder / "c").read_bytes() == b"\0\xff"
    info = (folder / "etc/a").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o600, BASE + 33, BASE + 33)
    box.settled()
    assert box.actions(vars={"port": 2}, config=config) == ["render-config"]
    said = box.apply(vars={"port": 2}, config=config).out
    assert "write /etc/deep/down/b, bundle.toml as generation 2" in said
    box.settled()


def test_what_was_written_when_tells_what_a_running_service_must_have(box: Sandbox) -> None:
    """A change with on_change = "none" does not make a running service stale."""

    def effective() -> int:
        found: int = tomllib.loads((box.current() / "bundle.toml").read_text())["effective"]
        return found

    calm = {"/c": {"text": "1", "on_change": "none"}}
    box.apply(config=calm)
    box.apply(config={"/c": {"text": "2", "on_change": "none"}})
    assert (box.generation(), effective()) == ("2", 1)
    box.apply(config={"/c": {"text": "3", "on_change": "restart"}})
    assert (box.generation(), effective()) == ("3", 3)
    box.settled()


def test_an_upgrade_takes_the_data_along_and_a_downgrade_brings_it_back(box: Sandbox) -> None:
    box.apply()
    (data(box) / "mine").write_text("x")
    box.apply(version="2.0")
    assert box.current().name == "web-2.0"
    assert mine(box) == ["web-2.0/data/data/mine"]
    assert (box.current() / "rootfs/seed/version").read_text() == "2"
    assert not (box.containers / "web-1.0/data").exists()
    box.settled()
    assert "unpack" not in box.apply(version="1.0").out
    assert mine(box) == ["web-1.0/data/data/mine"]
    box.settled()
    box.apply(version="2.0")
    assert mine(box) == ["web-2.0/data/data/mine"]
    box.settled()


def test_a_new_volume_during_an_upgrade(box: Sandbox) -> None:
    box.apply()
    (data(box) / "mine").write_text("x")
    box.apply(version="2.0", volumes={"data": {"path": "/seed"}, "more": {"path": "/empty"}})
    assert mine(box) == ["web-2.0/data/data/mine"]
    assert data(box, volume="more").stat().st_uid == BASE + 33
    box.settled()


def test_a_moved_tag_is_exchanged_in_one_step(box: Sandbox) -> None:
    box.apply()
    (data(box) / "mine").write_text("x")
    before = box.spec()
    box.image("1.0", *members(b"moved"))
    assert box.actions() == ["unpack", "render-config", "publish", "carry-data"]
    box.appbox("apply", box.services)
    assert (box.current() / "rootfs/seed/version").read_text() == "moved"
    assert mine(box) == ["web-1.0/data/data/mine"]
    assert box.spec() == before
    (kept,) = os.listdir(box.containers / ".replaced")
    assert (box.containers / ".replaced" / kept / "rootfs/seed/version").read_text() == "1"
    box.settled()
    for text in (b"1", b"moved", b"third"):
        box.image("1.0", *members(text))
        box.appbox("apply", box.services)
        assert (box.current() / "rootfs/seed/version").read_bytes() == text
        assert mine(box) == ["web-1.0/data/data/mine"]
        box.settled()


def test_several_services(box: Sandbox) -> None:
    for name in ("c", "a", "b"):
        box.manifest(name)
    said = box.appbox("apply", box.services).out
    assert [line for line in said.splitlines() if not line.startswith(" ")] == [
        *("a 1.0", "b 1.0", "c 1.0", "done: 3 services changed"),
    ]
    bases = [tomllib.loads((box.current(n) / "bundle.toml").read_text())["uid_base"] for n in "abc"]
    assert bases == [BASE, BASE + SIZE, BASE + 2 * SIZE]
    box.settled()


def test_names_that_begin_alike_do_not_meet(box: Sandbox) -> None:
    for name in ("web-x", "web", "web-x-y"):
        box.apply(name=name)
    box.appbox("remove", "web")
    assert box.appbox("apply", box.services).out.startswith("web 1.0\n")
    box.settled()


def test_ids_of_the_host_s_users_are_left_alone(box: Sandbox) -> None:
    (box.root / "etc").mkdir()
    (box.root / "etc/subuid").write_text(f"alice:{BASE + 10}:65536\n")
    box.apply()
    assert box.spec()["linux"]["uidMappings"][0]["hostID"] == BASE + 2 * SIZE


def test_with_the_host_s_ids_nothing_is_shifted(box: Sandbox) -> None:
    box.apply(security={"userns": "host"})
    bundle = box.current()
    assert (bundle / "rootfs/seed/version").stat().st_uid == (data(box) / "version").stat().st_uid == 33
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o700
    assert not (box.root / RANGES).exists()
    box.settled()


# Damage


def test_edited_files_are_repaired(box: Sandbox) -> None:
    box.apply()
    original = {name: (box.current() / name).read_bytes() for name in ("config.json", "run")}
    unit = box.root / "etc/systemd/system/web.service"
    text = unit.read_text()
    for number, name in enumerate(original):
        (box.current() / name).write_text("edited")
        assert f"write {name} as generation {number + 2}" in box.appbox("apply", box.services).out
        assert (box.current() / name).read_bytes() == original[name]
    unit.write_text(text + "[Service]\nUser=me\n")
    assert "the unit is not what the manifest says" in box.appbox("apply", box.services).out
    assert unit.read_text() == text
    (box.current() / "run").chmod(0o644)
    box.appbox("apply", box.services)
    assert stat.S_IMODE((box.current() / "run").stat().st_mode) == 0o755
    (box.current() / ".current/extra").write_text("")
    box.appbox("apply", box.services)
    assert not (box.current() / ".current/extra").exists()
    box.settled()


def test_a_unit_that_is_gone_or_disabled_comes_back(box: Sandbox) -> None:
    box.apply()
    unit = box.root / "etc/systemd/system/web.service"
    link = box.root / "etc/systemd/system/multi-user.target.wants/web.service"
    unit.unlink()
    link.unlink()
    assert box.actions() == ["install-unit", "enable"]
    box.appbox("apply", box.services)
    assert unit.is_file()
    assert link.is_symlink()
    box.settled()


@pytest.mark.parametrize("damage", ["rootfs", ".generations", ".generations/1", ".current", "bundle.toml", "meta"])
def test_a_damaged_version_is_made_again_around_its_data(box: Sandbox, damage: str) -> None:
    box.apply()
    (data(box) / "mine").write_text("x")
    path = box.current() / ("bundle.toml" if damage == "meta" else damage)
    if damage == "meta":
        path.write_text("= broken")
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.resolve().unlink() if damage == "bundle.toml" else path.unlink()
    before = (data(box) / "mine").stat()
    status = box.appbox("status", "web").out
    assert "web" in status
    box.appbox("apply", box.services)
    assert mine(box) == ["web-1.0/data/data/mine"]
    assert (data(box) / "mine").stat() == before
    assert tomllib.loads((box.current() / "bundle.toml").read_text())["uid_base"] == BASE
    box.settled()


def test_a_link_to_nothing_is_mended(box: Sandbox) -> None:
    box.apply()
    shutil.rmtree(box.current())
    assert box.appbox("--json", "status", "web").data()["state"] == "broken"
    box.appbox("apply", box.services)
    assert (data(box) / "version").read_text() == "1"
    box.settled()


def test_a_link_that_is_gone_is_made_again(box: Sandbox) -> None:
    box.apply()
    (data(box) / "mine").write_text("x")
    (box.containers / "web").unlink()
    assert box.actions() == ["switch"]
    box.appbox("apply", box.services)
    box.settled()
    (box.containers / "web").unlink()
    box.apply(version="2.0")
    assert mine(box) == ["web-2.0/data/data/mine"]
    box.settled()


def test_a_lost_file_of_ranges_is_written_again(box: Sandbox) -> None:
    box.apply(name="a")
    box.apply(name="b")
    kept = (box.root / RANGES).read_text()
    (box.root / RANGES).unlink()
    box.appbox("remove", "a")
    (box.services / "a.toml").unlink()
    box.apply(name="c")
    table = tomllib.loads((box.root / RANGES).read_text())["ranges"]
    assert table == {**tomllib.loads(kept)["ranges"], "c": BASE + 2 * SIZE}
    (box.root / RANGES).unlink()
    assert box.actions(name="a") == ["unpack", "allocate-range", "render-config", *PUBLISH]
    box.appbox("apply", box.services)
    assert tomllib.loads((box.root / RANGES).read_text())["ranges"] == table
    box.settled()


PUBLISH = ("publish", "switch", "carry-data", "install-unit", "enable")


def test_a_file_of_ranges_that_is_no_longer_one_is_made_anew(box: Sandbox) -> None:
    box.apply()
    sound = (box.root / RANGES).read_text()
    (box.root / RANGES).write_text("[ranges]\nweb = 7\n")
    for command in ("plan", "apply"):
        assert "give it the user ids 1879048192 to" in box.appbox(command, box.services).out
    assert (box.root / RANGES).read_text() == sound
    assert (box.root / f"{RANGES}.broken").read_text() == "[ranges]\nweb = 7\n"
    box.settled()


def test_what_an_interrupted_run_left_is_cleared_away(box: Sandbox) -> None:
    (box.containers / ".staging/rootfs").mkdir(parents=True)
    (box.containers / ".web-0.9.appbox-tmp").mkdir()
    (box.containers / ".web.appbox-tmp").symlink_to("nowhere")
    box.apply()
    box.settled()


def test_an_image_without_an_etc(box: Sandbox) -> None:
    box.image("bare", layers.file(b"app", b""), Cmd=["/app"])
    box.apply(version="bare", volumes=None)
    assert box.spec()["process"]["user"] == {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [0]}
    box.settled()


def test_volumes_of_the_image_that_nobody_mapped(box: Sandbox) -> None:
    box.image("vol", *members(), Volumes={"/seed": {}, "/new/place": {}})
    said = box.apply(version="vol", volumes=None).out
    assert "the image declares VOLUME /seed, which the manifest does not map" in said
    assert (data(box, volume="seed") / "version").stat().st_uid == BASE + 33
    assert os.listdir(data(box, volume="new-place")) == []
    assert {"/seed", "/new/place"} <= {mount["destination"] for mount in box.spec()["mounts"]}
    box.settled()


def test_the_platform_s_own_directories_are_plain_ones(box: Sandbox) -> None:
    """A link at /proc has led old runtimes out of the root."""
    links = [layers.symlink(name, b"/etc") for name in (b"proc", b"dev")]
    box.image("links", *members(), *links, layers.file(b"sys", b""))
    box.apply(version="links")
    for name in ("proc", "dev", "sys"):
        info = (box.current() / "rootfs" / name).lstat()
        assert (stat.S_ISDIR(info.st_mode), info.st_uid) == (True, BASE)


def test_status_of_every_kind(box: Sandbox) -> None:
    assert box.appbox("status").out == "nothing is installed\n"
    assert box.appbox("--json", "status").data() == []
    box.apply(name="a", description="the first\x1b")
    box.apply(name="b")
    shutil.rmtree(box.current("b"))
    (one, two) = box.appbox("status", "--json").data()
    digest = one.pop("digest")
    assert digest.startswith("sha256:")
    assert one.pop("image").startswith(f"oci:{box.images}")
    same = {"name": "a", "version": "1.0", "state": "stopped", "since": "", "pid": 0, "generation": 1, "problem": ""}
    assert {key: one.pop(key) for key in [*same, "description"]} == {**same, "description": "the first\x1b"}
    assert (one.pop("data_bytes"), one.pop("data_files")) == (-1, -1)  # nobody has counted
    assert not any(one.values())  # it has no health check, no address, and is no job
    assert (two["state"], two["problem"]) == ("broken", "b-1.0 cannot be read: No such file or directory")
    text = box.appbox("status").out
    assert text.splitlines()[1].split() == ["a", "1.0", "stopped", "-", "-", "-", digest[7:19], "-"]
    assert "b: b-1.0 cannot be read" in text
    assert "description: the first\\x1b\n" in box.appbox("status", "a").out
    (box.current("a") / "bundle.toml").write_text('image = 3\nmanifest = "x"\n')
    assert box.appbox("--json", "status", "a").data()["digest"] == ""
    assert box.appbox("status", "none", code=1).err == ("appbox: none: is not installed; appbox status lists what is\n")


def test_the_bundle_is_valid_for_other_tools(box: Sandbox) -> None:
    box.apply()
    spec = box.spec()
    assert spec["ociVersion"].startswith("1.")
    text = (box.current() / "config.json").read_text()
    assert json.loads(text) == spec
