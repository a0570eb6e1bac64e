"""What somebody, or a bad disk, did to an installed service: status says it, plan names it, apply mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appbox.host import runc
from appbox.store import paths
from appbox.units.files import marker
from tests.ground.sandbox import BASE, Sandbox

pytestmark = pytest.mark.root

UNIT = "etc/systemd/system/web.service"
LINK = "etc/systemd/system/multi-user.target.wants/web.service"
RANGES = "var/lib/appbox/uid-ranges.toml"
ADDRESSES = "var/lib/appbox/addresses.toml"

Damage = Callable[[Sandbox], object]


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    """Two services: web, which is damaged, and db on a bridge."""
    box = Sandbox(tmp_path)
    box.manifest("db", network={"mode": "bridge"})
    box.apply()
    box.appbox("apply", box.services)
    (box.current() / "data/data/precious").write_text("1")
    box.settled()
    return box


def generation(box: Sandbox) -> Path:
    return box.current() / ".generations" / box.generation()


def place(box: Sandbox, path: str) -> Path:
    """Return a file of the root, of the version or of the generation, by how its path begins."""
    if path.startswith(("etc/", "var/")):
        return box.root / path
    return box.current() / path.removeprefix("/") if path.startswith("/") else generation(box) / path


def write(path: str, data: bytes) -> Damage:
    return lambda box: place(box, path).write_bytes(data)


def cut(path: str) -> Damage:
    """Leave the first half of a file, as a power cut might, and of its last line the first letter."""

    def tear(box: Sandbox) -> None:
        data = place(box, path).read_bytes()
        os.truncate(place(box, path), data.rfind(b"\n", 0, len(data) // 2) + 2)

    return tear


def zero(path: str) -> Damage:
    return lambda box: place(box, path).write_bytes(bytes(place(box, path).stat().st_size))


def gone(path: str) -> Damage:
    def remove(box: Sandbox) -> None:
        target = place(box, path)
        shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()

    return remove


def folder(path: str) -> Damage:
    """Put a directory in the place of a file."""

    def replace(box: Sandbox) -> None:
        gone(path)(box)
        place(box, path).mkdir()

    return replace


def link(path: str, target: str) -> Damage:
    def replace(box: Sandbox) -> None:
        gone(path)(box)
        place(box, path).symlink_to(target)

    return replace


def mode(path: str, bits: int) -> Damage:
    return lambda box: place(box, path).chmod(bits)


BROKEN = "broken"
"""In place of drift: the service's state, with a line that says why."""


@pytest.mark.parametrize(
    ("damage", "words", "kinds"),
    [
        (write(UNIT, f"{marker('web')}\n[Unit]\n".encode()), "unit edited", {"install-unit"}),
        (gone(UNIT), "unit missing", {"install-unit"}),
        (mode(UNIT, 0o666), "unit has another mode or owner", {"install-unit"}),
        (gone(LINK), "not enabled", {"enable"}),
        (link(LINK, "/usr/lib/systemd/system/other.service"), "enabled by a link to another unit", {"enable"}),
        (write("config.json", b"{}"), "config.json changed", {"render-config"}),
        (gone("config.json"), "config.json missing", {"render-config"}),
        (folder("config.json"), "config.json missing", {"render-config"}),
        (zero("run"), "run changed", {"render-config"}),
        (mode("run", 0o644), "run changed", {"render-config"}),
        (write("config/extra", b""), "/extra added", {"render-config"}),
        (cut("service.json"), "configuration cannot be read (service.json is damaged)", {"render-config"}),
        (cut("bundle.toml"), BROKEN, {"unpack", "carry-data"}),
        (zero("bundle.toml"), BROKEN, {"unpack", "carry-data"}),
        (write("bundle.toml", b""), BROKEN, {"unpack", "carry-data"}),
        (write("bundle.toml", b'name = "web"\nversion = "1.0"\nuid_base = []\n'), BROKEN, {"unpack", "carry-data"}),
        (write("bundle.toml", b"a = " + b"[" * 100_000), BROKEN, {"unpack", "carry-data"}),
        (folder("bundle.toml"), BROKEN, {"unpack", "carry-data"}),
        (gone("/.generations"), BROKEN, {"unpack", "carry-data"}),
        (link("/.current", ".generations/77"), BROKEN, {"unpack", "carry-data"}),
        (link("/.current", "../../etc"), BROKEN, {"unpack", "carry-data"}),
        (gone("/run"), "has no link run any more", {"unpack", "carry-data"}),
        (gone("/rootfs"), "lacks rootfs", {"unpack", "carry-data"}),
        (link("/rootfs", "/"), "lacks rootfs", {"unpack", "carry-data"}),
        (gone("/.live"), "lacks upper", {"unpack", "carry-data"}),
        (gone("/.image"), "image's documents missing", {"keep-image"}),
        (cut("/.image/manifest.json"), "image's documents changed", {"keep-image"}),
        (folder("/.image/config.json"), "image's documents cannot be read", {"keep-image"}),
        (zero("/.image/config.json"), "image's documents changed", {"keep-image"}),
        (gone(RANGES), "state lost (its ids are not written down)", {"allocate-range"}),
        (zero(RANGES), "state lost (its ids are not written down)", {"allocate-range"}),
        (cut(RANGES), "state lost (its ids are not written down)", {"allocate-range"}),
        (folder(RANGES), "state lost (its ids are not written down)", {"allocate-range"}),
        (gone("var/lib/appbox"), "state lost (its ids are not written down)", {"allocate-range", "allocate-address"}),
    ],
)
def test_it_is_said_and_mended(box: Sandbox, damage: Damage, words: str, kinds: set[str]) -> None:
    owner = (box.current() / "data/data").stat().st_uid
    damage(box)
    shown = box.appbox("--json", "status", "web").data()
    if words is BROKEN:
        assert shown["state"] == "broken"
        assert shown["problem"]
        assert shown["problem"] in box.appbox("status").out
    else:
        assert any(one.startswith(words) for one in shown["drift"]), shown
        assert words in box.appbox("status").out
    before = box.snapshot(times=True)
    plan = box.appbox("--json", "plan", box.services).data()
    assert box.snapshot(times=True) == before
    assert kinds <= {action["kind"] for action in plan["actions"]}
    box.appbox("apply", box.services)
    assert box.appbox("--json", "status", "web").data()["drift"] == []
    assert (box.current() / "data/data/precious").read_text() == "1"
    assert (box.current() / "data/data").stat().st_uid == owner
    assert "all as they were unpacked" in box.appbox("verify", "web").out
    box.settled()


def test_a_changed_rootfs_is_unpacked_anew(box: Sandbox) -> None:
    program = box.current() / "rootfs/bin/app"
    program.write_text("#!/bin/sh\nevil\n")
    manifest = box.services / "web.toml"
    words = "web-1.0 has a changed root file system: /bin/app"
    # Nothing of a thousand root file systems is looked at that nobody asks for.
    assert box.appbox("plan", box.services).out == "nothing to do\n"
    assert box.appbox("--json", "status").data()[1]["drift"] == []
    assert box.appbox("--json", "status", "--verify").data()[1]["drift"] == ["rootfs changed: /bin/app"]
    assert box.appbox("--json", "status", "web").data()["drift"] == ["rootfs changed: /bin/app"]
    assert words in box.appbox("plan", manifest).out
    assert words in box.appbox("plan", "--verify", box.services).out
    assert words in box.appbox("apply", manifest).out
    assert program.read_text() == "#!/bin/sh\n"
    assert (box.current() / "data/data/precious").read_text() == "1"
    assert box.appbox("apply", manifest).out == "nothing to do\n"
    box.settled()


@pytest.mark.parametrize(
    "change",
    [
        lambda rootfs: (rootfs / "bin/app").unlink(),
        lambda rootfs: (rootfs / "bin/more").write_text(""),
        lambda rootfs: (rootfs / "bin/app").chmod(0o4755),
        lambda rootfs: rootfs.chmod(0o700),
        lambda rootfs: os.link(rootfs / "bin/app", rootfs.parent / "data/app"),
        lambda rootfs: os.setxattr(rootfs / "bin/app", "user.more", b"1"),
        lambda rootfs: (rootfs.parent / "rootfs.mtree").unlink(),
        lambda rootfs: (rootfs.parent / "rootfs.mtree").write_text("#mtree\n"),
    ],
)
def test_the_quick_look_sees_every_change(box: Sandbox, change: Callable[[Path], object]) -> None:
    change(box.current() / "rootfs")
    assert box.appbox("--json", "status", "web").data()["drift"]
    assert "unpack " in box.appbox("apply", box.services / "web.toml").out
    assert box.appbox("--json", "status", "web").data()["drift"] == []


def test_what_a_backup_brought_back_is_no_drift(box: Sandbox) -> None:
    """Everything has other times of change then, and is as it was otherwise."""
    current = box.current()
    os.rename(current / "rootfs", current / "rootfs.old")
    subprocess.run(["cp", "-a", current / "rootfs.old", current / "rootfs"], check=True)
    shutil.rmtree(current / "rootfs.old")
    assert box.appbox("--json", "status", "web").data()["drift"] == []
    assert box.appbox("plan", box.services / "web.toml").out == "nothing to do\n"


@pytest.mark.parametrize("damage", [gone(ADDRESSES), cut(ADDRESSES), zero(ADDRESSES), folder(ADDRESSES)])
def test_addresses_come_back_from_the_bundles(box: Sandbox, damage: Damage) -> None:
    before = box.appbox("--json", "status", "db").data()["addresses"]
    broken = place(box, ADDRESSES).read_bytes()
    damage(box)
    assert "state lost (its address is not written down)" in box.appbox("status").out
    # A new service is not given what another one has, though the file does not say so.
    box.manifest("new", network={"mode": "bridge"})
    box.appbox("apply", box.services / "new.toml")
    found = [box.appbox("--json", "status", name).data()["addresses"] for name in ("db", "new")]
    assert found[0] == before != found[1]
    box.appbox("apply", box.services)
    assert broken.decode().splitlines()[-1] in place(box, ADDRESSES).read_text()
    box.settled()


def test_nobody_is_given_the_ids_of_a_service_that_the_file_lost(box: Sandbox) -> None:
    owner = box.current().stat().st_gid
    box.appbox("remove", "web")
    torn = "# torn\n[ranges\n"
    place(box, RANGES).write_text(torn)
    box.manifest("new")
    plan = box.appbox("plan", box.services / "new.toml").out
    assert f"note: /{RANGES} cannot be used (" in plan
    assert "it is made anew from the bundles" in plan
    box.appbox("apply", box.services / "new.toml")
    assert box.current("new").stat().st_gid not in {owner, box.current("db").stat().st_gid}
    assert f'"web" = {owner}\n' in place(box, RANGES).read_text()
    assert place(box, f"{RANGES}.broken").read_text() == torn
    box.appbox("apply", box.services)
    assert box.current().stat().st_gid == owner
    assert (box.current() / "data/data/precious").read_text() == "1"


def test_ranges_that_contradict_the_bundles_are_put_right(box: Sandbox) -> None:
    path = place(box, RANGES)
    right = path.read_text()
    path.write_text(right.replace(str(BASE), "X").replace(str(BASE + 65536), str(BASE)).replace("X", str(BASE + 65536)))
    assert "state wrong (other ids are written down)" in box.appbox("status").out
    assert f"note: /{RANGES} does not say what the bundles say" in box.appbox("plan", box.services).out
    box.appbox("apply", box.services)
    assert path.read_text() == right
    box.settled()


def test_a_unit_that_is_masked_stays_so(box: Sandbox) -> None:
    link(UNIT, "/dev/null")(box)
    assert box.appbox("--json", "status", "web").data()["drift"] == ["unit masked"]
    result = box.appbox("apply", box.services / "web.toml", code=1)
    assert "the unit is masked: it leads to /dev/null; systemctl unmask web.service" in result.err
    assert os.readlink(place(box, UNIT)) == "/dev/null"
    folder(UNIT)(box)
    assert "unit is a directory" in box.appbox("status").out
    assert "it is a directory" in box.appbox("apply", box.services / "web.toml", code=1).err


def test_what_others_add_to_a_unit_is_noted_and_left_alone(box: Sandbox) -> None:
    added = box.root / "etc/systemd/system/web.service.d/more.conf"
    added.parent.mkdir()
    added.write_text("[Service]\nNice=5\n")
    (box.root / "etc/conf.d").mkdir()
    (box.root / "etc/conf.d/web").write_text("rc_need=net\n")
    boot = box.root / "etc/runlevels/boot"
    boot.mkdir(parents=True)
    (boot / "web").symlink_to("/etc/init.d/web")
    notes = [
        "/etc/systemd/system/web.service.d adds to its unit",
        "/etc/conf.d/web changes what its init script does",
        "it is in the runlevel boot, too",
    ]
    found = box.appbox("--json", "status", "web").data()
    assert found["notes"] == notes
    assert found["drift"] == []
    assert box.appbox("plan", box.services).out == "nothing to do\n"
    gone(UNIT)(box)
    assert f"note: {notes[0]}" in box.appbox("plan", box.services).out
    box.appbox("apply", box.services)
    assert added.exists()


def test_garbage_in_records_of_jobs_costs_their_last_run_only(box: Sandbox) -> None:
    box.manifest("job", service={"schedule": "daily"})
    box.appbox("apply", box.services)
    jobs = box.root / "var/lib/appbox/jobs"
    jobs.mkdir(exist_ok=True)
    (jobs / "job").write_bytes(b"\xff" * 9000)
    assert box.appbox("--json", "status", "job").data()["last_status"] == ""
    (jobs / "job").unlink()
    (jobs / "job").mkdir()
    assert box.appbox("--json", "status", "job").data()["last_status"] == ""
    shutil.rmtree(jobs)
    jobs.write_text("")
    assert box.appbox("--json", "status", "job").data()["last_status"] == ""


def test_a_damaged_service_does_not_hide_the_others(box: Sandbox) -> None:
    shutil.rmtree(box.containers / "web-1.0")
    (box.containers / "web-1.0").write_text("")
    found = box.appbox("--json", "verify", code=1).data()["services"]
    assert [one["ok"] for one in found] == [True, False]
    assert "the directory is taken" in found[1]["problem"]
    assert [one["state"] for one in box.appbox("--json", "status").data()] == ["stopped", "broken"]
    (box.containers / "web-1.0").unlink()
    (box.containers / "web-1.0").mkdir()
    box.appbox("apply", box.services)
    box.settled()


@pytest.fixture
def states(tmp_path: Path) -> Iterator[Path]:
    """Return a directory in which runtimes keep the states of their containers."""
    paths.use({"CONTAINER_STATES": str(tmp_path)})
    yield tmp_path
    paths.use()


def test_a_container_of_somebody_else_is_told_from_ours(states: Path) -> None:
    assert runc.foreign("web") == ""
    (states / "runc/web").mkdir(parents=True)
    state = states / "runc/web/state.json"
    for text, words in (
        ("", ""),
        ("{", "unknown"),
        ("[]", "unknown"),
        ("{}", "unknown"),
        ('{"config": {"labels": ["bundle=/opt/containers/web-1.0"]}}', ""),
        ('{"config": {"labels": ["x=1", "bundle=/opt/containers/webs-1.0"]}}', "/opt/containers/webs-1.0"),
        ('{"config": {"labels": ["bundle=/home/me/bundle"]}}', "/home/me/bundle"),
        ('{"config": {"labels": 3}}', "unknown"),
    ):
        state.write_text(text)
        assert runc.foreign("web") == words
        assert runc.running("web") is None
