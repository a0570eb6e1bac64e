"""The other commands: remove, render, image, JSON of everything, and a service in the foreground."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ground import layers, registry
from tests.ground.faulty import Faulty, serve, stall
from tests.ground.rootfs import mounted
from tests.ground.sandbox import APPBOX, BASE, Sandbox, members, run, snapshot
from tests.ground.tiny import archive

pytestmark = pytest.mark.root

RANGES = "var/lib/appbox/uid-ranges.toml"


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    box = Sandbox(tmp_path)
    box.image("2.0", *members(b"2"))
    return box


def put(box: Sandbox, name: str = "web") -> None:
    """Write what a service would."""
    (box.current(name) / "data/data/mine").write_text("x")


# remove


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_removing_keeps_the_data_and_another_apply_finds_it(box: Sandbox, version: str) -> None:
    box.apply()
    put(box)
    said = box.appbox("remove", "web").out
    assert said == "web: removed its unit\nweb: kept its data in /opt/containers/web-1.0/data\n"
    assert sorted(os.listdir(box.containers / "web-1.0")) == ["bundle.toml", "data"]
    assert not (box.containers / "web").is_symlink()
    assert not (box.root / "etc/systemd/system/web.service").exists()
    assert os.listdir(box.root / "etc/systemd/system/multi-user.target.wants") == []
    assert box.appbox("--json", "status").data() == []
    box.apply(version=version)
    assert (box.current() / "data/data/mine").read_text() == "x"
    assert (box.current() / "data/data/mine").stat().st_dev
    box.settled()
    box.appbox("remove", "web")
    box.apply(version="1.0")
    assert (box.current() / "data/data/mine").read_text() == "x"
    box.settled()


def test_removing_twice(box: Sandbox) -> None:
    box.apply()
    box.appbox("remove", "web")
    kept = snapshot(box.containers)
    assert "kept its data" in box.appbox("remove", "web").out
    assert snapshot(box.containers) == kept
    box.appbox("remove", "--purge", "web")
    error = box.appbox("remove", "--purge", "web", code=1).err
    assert error == "appbox: web: is not installed; appbox status lists what is\n"


def test_purging_leaves_nothing(box: Sandbox) -> None:
    box.apply(name="other", version="2.0")
    clean = box.host()
    box.apply()
    put(box)
    box.image("1.0", *members(b"moved"))
    box.apply()
    box.image("3.0", *members(b"3"))
    box.apply(version="3.0")
    for folder, name in (("run/appbox/web", "x"), ("var/log/appbox", "web.log")):
        (box.root / folder).mkdir(parents=True)
        (box.root / folder / name).write_text("")
    said = box.appbox("--json", "remove", "web", "--purge").data()
    assert said["name"] == "web"
    assert said["done"][0] == "removed its unit"
    left = {path for path in box.host() if "web" in path}
    assert left == set()
    assert "web" not in (box.root / RANGES).read_text()
    assert {path: file for path, file in box.host().items() if path in clean} == clean
    (box.services / "web.toml").unlink()
    box.settled()


def test_without_data_nothing_is_kept(box: Sandbox) -> None:
    box.apply(volumes=None)
    assert "web: removed /opt/containers/web-1.0\n" in box.appbox("remove", "web").out
    assert os.listdir(box.containers) == []
    box.appbox("remove", "web", code=1)
    assert box.appbox("-q", "remove", "web", "--purge").out == ""
    assert tomllib.loads((box.root / RANGES).read_text()) == {"ranges": {}}


@pytest.mark.parametrize("damage", ["link", "directory", "generation", "meta", "generations"])
@pytest.mark.parametrize("purge", [False, True])
def test_what_is_damaged_can_be_removed(box: Sandbox, damage: str, purge: bool) -> None:
    box.apply()
    put(box)
    bundle = box.current()
    if damage == "link":
        (box.containers / "web").unlink()
    elif damage == "directory":
        run(["rm", "-r", str(bundle)])
    elif damage == "generation":
        (bundle / ".current").unlink()
    elif damage == "meta":
        (bundle / "bundle.toml").write_text("= broken")
    else:
        run(["rm", "-r", str(bundle / ".generations")])
    box.appbox("remove", "web", *(["--purge"] if purge else []))
    if purge or damage == "directory":
        assert os.listdir(box.containers) == []
        return
    assert sorted(os.listdir(bundle)) == ["bundle.toml", "data"]
    box.apply(version="2.0")
    assert (box.current() / "data/data/mine").read_text() == "x"
    assert tomllib.loads((box.current() / "bundle.toml").read_text())["uid_base"] == BASE
    box.settled()


@pytest.mark.parametrize("name", ["none", "", "..", "../web", ".staging", "web/x", "a\nb"])
def test_what_is_not_installed_is_not_removed(box: Sandbox, name: str) -> None:
    box.apply()
    before = box.host()
    for words in ((), ("--purge",)):
        assert "is not installed" in box.appbox("remove", *words, "--", name, code=1).err
    assert box.host() == before


def test_units_of_others_are_not_removed(box: Sandbox) -> None:
    box.apply()
    unit = box.root / "etc/systemd/system/web.service"
    unit.write_text("mine\n")
    assert "the unit name web is taken" in box.appbox("remove", "web", "--purge", code=1).err
    assert unit.read_text() == "mine\n"
    assert (box.current() / "data/data/version").exists()


# render


def test_rendered_files_are_what_apply_installs(box: Sandbox) -> None:
    box.image("user", *members(), User="www", Volumes={"/seed/": {}, "/vol": {}})
    config = {"/etc/a/b": {"text": "x\n", "owner": "www", "mode": "0600"}}
    box.manifest("a", security={"userns": "host"})
    box.manifest("b", version="user", config=config, volumes=None)
    box.manifest("c", process={"user": "www"})
    out = box.place / "out"
    written = box.appbox("render", box.services, "-o", out).out.splitlines()
    box.appbox("apply", box.services)
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == set(written)
    for path in written:
        directory, _, rest = path.partition("/")
        unit = rest.removeprefix("unit/") if rest.startswith("unit/") else ""
        place = box.root / unit if unit else box.containers / directory / ".current" / rest
        mine = place.read_bytes()
        if rest == "bundle.toml":
            of_the_run = (b"created = ", b"previous = ", b"effective = ", b"visible = ", b"rootfs_mtree = ")
            mine = b"".join(line for line in mine.splitlines(True) if not line.startswith(of_the_run))
        assert (out / path).read_bytes() == mine, path
    assert {path.partition("/")[0] for path in written} == {"a-1.0", "b-user", "c-1.0"}


def test_rendering_needs_no_root_and_touches_nothing() -> None:
    with tempfile.TemporaryDirectory(prefix="appbox-test.") as place:
        Path(place).chmod(0o755)
        box = Sandbox(Path(place))
        path, out = box.manifest(), Path(place) / "home/out"
        before = box.snapshot(times=True)
        done = box.appbox_as_nobody("--json", "render", path, "-o", out).data()
        assert box.snapshot(times=True) == before
        assert done["files"] == sorted(done["files"])
        box.appbox("apply", path)
        for name in ("config.json", "run", "etc/hosts"):
            assert (out / "web-1.0" / name).read_bytes() == (box.current() / ".current" / name).read_bytes()
        unit = "etc/systemd/system/web.service"
        assert (out / "web-1.0/unit" / unit).read_bytes() == (box.root / unit).read_bytes()


def test_rendering_over_something_is_refused(box: Sandbox) -> None:
    out = box.place / "out"
    out.mkdir()
    box.appbox("-q", "render", box.manifest(), "-o", out)
    before = snapshot(out)
    assert f"{out}: is not empty; name a new directory" in box.appbox("render", box.services, "-o", out, code=1).err
    assert snapshot(out) == before


# image


def test_an_image_is_unpacked_with_its_owners(box: Sandbox) -> None:
    out = box.place / "out"
    said = box.appbox("image", "unpack", f"oci:{box.images}:1.0", out, root=False).out
    assert f"{out}: oci:{box.images}" in said
    assert (out / "seed/version").stat().st_uid == 33
    assert stat.S_IMODE((out / "seed/sub/file").stat().st_mode) == 0o4755
    data = box.appbox(
        "--json", "image", "unpack", f"oci:{box.images}:1.0", box.place / "two", "--map", "70000:100"
    ).data()
    assert data["directory"] == str(box.place / "two")
    assert (box.place / "two/seed/version").stat().st_uid == 70033
    assert sorted(os.listdir(box.place)) == ["images", "out", "root", "services", "two"]


def test_an_image_is_unpacked_from_an_archive(box: Sandbox) -> None:
    path = archive(str(box.images), str(box.place / "image.tar"))
    box.appbox("image", "unpack", f"oci-archive:{path}:2.0", box.place / "out")
    assert (box.place / "out/seed/version").read_text() == "2"
    assert box.appbox("--json", "image", "inspect", f"oci-archive:{path}:2.0").data()["cmd"] == ["/bin/app"]


def test_only_new_and_empty_directories_are_unpacked_to(box: Sandbox) -> None:
    source, out = f"oci:{box.images}:1.0", box.place / "out"
    for occupied in ("file", "dir", "link"):
        out.write_text("") if occupied == "file" else out.mkdir() if occupied == "dir" else out.symlink_to("services")
        if occupied == "dir":
            (out / "x").write_text("")
        before = snapshot(box.place)
        error = box.appbox("image", "unpack", source, out, code=1).err
        assert error == f"appbox: {out}: is there already; name a new directory\n"
        assert snapshot(box.place).keys() - before.keys() <= {"root/var", "root/var/cache"} | {
            path for path in snapshot(box.place) if path.startswith("root/var/cache")
        }
        run(["rm", "-r", str(out)])
    out.mkdir()
    box.appbox("image", "unpack", source, out)
    assert (out / "etc/passwd").exists()
    (box.place / "through").symlink_to(box.services)
    box.appbox("image", "unpack", source, box.place / "through/out")
    assert (box.services / "out/etc/passwd").exists()
    assert box.appbox("image", "unpack", source, box.place / "no/parent", code=1).err.endswith(
        "no such file or directory\n"
    )
    assert "the root of the system cannot be unpacked to" in box.appbox("image", "unpack", source, "/", code=2).err


def test_two_that_unpack_to_one_place(box: Sandbox) -> None:
    """The second one ends at once, and what the first one has begun is published by nobody but itself."""
    out, temporary = box.place / "out", box.place / ".out.appbox-tmp"
    box.content.image("slow", layers=(layers.archive(layers.file(b"new", os.urandom(100_000))),))
    slow = json.loads(box.content.manifest("slow")[2])["layers"][0]["digest"]  # type: ignore[index]
    faulty = Faulty(box.content)
    faulty.break_next(slow, stall(5000, 30))
    with serve(faulty) as host:
        line = box.command("image", "unpack", f"docker://{host}/a/b:slow", out)
        with subprocess.Popen(line, stderr=subprocess.DEVNULL) as first:
            while not (temporary.is_dir() and faulty.seen("GET", slow)):
                assert first.poll() is None
                time.sleep(0.01)
            error = box.appbox("image", "unpack", f"oci:{box.images}:1.0", out, code=7).err
            assert error == f"appbox: {out}: another appbox unpacks to this directory; wait for it\n"
            assert temporary.is_dir()
            assert not out.exists()
            first.kill()
    assert temporary.is_dir()
    box.appbox("image", "unpack", f"oci:{box.images}:1.0", out)
    assert (out / "etc/passwd").exists()
    assert not temporary.exists()


def test_a_mount_point_cannot_be_replaced(box: Sandbox) -> None:
    out = box.place / "out"
    out.mkdir()
    with mounted(out, "tmpfs"):
        error = box.appbox("image", "unpack", f"oci:{box.images}:1.0", out, code=1).err
        assert "a file system is mounted there" in error
        box.appbox("image", "unpack", f"oci:{box.images}:1.0", out / "below")
    with mounted(out, "none", "bind", box.services):
        assert (
            "a file system is mounted there" in box.appbox("image", "unpack", f"oci:{box.images}:1.0", out, code=1).err
        )
    assert not (box.place / ".out.appbox-tmp").exists()


def test_nothing_is_left_of_a_refused_image(box: Sandbox) -> None:
    box.image("bad", *members(), layers.file(b"../x", b""))
    before = sorted(os.listdir(box.place))
    box.appbox("image", "unpack", f"oci:{box.images}:bad", box.place / "out", code=6)
    box.appbox("image", "unpack", f"oci:{box.images}:1.0", box.place / "out", "--map", "70000:10", code=6)
    assert sorted(os.listdir(box.place)) == before


@pytest.mark.parametrize("text", ["x", "1", "1:", ":1", "1:2:3", "-1:5", "1:0", "1:4294967295", "4294967295:1", "²:1"])
def test_ranges_that_are_none(box: Sandbox, text: str) -> None:
    words = ("image", "unpack", f"oci:{box.images}:1.0", box.place / "out", f"--map={text}")
    assert "is no range of ids; write BASE:SIZE, as in 200000:65536" in box.appbox(*words, code=2).err


def test_an_image_is_inspected(box: Sandbox) -> None:
    box.image("full", *members(), Labels={"a": "b\nc"}, Volumes={"/v": {}}, ExposedPorts={"80/tcp": {}}, User="www")
    text = box.appbox("image", "inspect", f"oci:{box.images}:full").out
    for line in (
        "user: www",
        "volume: /v",
        "port: 80/tcp",
        "label: a=b\\nc",
        "platform: linux/amd64",
        "env: PATH=/bin",
    ):
        assert f"{line}\n" in text
    data = box.appbox("image", "inspect", "--json", f"oci:{box.images}:full").data()
    assert data["digest"] == box.content.tags["full"]
    assert (data["user"], data["labels"], data["volumes"]) == ("www", {"a": "b\nc"}, ["/v"])
    assert [layer["media_type"].endswith("gzip") for layer in data["layers"]] == [True]
    box.appbox("image", "inspect", f"oci:{box.images}:none", code=5)
    box.appbox("image", "inspect", f"oci:{box.images}:full", "--platform", "linux/arm64", code=5)


def test_a_check_with_the_image_says_what_the_plan_says_of_its_ports(box: Sandbox) -> None:
    box.image("low", *members(), ExposedPorts={"80/tcp": {}})
    manifest = box.manifest(version="low", network={"mode": "host"})
    words = "listens on port 80/tcp: on the host's network"
    assert words in box.appbox("plan", manifest).out
    assert words in box.appbox("check", "--image", manifest).out
    manifest = box.manifest(version="low", network={"mode": "host"}, security={"userns": "host"})
    assert words not in box.appbox("check", "--image", manifest).out


# JSON and silence


def test_every_command_speaks_json(box: Sandbox) -> None:
    path = box.manifest()
    out = box.place / "out"
    assert box.appbox("--json", "check", path).data()["ok"] is True
    planned = box.appbox("plan", "--json", path).data()
    assert planned["changes"] is True
    applied = box.appbox("apply", path, "--json").data()
    results = [{"name": "web", "result": "done", "error": None, "why": ""}]
    assert applied == {**planned, "done": True, "results": results}
    again = box.appbox("apply", path, "--json").data()
    assert (again["changes"], again["actions"], again["done"]) == (False, [], True)
    assert [(one["name"], one["actions"], one["downtime"]) for one in again["services"]] == [
        ("web", [], "does not run")
    ]
    assert again["results"] == [{"name": "web", "result": "unchanged", "error": None, "why": ""}]
    assert box.appbox("--json", "status", "web").data()["name"] == "web"
    assert "web-1.0/config.json" in box.appbox("--json", "render", path, "-o", out).data()["files"]
    assert box.appbox("--json", "image", "inspect", f"oci:{box.images}:1.0").data()["user"] == ""
    assert box.appbox("--json", "schema").data()["type"] == "object"
    assert box.appbox("--json", "remove", "web", "--purge").data()["name"] == "web"


@pytest.mark.registry
def test_every_command_on_images_speaks_json_and_nothing_else(box: Sandbox) -> None:
    one, two = f"oci:{box.images}:1.0", f"oci:{box.images}:2.0"
    with registry.start(str(box.place / "registry")) as server:
        there = f"docker://{server.host}/web"
        for words in (
            ("copy", one, f"{there}:1.0"),
            ("copy", f"{there}:1.0", f"oci:{box.place}/copied:1.0"),
            ("copy", "--all", f"{there}:1.0", f"oci-archive:{box.place}/copied.oci.tar"),
            ("copy", f"{there}:1.0", f"docker-archive:{box.place}/copied.docker.tar:web:1.0"),
            ("unpack", f"{there}:1.0", box.place / "unpacked"),
            ("inspect", f"{there}:1.0"),
            ("inspect", "--raw", f"{there}:1.0"),
            ("inspect", "--config", f"{there}:1.0"),
            ("diff", f"{there}:1.0", two),
            ("tags", there),
        ):
            result = box.appbox("--json", "image", *words)
            assert isinstance(result.data(), dict), result
            assert result.err == "", result
        for words in (("tags", f"{there}/none"), ("inspect", f"{there}:none"), ("diff", one, f"{there}:none")):
            result = box.appbox("--json", "image", *words, code=5)
            assert result.data()["error"]["exit"] == 5
            assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "status none"),
        (1, "remove none"),
        (1, "apply none.toml"),
        (2, "start web"),
        (2, "stop web"),
        (2, "restart web"),
        (2, "logs web"),
        (2, "exec web ls"),
        (2, "shell web"),
        (2, "run web"),
        (2, "plan"),
        (2, "bogus"),
        (2, "image unpack oci:x / --map x"),
        (5, "image inspect oci:/none"),
        (5, "image unpack docker://127.0.0.1:1/x out"),
        (2, "image inspect nonsense:x"),
    ],
)
def test_every_error_speaks_json(box: Sandbox, code: int, words: str) -> None:
    box.apply()
    for line in (["--json", *words.split()], words.split()):
        result = box.appbox(*line, code=code)
        assert "appbox" in result.err
        assert result.out == "" or json.loads(result.out)["error"]["exit"] == code
        assert bool(result.out) is (line[0] == "--json")


def test_quiet_means_results_and_errors_only(box: Sandbox) -> None:
    path = box.manifest()
    assert box.appbox("-q", "check", path).out == ""
    assert "unpack" in box.appbox("-q", "plan", path).out
    assert box.appbox("-q", "apply", path).out == ""
    assert box.appbox("apply", path, "--quiet").out == ""
    assert "web" in box.appbox("-q", "status").out
    assert box.appbox("-q", "render", path, "-o", box.place / "out").out == ""
    assert box.appbox("-q", "remove", "web").out == ""
    assert box.appbox("-q", "status", "web", code=1).err


def test_verbose_plans_show_new_files(box: Sandbox) -> None:
    path = box.manifest()
    assert "ExecStart=" not in box.appbox("plan", path).out
    assert "      +ExecStart=" in box.appbox("plan", "-v", path).out


# a registry


@pytest.mark.registry
def test_a_registry_is_asked_once(box: Sandbox) -> None:
    with registry.start(str(box.place / "registry")) as server:
        server.push(f"oci:{box.images}:1.0", "web:1.0")
        image = f"{server.host}/web"
        box.apply(image=image)
        digest = box.appbox("--json", "status", "web").data()["digest"]
        box.refuse(5, "9.9", image=image, version="9.9")
    box.manifest(image=image)
    box.settled()
    box.apply(image=image, description="no network is needed for that")
    box.apply(image=image, digest=digest)
    box.settled()
    assert box.appbox("image", "inspect", f"docker://{image}:1.0", code=5).err
    box.appbox("remove", "web")
    box.refuse(5, "cannot be reached", image=image)


# in the foreground


@pytest.fixture
def live(image: Callable[[str], Path], tmp_path: Path) -> Iterator[Live]:
    with Live(tmp_path, image("busybox")) as found:
        yield found


class Live:
    """A mount namespace in which appbox may work on `/`: what it writes is in memory and goes with the namespace."""

    SCRIPT = (
        "for dir in /opt /var/lib; do mount -t tmpfs none $dir; done; mkdir -p /var/lib/appbox; exec sleep infinity"
    )

    def __init__(self, place: Path, image: Path) -> None:
        self.name = f"t{uuid.uuid4().hex[:12]}"
        self.place, self.image = place, image
        self.anchor = subprocess.Popen(["unshare", "--mount", "sh", "-ec", self.SCRIPT])

    def __enter__(self) -> Live:
        deadline = time.monotonic() + 20
        while run(["nsenter", "-t", str(self.anchor.pid), "-m", "test", "-d", "/var/lib/appbox"], code=None).code:
            assert time.monotonic() < deadline
            assert self.anchor.poll() is None
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        run(["runc", "delete", "--force", self.name], code=None)
        shutil.rmtree(f"/run/appbox/{self.name}", ignore_errors=True)
        self.anchor.kill()
        self.anchor.wait()

    def words(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self.anchor.pid), "-m", *APPBOX, "--init", "none", *words]

    def appbox(self, *words: str, code: int = 0) -> Any:
        return run(self.words(*words), code=code)

    def manifest(self, script: str) -> str:
        path = self.place / "live.toml"
        path.write_text(
            f'name = "{self.name}"\nimage = "oci:{self.image}"\nversion = "debian"\n'
            f"[process]\nargs = {json.dumps(['sh', '-c', script])}\n[network]\nmode = 'none'\n"
        )
        return str(path)

    def wait_until_runs(self) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while (found := self.appbox("--json", "status", self.name).data())["state"] != "running":
            assert time.monotonic() < deadline
        return dict(found)


@pytest.mark.runc
@pytest.mark.images
def test_a_service_in_the_foreground(live: Live) -> None:
    name = live.name
    path = live.manifest("trap 'echo bye; exit 5' TERM; echo hello; while :; do sleep 0.1; done")
    live.appbox("apply", path)
    assert live.appbox("--json", "status", name).data()["state"] == "stopped"
    assert "is not running; appbox start" in live.appbox("exec", name, "id", code=1).err
    process = subprocess.Popen(live.words("run", name), stdout=subprocess.PIPE, text=True)
    try:
        status = live.wait_until_runs()
        assert status["pid"] > 1
        assert live.appbox("exec", name, "sh", "-c", "id -u; exit 3", code=3).out == "0\n"
        assert live.appbox("exec", name, "echo", "--json", "-v").out == "--json -v\n"
        assert f"{name}: is running already; appbox stop {name}" in live.appbox("run", name, code=1).err
        assert "is running without a unit" in live.appbox("remove", name, code=1).err
        assert "there is no init system to start it" in live.appbox("start", name, code=8).err
        assert "without an init system nothing keeps its logs" in live.appbox("logs", name, code=8).err
        assert live.appbox("apply", path).out == "nothing to do\n"
        assert live.appbox("stop", name).out == f"{name}: stopped\n"
        out, _ = process.communicate(timeout=30)
        assert (out, process.returncode) == ("hello\nbye\n", 5)
    finally:
        process.kill()
        process.wait()
    assert live.appbox("--json", "status", name).data()["state"] == "stopped"
    live.appbox("remove", "--purge", name)
    assert live.appbox("--json", "status").data() == []
