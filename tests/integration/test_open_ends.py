"""What a killed run had still to do is done by whoever comes next; what has no way back, or is refused, is said."""

from __future__ import annotations

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
