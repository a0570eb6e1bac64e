"""What status and its like say of services that are not as they should be, and of those that are not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from appbox.store import failed
from appbox.store.failed import Failure
from appbox.store.root import Root
from tests.ground.sandbox import Sandbox, members

pytestmark = pytest.mark.root


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    found = Sandbox(tmp_path)
    found.image("2.0", *members(b"2"))
    found.image("3.0", *members(b"3"))
    return found


def fail(box: Sandbox, generation: int, version: str, why: str, name: str = "web") -> None:
    with Root(str(box.root)) as root:
        failed.save(
            root, name, Failure(f"{version}{why}", generation, version, "sha256:0", "2026-01-31T14:30:00Z", why)
        )


def test_what_failed_and_is_not_tried_again(box: Sandbox) -> None:
    box.apply()
    box.apply(name="db")
    fail(box, 2, "2.0", "is unhealthy")
    fail(box, 3, "2.0", "did not\nstart")
    fail(box, 4, "3.0", "is unhealthy | its log | and more of it")
    lines = box.appbox("status").out.splitlines()
    assert lines[3:] == [
        "web: 2.0 failed on 2026-01-31T14:30:00Z and is not tried again (did not; start); apply --retry tries it",
        "web: 3.0 failed on 2026-01-31T14:30:00Z and is not tried again (is unhealthy); apply --retry tries it",
    ]
    assert "\nrefused: 2.0 failed on " in box.appbox("status", "web").out
    db, web = box.appbox("--json", "status").data()
    assert db["refused"] == []
    assert [(one["version"], one["generation"], one["why"]) for one in web["refused"]] == [
        ("2.0", 2, "is unhealthy"),
        ("2.0", 3, "did not\nstart"),
        ("3.0", 4, "is unhealthy | its log | and more of it"),
    ]
    assert box.appbox("--json", "status", "web").data()["refused"] == web["refused"]
    # What was tried before the current generation is history.
    for number in range(3):
        box.apply(config={"/c": {"text": str(number)}})
    assert len(box.appbox("status").out.splitlines()) == 3


def test_a_service_whose_current_link_is_gone_is_listed_and_mended_by_apply(box: Sandbox) -> None:
    box.apply()
    box.apply(version="2.0")
    box.apply(name="web-2", version="3.0")
    (box.containers / "web").unlink()
    web, other = box.appbox("--json", "status").data()
    assert (web["name"], web["version"], web["state"], web["generation"]) == ("web", "2.0", "broken", 2)
    assert (other["name"], other["state"]) == ("web-2", "stopped")
    said = "/opt/containers/web is gone, which says that web-2.0 is current; apply its manifest"
    assert box.appbox("status").out.splitlines()[-1] == f"web: {said}"
    assert f"problem: {said}\n" in box.appbox("status", "web").out
    (box.containers / "web-2").unlink()
    assert [one["state"] for one in box.appbox("--json", "status").data()] == ["broken", "broken"]
    box.manifest(version="2.0")
    box.appbox("apply", box.services)
    assert [one["state"] for one in box.appbox("--json", "status").data()] == ["stopped", "stopped"]
    assert os.readlink(box.containers / "web") == "web-2.0"


def test_what_a_removal_left_is_no_service(box: Sandbox) -> None:
    box.apply()
    box.appbox("remove", "web")
    assert box.appbox("status").out == "nothing is installed\n"
    assert box.appbox("--json", "status").data() == []
    told = "web: is not installed: it was removed, and its data is kept in /opt/containers/web-1.0; apply its manifest"
    for words in (("status",), ("history",), ("snapshot",), ("export", "-o", box.place / "x.tar"), ("prune",)):
        assert box.appbox(*words, "web", code=1).err == f"appbox: {told}\n"


def test_strange_things_among_the_containers(box: Sandbox) -> None:
    box.apply()
    (box.containers / "file").write_text("")
    (box.containers / "lost+found").mkdir()
    (box.containers / "x-1").mkdir()
    for name, path in (("loop-1", ".current"), ("link-1", ".generations/1/bundle.toml")):
        place = box.containers / name / path
        place.parent.mkdir(parents=True)
        place.symlink_to(place)
        if path != ".current":
            (box.containers / name / ".current").symlink_to(".generations/1")
    (box.containers / "dangling").symlink_to("nowhere")
    assert [one["name"] for one in box.appbox("--json", "status").data()] == ["web"]


def test_a_name_that_nearly_is_one(box: Sandbox) -> None:
    box.apply(name="valkey")
    for words in (("status",), ("history",), ("rollback",), ("snapshot",), ("prune",), ("snapshot", "--list")):
        assert box.appbox(*words, "vakley", code=1).err == "appbox: vakley: is not installed; did you mean valkey?\n"
    assert box.appbox("status", "x", code=1).err == "appbox: x: is not installed; appbox status lists what is\n"


def test_lists_of_nothing(box: Sandbox) -> None:
    assert box.appbox("status").out == "nothing is installed\n"
    assert box.appbox("snapshot", "--list").out == "there are no snapshots\n"
    box.apply(volumes=None)
    assert box.appbox("snapshot", "--list", "web").out == "there are no snapshots\n"
    assert box.appbox("snapshot", "web", code=1).err == "appbox: web: has no data of its own: it has no volumes\n"


def test_what_nobody_has_counted_is_not_nothing(box: Sandbox) -> None:
    box.apply()
    (listed,) = json.loads(box.appbox("--json", "status").out)
    assert (listed["data_bytes"], listed["data_files"]) == (-1, -1)
    one = box.appbox("--json", "status", "web").data()
    assert (one["data_bytes"], one["data_files"]) == (13, 6)


def test_a_service_without_volumes_is_not_said_to_have_some(box: Sandbox) -> None:
    box.apply(volumes=None)
    plan = box.appbox("plan", box.manifest(version="2.0", volumes=None)).out
    assert "move the directory for volumes, of which it has none, from web-1.0 to web-2.0" in plan
    assert "move the volumes" not in plan
    assert "a rollback takes the data along" not in plan
    box.appbox("apply", box.services)
    assert [one["data"] for one in box.appbox("--json", "history", "web").data()["generations"]] == [False, False]
    # The first volume of a service comes with a version, and is one.
    assert "move the volumes from" in box.appbox("plan", box.manifest(version="3.0")).out


def test_a_rollback_speaks_of_generations_where_there_is_no_manifest(box: Sandbox) -> None:
    box.apply()
    box.apply(version="2.0")
    plan = box.appbox("rollback", "--plan", "web").out
    assert "(the unit is not that of generation 1)" in plan
    assert "manifest" not in plan


def test_what_is_left_of_a_removal_without_data_goes_with_prune(box: Sandbox) -> None:
    box.apply()
    box.appbox("remove", "web")
    box.apply(version="1.0", upgrade={"keep": 1})
    (left,) = (box.containers / ".replaced").iterdir()
    assert f"web: remove the old version .replaced/{left.name}\n" in box.appbox("prune", "web").out
    assert not left.exists()
    box.settled()
