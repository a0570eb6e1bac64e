"""What apply does not do: every refusal with its sentence and its exit code, and the host as it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appbox.host import os_release
from tests.ground import layers
from tests.ground.registry import free_port
from tests.ground.rootfs import mounted
from tests.ground.sandbox import APPBOX, NOBODY, Sandbox, members, run, snapshot

pytestmark = pytest.mark.root


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    box = Sandbox(tmp_path)
    box.image("2.0", *members(b"2"))
    return box


def write(box: Sandbox, path: str, text: str = "not ours\n") -> None:
    place = box.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


# Names that are taken


@pytest.mark.parametrize(
    "path",
    [
        "etc/systemd/system/web.service",
        "usr/lib/systemd/system/web.service",
        "lib/systemd/system/web.service",
        "usr/local/lib/systemd/system/web.service",
        "run/systemd/system/web.service",
        "etc/init.d/web",
    ],
)
def test_a_unit_of_somebody_else(box: Sandbox, path: str) -> None:
    write(box, path)
    result = box.refuse(1, f"appbox: /{path}: the unit name web is taken: ")
    assert "; give the service another name, or remove that unit" in result.err
    box.appbox("plan", box.services, code=1)


def test_a_script_of_somebody_else(tmp_path: Path) -> None:
    box = Sandbox(tmp_path, "openrc")
    write(box, "etc/init.d/web", "#!/sbin/openrc-run\n")
    box.refuse(1, "/etc/init.d/web: the unit name web is taken: it was not made by appbox")


@pytest.mark.parametrize("target", ["/lib/systemd/system/other.service", "nowhere"])
def test_a_unit_that_is_a_link(box: Sandbox, target: str) -> None:
    (box.root / "etc/systemd/system").mkdir(parents=True)
    (box.root / "etc/systemd/system/web.service").symlink_to(target)
    box.refuse(1, "/etc/systemd/system/web.service: the unit name web is taken: it is a symlink")


def test_a_unit_of_another_service(box: Sandbox) -> None:
    box.apply(name="web")
    text = (box.root / "etc/systemd/system/web.service").read_text()
    write(box, "etc/systemd/system/other.service", text)
    box.refuse(1, "/etc/systemd/system/other.service: the unit name other is taken", name="other")
    box.appbox("remove", "other", code=1)
    assert (box.root / "etc/systemd/system/other.service").read_text() == text


def test_a_directory_of_somebody_else(box: Sandbox) -> None:
    write(box, "opt/containers/web-1.0/file")
    box.refuse(1, "/opt/containers/web-1.0: the directory is taken: it was not made by appbox")
    os.rename(box.containers / "web-1.0", box.containers / "aside")
    write(box, "opt/containers/web-1.0")
    box.refuse(1, "/opt/containers/web-1.0: the directory is taken: it is not a directory")
    (box.containers / "web-1.0").unlink()
    (box.containers / "web-1.0").symlink_to("aside")
    box.refuse(1, "/opt/containers/web-1.0: the directory is taken: it is not a directory")


def test_a_link_of_somebody_else(box: Sandbox) -> None:
    box.containers.mkdir(parents=True)
    for target in ("/srv/web", "other-1.0", "../web-1.0", "web-1.0/x"):
        (box.containers / "web").symlink_to(target)
        box.refuse(1, "/opt/containers/web: the directory is taken: it is not a link to a version of this service")
        (box.containers / "web").unlink()
    (box.containers / "web").mkdir()
    box.refuse(1, "/opt/containers/web: the directory is taken: it is not a link to a version of this service")


def test_names_and_versions_that_run_together(box: Sandbox) -> None:
    """`a-1` in version 2 and `a` in version 1-2 would have the same directory."""
    for tag in ("2", "1-2", "1"):
        box.image(tag, *members())
    box.apply(name="a-1", version="2")
    box.refuse(1, "/opt/containers/a-1-2: the directory is taken: it is a-1 2", name="a", version="1-2")
    box.refuse(1, "/opt/containers/a-1: the directory is taken: it is not a directory", name="a", version="1")
    box.appbox("remove", "--purge", "a-1")
    box.apply(name="a", version="1-2")
    box.refuse(1, "/opt/containers/a-1-2: the directory is taken: it is a 1-2", name="a-1", version="2")
    box.apply(name="a", version="1")
    box.refuse(1, "/opt/containers/a-1: the directory is taken: it is not a link", name="a-1", version="1")


def test_an_enabling_link_that_is_a_file(box: Sandbox) -> None:
    write(box, "etc/systemd/system/multi-user.target.wants/web.service")
    error = box.apply(code=1).err
    assert "/etc/systemd/system/multi-user.target.wants/web.service: the unit name web is taken: it is no link" in error
    assert not box.debris()


def test_the_ids_of_a_service_with_data_do_not_change(box: Sandbox) -> None:
    box.apply()
    words = "web: security.userns of a service that has data cannot change: its data belongs to the ids from 1879048192"
    host: dict[str, Any] = {"security": {"userns": "host"}}
    box.refuse(1, words, **host)
    box.refuse(1, words, version="2.0", **host)
    box.appbox("remove", "web")
    box.refuse(1, words, **host)
    box.refuse(1, words, version="2.0", **host)
    box.appbox("remove", "--purge", "web")
    box.apply(**host)
    box.settled()
    box.refuse(1, "its data belongs to the ids from 0 on")


# What is asked for


def test_a_key_that_nobody_knows(box: Sandbox) -> None:
    box.refuse(3, 'web.toml:4: volums: unknown key; did you mean "volumes"?', volums=1)


def test_a_template_that_cannot_be_rendered(box: Sandbox) -> None:
    (box.services / "t.j2").write_text("\n{{ prot }}")
    tables = {"config": {"/c": {"template": "t.j2"}}, "vars": {"port": 1}}
    box.refuse(3, "t.j2:2: config.\"/c\".template: 'prot' is undefined; set prot in [vars]", **tables)
    assert box.appbox("check", box.services, code=3).err == box.appbox("plan", box.services, code=3).err


def test_a_user_that_the_image_does_not_know(box: Sandbox) -> None:
    box.refuse(3, "process.user: no such user", process={"user": "nobody"})
    box.refuse(3, "volumes.data.owner: no such user", volumes={"data": {"path": "/seed", "owner": "nobody"}})
    box.refuse(3, 'config."/c".owner: no such user', config={"/c": {"text": "", "owner": "nobody"}})


def test_an_image_that_is_not_there(box: Sandbox) -> None:
    box.refuse(5, "no image '9': it has 1.0, 2.0", version="9")
    box.refuse(5, "/nowhere: no OCI image layout", image="oci:/nowhere")
    box.refuse(5, "/nowhere: no archive", image="oci-archive:/nowhere")


def test_a_registry_that_is_not_there(box: Sandbox) -> None:
    host = f"127.0.0.1:{free_port()}"
    box.refuse(5, f"{host}: the registry cannot be reached: connection refused", image=f"{host}/web")


def test_an_image_that_is_another_one(box: Sandbox) -> None:
    box.refuse(6, "the image does not have the digest asked for", image=f"oci:{one(box)}", digest="sha256:" + "0" * 64)


def one(box: Sandbox) -> Path:
    """Return a layout with one image only."""
    (box.place / "other").mkdir()
    other = Sandbox(box.place / "other")
    return other.images


def test_a_byte_that_has_changed(box: Sandbox) -> None:
    box.apply()
    manifest = json.loads(box.content.manifest("2.0")[2])  # type: ignore[index]
    used = [box.content.tags["2.0"], manifest["config"]["digest"], manifest["layers"][0]["digest"]]
    for digest in used:
        blob = box.images / "blobs" / digest.replace(":", "/")
        data = blob.read_bytes()
        for broken in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1], data + b"x"):
            blob.write_bytes(broken)
            box.refuse(6, "; copy the image again", version="2.0")
            box.appbox("image", "unpack", f"oci:{box.images}:2.0", box.place / "out", code=6)
            assert not (box.place / "out").exists()
        blob.write_bytes(data)
    assert not box.debris()
    box.apply(version="2.0")


def test_an_image_for_another_machine(box: Sandbox) -> None:
    box.content.image("arm", architecture="riscv64")
    box.image("2.0", *members(b"2"))
    result = box.refuse(5, "riscv64", version="arm")
    assert "amd64" in result.err


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (layers.file(b"../x", b""), "goes up"),
        (layers.file(b"x", b"", uid=70000), "70000"),
        (layers.hardlink(b"x", b"/nowhere"), "nowhere"),
        (layers.file(b".wh...", b""), "wh."),
        (layers.file(b"x", b"data", checksum=1), "checksum"),
    ],
)
def test_a_hostile_layer(box: Sandbox, member: bytes, words: str) -> None:
    box.image("bad", *members(), member)
    box.refuse(6, "", version="bad")
    assert not box.debris()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"WorkingDir": "/proc/self/fd/8"}, "working directory"),
        ({"User": "nobody"}, "no such user"),
        ({"User": "99999"}, "user '99999' has the id 99999"),
        ({"Env": ["x"]}, "no NAME=VALUE"),
        ({"StopSignal": "NOW"}, "STOPSIGNAL 'NOW'"),
        ({"Volumes": {"/proc": {}}}, "VOLUME '/proc' of the image cannot be mapped"),
    ],
)
def test_an_image_that_claims_impossible_things(box: Sandbox, config: dict[str, object], words: str) -> None:
    box.image("bad", *members(), **config)
    box.refuse(6, words, version="bad")
    assert not box.debris()


def test_one_service_that_fails_leaves_the_others(box: Sandbox) -> None:
    box.image("bad", *members(), User="nobody")
    box.apply(name="b", volumes=None)
    before = box.current("b").lstat()
    box.manifest("a")
    box.manifest("b", version="bad")
    box.manifest("c")
    result = box.appbox("apply", box.services, code=6)
    assert (box.current("b").lstat(), box.current("b").name) == (before, "b-1.0")
    assert box.current("a").is_dir()
    assert box.current("c").is_dir()
    assert result.out.splitlines()[-4].startswith("a: done")
    assert result.out.splitlines()[-3].startswith("b: failed: ")
    assert result.out.splitlines()[-1] == "2 services changed, 1 service failed"


# What the host lacks


@pytest.fixture
def readable() -> Iterator[Sandbox]:
    """Return a sandbox where everybody may read; pytest's own directories are for their owner only."""
    with tempfile.TemporaryDirectory(prefix="appbox-test.") as place:
        Path(place).chmod(0o755)
        yield Sandbox(Path(place))


def test_who_is_not_root(readable: Sandbox) -> None:
    """An ordinary user has own services, and no right to a root that is root's."""
    box, path = readable, readable.manifest()
    before = box.snapshot()
    unpack = ["image", "unpack", f"oci:{box.images}:1.0", "/tmp/x"]
    for words in (["apply", path], ["plan", path], ["import", "x.tar"], unpack):
        refused = f"appbox: {box.root}/tmp: permission denied; this is done as nobody\n"
        assert box.appbox_as_nobody(*words, code=1).err == refused
    for words in (["start"], ["stop"], ["restart"], ["shell"], ["run"]):
        assert "nothing is started or stopped below --root" in box.appbox_as_nobody(*words, "web", code=2).err
    assert "nothing is started" in box.appbox_as_nobody("exec", "web", "ls", code=2).err
    assert box.appbox_as_nobody("check", path).out == f"{path}: web 1.0: ok\n"
    assert box.appbox_as_nobody("image", "inspect", f"oci:{box.images}:1.0").out
    assert box.snapshot() == before
    box.apply()
    before = box.snapshot()
    for words in (["status", "web"], ["history", "web"], ["export", "web", "-o", "x.tar"]):
        error = box.appbox_as_nobody(*words, code=1).err
        assert error == "appbox: web: is not installed; appbox status lists what is\n"
    assert box.appbox_as_nobody("--json", "status").data() == []
    assert box.snapshot() == before


def test_a_user_without_subordinate_ids_has_images_that_need_none(readable: Sandbox) -> None:
    box = readable
    os.chown(box.root, NOBODY, NOBODY)
    for version in ("2.0", "3.0"):
        box.image(version, layers.file(b"bin/app", version.encode(), mode=0o755), layers.directory(b"data"))
    said = box.appbox_as_nobody("apply", box.manifest(), code=6).err
    assert (
        "/seed: the owner is outside the range of ids: 33:33 is not within 0 to 0; you have no subordinate ids" in said
    )
    assert box.appbox_as_nobody("status").out == "nothing is installed\n"
    path = box.manifest(version="2.0", volumes={"data": {"path": "/data"}})
    assert "there are no ids but nobody's own in the service" in box.appbox_as_nobody("plan", path).out
    box.appbox_as_nobody("apply", path)
    assert box.appbox_as_nobody("plan", path).out == "nothing to do\n"
    own = box.place / "home"
    places = box.root / str(own)[1:]
    current = places / ".local/share/appbox/containers/web"
    assert os.readlink(current) == "web-2.0"
    assert (places / ".config/systemd/user/web.service").is_file()
    assert {line[1] for line in snapshot(box.root).values()} == {NOBODY}
    (current / "data/data/mine").write_text("kept")
    box.appbox_as_nobody("apply", box.manifest(version="3.0", volumes={"data": {"path": "/data"}}))
    assert box.appbox_as_nobody("verify").out
    box.appbox_as_nobody("rollback", "web")
    assert os.readlink(current) == "web-2.0"
    box.appbox_as_nobody("remove", "web", "--purge", "--yes")
    assert not [path for path in snapshot(box.root) if "web" in path]


def test_without_runc(box: Sandbox) -> None:
    """In a mount namespace of its own, in which nothing of this machine can be changed and no runtime is a program."""
    script = (
        "for dir in /opt /var/lib /etc/init.d; do mount -t tmpfs none $dir; done; "
        "for path in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin; do "
        "for name in runc crun; do "
        '[ ! -e "$path/$name" ] || mount --bind /dev/null "$path/$name"; done; done; exec "$@"'
    )
    words = ["unshare", "--mount", "sh", "-ec", script, "sh", *APPBOX, "--init", "none", "apply", str(box.manifest())]
    error = run(words, code=8).err
    hint = os_release.hint("runc")  # this host's
    assert error == f"appbox: runc is not installed: services run through it; {hint}\n"


def test_a_root_that_is_not_there(box: Sandbox) -> None:
    result = box.appbox("--root", box.place / "none", "apply", box.manifest(), root=False, code=1)
    assert "none: the root cannot be opened: No such file or directory; make the directory first" in result.err


# Another appbox


def test_only_one_appbox_at_a_time(box: Sandbox) -> None:
    box.apply()
    with (box.root / "var/lib/appbox/lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (("apply", box.services), ("remove", "web")):
            error = box.appbox(*words, code=7).err
            assert f"process {os.getpid()} (" in error
            assert "holds the lock; --wait waits for it" in error
        assert box.appbox("plan", box.services).out == "nothing to do\n"
        assert box.appbox("--json", "status").data()[0]["name"] == "web"


def test_the_lock_is_free_when_its_holder_is_killed(box: Sandbox) -> None:
    path = box.manifest()
    box.image("1.0", *members(), *(layers.file(b"f%d" % n, bytes(1 << 16)) for n in range(400)))
    process = subprocess.Popen(box.command("apply", path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (box.containers / ".staging.web").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        assert f"process {process.pid} (appbox " in box.appbox("apply", path, code=7).err
        waiting = subprocess.Popen(box.command("-q", "apply", "--wait", path))
        time.sleep(0.2)
        assert waiting.poll() is None
    finally:
        process.kill()
        process.wait()
    assert waiting.wait(60) == 0
    box.settled()


# A full disk


@pytest.fixture
def small(tmp_path: Path) -> Sandbox:
    """Return a root with half a megabyte of room left when two versions of a tiny image are on it."""
    box = Sandbox(tmp_path)
    box.image("big", *members(), layers.file(b"big", os.urandom(3 << 20)))
    return box


def test_no_room_for_an_image(small: Sandbox) -> None:
    with mounted(small.root, "tmpfs", "size=2m"):
        small.refuse(1, "no space left for unpacking: No space left on device; free some space", version="big")
        assert os.listdir(small.containers) == []
        small.apply()
        small.refuse(1, "no space left for unpacking", version="big")
        assert small.current().name == "web-1.0"
        small.manifest()
        small.settled()


def fill(path: Path) -> None:
    """Write zeros to a file until the disk is full."""
    with path.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass


def test_no_room_for_anything(small: Sandbox) -> None:
    with mounted(small.root, "tmpfs", "size=2m"):
        small.apply()
        (small.root / "srv").mkdir()
        fill(small.root / "srv/filler")
        small.refuse(1, "no space left on device", config={"/c": {"text": "x" * 10000}})
        more = {"data": {"path": "/seed"}, "more": {"path": "/bin"}}
        small.refuse(1, "no space left on device", volumes=more)
        small.manifest()
        small.settled()
        (small.root / "srv/filler").unlink()
        small.apply(volumes=more)
        small.settled()


def test_a_root_that_cannot_be_written(small: Sandbox) -> None:
    with mounted(small.root, "tmpfs", "size=2m"):
        small.apply()
        run(["mount", "-o", "remount,ro", str(small.root)])
        assert "read-only file system" in small.apply(version="big", code=1).err
        assert small.appbox("plan", small.manifest()).out == "nothing to do\n"
        assert small.appbox("--json", "status").data()[0]["state"] == "stopped"
