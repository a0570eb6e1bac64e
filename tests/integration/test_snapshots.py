"""Snapshots of data and what restores them, by the command line, on real file systems."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.store import files, snapshots
from tests.ground.disks import KINDS, described, disk
from tests.ground.sandbox import Sandbox

pytestmark = pytest.mark.root

SHELF = ".snapshots/web"


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with disk(tmp_path_factory.mktemp("snapshots"), request.param) as mounted:
        yield mounted


@pytest.fixture
def box(place: Path) -> Iterator[Sandbox]:
    path = place / "box"
    path.mkdir()
    yield Sandbox(path)
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.fixture
def simple(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def volume(box: Sandbox) -> Path:
    return box.current() / "data/data"


def ids(box: Sandbox) -> list[str]:
    return [one["id"] for one in box.appbox("--json", "snapshot", "--list", "web").data()["snapshots"]]


def taken(box: Sandbox, *words: str) -> str:
    found: str = box.appbox("--json", "snapshot", *words, "web").data()["id"]
    return found


def test_data_is_kept_restored_and_restored_back(box: Sandbox) -> None:
    box.apply()
    before = described(volume(box))
    first = taken(box, "--note", "before the import")
    (volume(box) / "version").write_text("changed")
    (volume(box) / "more").write_text("new")
    changed = described(volume(box))
    done = box.appbox("--json", "restore", "web", first).data()
    assert described(volume(box)) == before
    assert done["restored"] == first
    assert ids(box) == [first, done["aside"]]
    box.settled()
    assert described(box.containers / SHELF / first / "data/data") == before
    assert described(box.containers / SHELF / done["aside"] / "data/data") == changed
    assert "what is there before" not in box.appbox("restore", "web", done["aside"]).err
    assert described(volume(box)) == changed
    shown = box.appbox("snapshot", "--list").out.splitlines()
    assert shown[0].split() == ["NAME", "ID", "AGE", "SIZE", "ON", "DISK", "VERSION", "STATE", "WHY"]
    assert shown[1].endswith("stopped  by hand: before the import")
    assert f"what was there before {first} was restored" in shown[2]
    one = box.appbox("--json", "snapshot", "--list").data()["snapshots"][0]
    assert (one["version"], one["generation"], one["uid_base"], one["why"]) == ("1.0", 1, 0x70000000, "by hand")
    assert one["apparent"] == 1 + 5 + 7
    assert one["age"] < 60
    box.appbox("snapshot", "web", "--purge", first)
    assert first not in ids(box)
    assert (box.containers / ".snapshots").stat().st_mode & 0o777 == 0o700
    assert not box.debris()


def test_a_removed_service_keeps_its_snapshots_until_it_is_purged(simple: Sandbox) -> None:
    simple.apply()
    first = taken(simple)
    assert "kept its snapshots in /opt/containers/.snapshots/web" in simple.appbox("remove", "web").out
    assert ids(simple) == [first]
    assert simple.appbox("restore", "web", first, code=1).err.startswith("appbox: web: is not installed")
    simple.apply()
    simple.appbox("restore", "web", first)
    simple.appbox("remove", "web", "--purge")
    assert simple.appbox("--json", "snapshot", "--list").data() == {"snapshots": []}
    assert os.listdir(simple.containers / ".snapshots") == []


def test_what_cannot_be_kept_or_restored_is_said(simple: Sandbox) -> None:
    host = {"path": "/srv", "source": str(simple.place / "elsewhere")}
    tmpfs = {"path": "/tmp/x", "tmpfs": True}
    assert "is not installed" in simple.appbox("snapshot", "web", code=1).err
    assert "no service is named" in simple.appbox("snapshot", code=2).err
    assert "leave one out" in simple.appbox("snapshot", "--stop", "--live", "web", code=2).err
    simple.apply(name="bare", volumes={"t": tmpfs})
    assert "has no data of its own: volume t, which is in memory" in simple.appbox("snapshot", "bare", code=1).err
    simple.apply(volumes={"data": {"path": "/seed"}, "t": tmpfs, "host": host})
    said = simple.appbox("snapshot", "web").out
    assert "not in it: volume t, which is in memory\n" in said
    assert f"not in it: volume host, which is {host['source']} on the host\n" in said
    assert len(ids(simple)) == 1
    assert "there is no snapshot x" in simple.appbox("restore", "web", "x", code=1).err
    assert "there is no snapshot ../web" in simple.appbox("snapshot", "--purge", "../web", "web", code=1).err


def test_another_format_and_other_ids_are_refused(simple: Sandbox) -> None:
    simple.apply()
    first = taken(simple)
    table = simple.containers / SHELF / first / "snapshot.toml"
    text = table.read_text()
    table.write_text(text.replace('data_format = ""', 'data_format = "7"'))
    error = simple.appbox("restore", "web", first, code=1).err
    assert "its data has the format 7, and web 1.0 says none" in error
    simple.appbox("restore", "--force", "web", first)
    table.write_text(text.replace("uid_base = 1879048192", "uid_base = 200000"))
    error = simple.appbox("restore", "web", first, code=6).err
    assert "its files have the ids 200000 to 265535, the service 1879048192 to 1879113727" in error
    table.write_text("torn = ")
    assert "snapshot.toml cannot be read" in simple.appbox("restore", "web", first, code=1).err
    assert "snapshot.toml cannot be read" in simple.appbox("snapshot", "--list").out


def test_ids_of_one_second_differ_and_scheduled_ones_rotate(simple: Sandbox) -> None:
    simple.apply()
    made = [taken(simple), *(taken(simple, "--scheduled") for _ in range(4))]
    assert len(set(made)) == 5
    with files.directory(str(simple.containers)) as fd:
        assert snapshots.rotate(fd, "web", 2) == made[1:3]
    assert ids(simple) == [made[0], *made[3:]]


@pytest.mark.parametrize("init", ["systemd", "openrc"])
def test_the_clock_is_told_when_to_take_them(tmp_path: Path, init: str, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Sandbox(tmp_path, init=init)
    wanted = {"schedule": "*-*-* 03:30", "keep": 2}
    (box.root / "usr/sbin").mkdir(parents=True)
    (box.root / "usr/sbin/cron").touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "a b/appbox")])
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b/appbox").touch(0o755)
    assert "cannot stand in a unit" in box.apply(snapshots=wanted, code=3).err
    (tmp_path / "appbox").touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "appbox")])
    box.apply(snapshots=wanted)
    command = f"{tmp_path}/appbox --quiet snapshot --scheduled web"
    if init == "systemd":
        units = box.root / "etc/systemd/system"
        assert f"ExecStart={command}\n" in (units / "web:snapshot.service").read_text()
        assert "OnCalendar=*-*-* 03:30" in (units / "web:snapshot.timer").read_text()
        assert "Wants=web:snapshot.timer\n" in (units / "web.service").read_text()
    else:
        assert f"30 3 * * * root {command}\n" in (box.root / "etc/cron.d/appbox-web").read_text()
    box.settled()
    made = [taken(box), *(taken(box, "--scheduled") for _ in range(3))]
    assert ids(box) == [made[0], *made[2:]]
    assert (
        "a timed job is not running"
        in box.apply(snapshots=wanted, service={"schedule": "daily", "restart": "no"}, code=3).err
    )
    box.apply()
    assert not list((box.root / "etc").rglob("*snapshot*"))
    assert not list((box.root / "etc").rglob("appbox-web"))
    box.settled()
