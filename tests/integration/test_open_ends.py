"""What a killed run had still to do is done by whoever comes next; what has no way back, or is refused, is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from appbox.store import journal
from appbox.store.journal import Entry, Place
from appbox.store.root import Root
from tests.ground.sandbox import Sandbox, members

pytestmark = pytest.mark.root


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    box = Sandbox(tmp_path)
    for tag in ("2.0", "3.0"):
        box.image(tag, *members(tag.encode()))
    return box


def versions(box: Sandbox) -> list[str]:
    return sorted(path.name for path in box.containers.glob("web-*"))


@pytest.mark.parametrize("own", [True, False])
def test_old_versions_go_when_an_interrupted_upgrade_is_finished(box: Sandbox, own: bool) -> None:
    box.apply()
    box.apply(version="2.0", upgrade={"keep": 9})
    box.apply(version="3.0", upgrade={"keep": 9})
    box.apply(version="3.0", upgrade={"keep": 2})
    assert versions(box) == ["web-1.0", "web-2.0", "web-3.0"]
    note = Entry("web", Place("web-2.0", 2), Place("web-3.0", 4), running=False, made=True, upgrade=True)
    with Root(str(box.root)) as root:
        journal.write(root, note)
    if own:
        out = box.apply(version="3.0", upgrade={"keep": 2}).out
        assert "remove the old version web-1.0; data of its own stays (upgrade.keep is 2)" in out
    else:
        other = box.appbox("apply", box.manifest("other", volumes=None))
        assert "web: an interrupted change to web-3.0 was finished" in other.err
    # The version that it came from is the way back, and stays.
    assert versions(box) == ["web-2.0", "web-3.0"]
    assert not (box.root / "var/lib/appbox/journal.json").exists()
    box.settled()


def test_a_generation_without_a_record_is_no_way_back_and_that_is_said_before(box: Sandbox) -> None:
    box.apply()
    (box.current() / ".generations/1/service.json").unlink()
    told = "note: there is no way back to generation 1, which an older appbox made without a record of it"
    plan = box.appbox("plan", box.manifest(version="2.0"))
    assert told in plan.out
    data = box.appbox("--json", "plan", box.manifest(version="2.0")).data()
    assert data["services"][0]["data"]["rollback"] == told.removeprefix("note: ")
    assert told in box.appbox("apply", box.manifest(version="2.0")).out
    lines = box.appbox("history", "web").out.splitlines()
    assert [line.rpartition("  ")[2] for line in lines[1:]] == ["current", "no way back, it has no record"]
    states = [one["state"] for one in box.appbox("--json", "history", "web").data()["generations"]]
    assert states == ["current", "lost"]
    assert "has no generation before the current one" in box.appbox("rollback", "web", code=1).err
    assert "does not say all that is needed" in box.appbox("rollback", "web", "--to", "@1", code=1).err
    box.apply(version="3.0")
    assert told not in box.appbox("plan", box.manifest(version="2.0")).out


def test_a_lost_link_to_the_current_version_is_made_again_and_nothing_else(box: Sandbox) -> None:
    box.apply()
    box.apply(version="2.0")
    (box.containers / "web").unlink()
    assert box.actions(version="2.0") == ["switch"]
    assert "point /opt/containers/web to web-2.0 (no version is current)" in box.apply(version="2.0").out
    assert [one["state"] for one in box.appbox("--json", "history", "web").data()["generations"]] == [
        "current",
        "target",
    ]
    box.settled()


def test_a_volume_of_an_image_that_comes_back_is_filled_from_it(box: Sandbox) -> None:
    box.apply()
    box.image("1.0", *members(b"moved"))
    box.apply(volumes={})
    shutil.rmtree(box.current() / "data/data")
    box.appbox("rollback", "web")
    assert (box.current() / "data/data/version").read_bytes() == b"1"
    assert not box.debris()


def test_what_is_pruned_makes_room_for_what_takes_its_place(box: Sandbox) -> None:
    (box.root / "srv/web").mkdir(parents=True)
    network = {"mode": "bridge", "ports": ["8080:80"]}
    for name, tables in (
        ("old", {"network": network, "volumes": None}),
        ("above", {"service": {"requires": ["old"]}, "volumes": None}),
        ("store", {"volumes": {"v": {"path": "/v", "source": "/srv/web/inner"}}}),
        ("calm", {"volumes": None}),
    ):
        box.manifest(name, **tables)
    box.appbox("apply", box.services)
    for name in ("old", "above", "store", "calm"):
        (box.services / f"{name}.toml").unlink()
    new = {"v": {"path": "/v", "source": "/srv/web"}}
    box.manifest("new", network=network, volumes=new)
    assert "port 8080/tcp of the host is taken by the service old" in box.appbox("apply", box.services, code=3).err
    plan = box.appbox("--json", "plan", "--prune", box.services).data()
    done = [(action["service"], action["kind"]) for action in plan["actions"]]
    at = done.index(("new", "unpack"))
    assert [name for name, _ in done[:at]] == ["store", "above", "old"]
    assert done[-1] == ("calm", "remove-service")
    assert "is gone, and new cannot start beside it" in plan["actions"][0]["reason"]
    said = box.appbox("apply", "--prune", box.services).out
    assert said.index("stop and remove it (old-1.0)") < said.index("unpack") < said.index("(calm-1.0)")
    assert sorted(path.name for path in box.containers.iterdir() if path.is_symlink()) == ["new"]
