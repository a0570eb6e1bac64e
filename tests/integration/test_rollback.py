"""Going back: generations, their data, moved tags, what stands in the way; and which old versions are removed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from appbox.store import journal
from appbox.store.journal import Entry, Place
from appbox.store.root import Root
from tests.ground.sandbox import Sandbox, members

pytestmark = pytest.mark.root

COPY: dict[str, Any] = {"upgrade": {"data": "copy"}}


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    box = Sandbox(tmp_path)
    for tag in ("2.0", "3.0", "4.0"):
        box.image(tag, *members(tag.encode()))
    return box


def states(box: Sandbox) -> list[tuple[int, str, str]]:
    found = box.appbox("--json", "history", "web").data()["generations"]
    return [(one["number"], one["version"], one["state"]) for one in found]


def put(box: Sandbox, name: str) -> None:
    (box.current() / "data/data" / name).write_text(name)


def has(box: Sandbox, *names: str) -> set[str]:
    return {name for name in names if (box.current() / "data/data" / name).exists()}


def test_version_unit_and_configuration_go_back_as_one(box: Sandbox) -> None:
    box.apply(config={"/c": {"text": "one"}})
    before = box.snapshot()
    put(box, "a")
    box.apply(version="2.0", config={"/c": {"text": "two"}}, service={"enable": False}, volumes={"v": {"path": "/v"}})
    assert states(box) == [(2, "2.0", "current"), (1, "1.0", "target")]
    shown = box.appbox("rollback", "--plan", "web").out
    assert "switch /opt/containers/web from web-2.0 to web-1.0 (it is gone back to)" in shown
    assert "+Description=web 1.0 (appbox)" in shown
    assert states(box)[0] == (2, "2.0", "current")
    result = box.appbox("--json", "rollback", "web").data()
    assert result["done"] is True
    assert [a["kind"] for a in result["services"][0]["actions"]][:2] == ["switch", "carry-data"]
    assert states(box) == [(2, "2.0", ""), (1, "1.0", "current")]
    after = box.snapshot()
    for path in ("etc/systemd/system/web.service", "opt/containers/web-1.0/.current"):
        assert after[path] == before[path]
    assert (box.current() / "config/c").read_text() == "one"
    assert (box.root / "etc/systemd/system/multi-user.target.wants/web.service").is_symlink()
    assert has(box, "a") == {"a"}
    error = box.appbox("rollback", "web", code=1).err
    assert error == "appbox: web: has no generation before the current one; appbox history web lists what there is\n"
    # The same manifest again is no new generation, and the way back is there again.
    box.apply(version="1.0", config={"/c": {"text": "one"}})
    assert states(box)[-1] == (1, "1.0", "current")


def test_generations_of_configuration_alone(box: Sandbox) -> None:
    for text in ("one", "two", "three"):
        box.apply(config={"/c": {"text": text}})
    assert states(box) == [(3, "1.0", "current"), (2, "1.0", "target"), (1, "1.0", "")]
    box.appbox("rollback", "web")
    assert (box.current() / "config/c").read_text() == "two"
    box.appbox("rollback", "web")
    assert (box.current() / "config/c").read_text() == "one"
    box.appbox("rollback", "web", "--to", "@3")
    assert (box.current() / "config/c").read_text() == "three"
    box.settled()
    # What came after a rollback goes back to where that had led, not to what was left.
    box.appbox("rollback", "web", "--to", "@1")
    box.apply(config={"/c": {"text": "four"}})
    assert states(box) == [(4, "1.0", "current"), (3, "1.0", ""), (2, "1.0", ""), (1, "1.0", "target")]


def test_what_cannot_be_gone_back_to_is_said(box: Sandbox) -> None:
    assert "is not installed" in box.appbox("history", "web", code=1).err
    assert "is not installed" in box.appbox("rollback", "web", code=1).err
    box.apply()
    box.apply(version="2.0")
    for to, code, words in (
        ("9.9", 1, "has no version 9.9"),
        ("@7", 1, "has no generation @7"),
        ("@x", 2, "is no generation"),
    ):
        assert words in box.appbox("rollback", "web", "--to", to, code=code).err, to
    assert box.appbox("rollback", "web", "--to", "2.0").out == "web is at 2.0 already\n"
    assert box.appbox("--json", "rollback", "--plan", "web", "--to", "@2").data()["actions"] == []
    record = box.containers / "web-1.0/.generations/1/config.json"
    record.write_text(record.read_text() + " ")
    error = box.appbox("rollback", "web", code=1).err
    assert "generation 1 of web: was changed on disk since it was applied: config.json" in error
    (box.containers / "web-1.0/.generations/1/service.json").write_text("[")
    assert "does not say all that is needed to go back to it" in box.appbox("rollback", "web", code=1).err
    assert states(box)[0] == (2, "2.0", "current")
    box.settled()


def test_a_copy_leaves_the_old_version_its_data(box: Sandbox) -> None:
    box.apply(**COPY)
    put(box, "a")
    assert re.search(r"copy the volumes of web-1.0 \(.* kB\) to web-2.0/data", box.apply(version="2.0", **COPY).out)
    put(box, "b")
    assert (box.containers / "web-1.0/data/data/a").exists()
    box.appbox("rollback", "web")
    assert has(box, "a", "b") == {"a"}
    # What 2.0 had written is not thrown away when it gets other data.
    box.apply(version="2.0", **COPY)
    assert has(box, "a", "b") == {"a"}
    (kept,) = (box.containers / ".snapshots/web").iterdir()
    assert (kept / "data/data/b").exists()
    put(box, "c")
    box.appbox("rollback", "web", "--keep-data")
    assert has(box, "a", "c") == {"a", "c"}
    assert len(list((box.containers / ".snapshots/web").iterdir())) == 2
    assert not list(box.containers.rglob(".copied"))
    assert not box.debris()


def test_an_image_that_a_tag_meant_before_comes_back(box: Sandbox) -> None:
    for way in ("copy", "move"):
        upgrade: dict[str, Any] = {"upgrade": {"data": way}}
        box.apply(**upgrade)
        put(box, way)
        box.image("1.0", *members(b"moved" + way.encode()))
        assert ".replaced/web-1.0@" in box.apply(**upgrade).out
        put(box, "late")
        out = box.appbox("rollback", "web").out
        assert "bring /opt/containers/.replaced/web-1.0@" in out
        assert has(box, way, "late") == ({way} if way == "copy" else {way, "late"})
        (aside,) = (box.containers / ".replaced").iterdir()
        number = states(box)[0][0]
        box.appbox("rollback", "web", "--to", f"@{number}")
        assert (box.current() / "rootfs/seed/version").read_text() == f"moved{way}"
        assert has(box, way, "late") == {way, "late"}
        assert not box.debris()
        assert not list(box.containers.rglob(".copied"))
        box.settled()
        box.appbox("remove", "web", "--purge")
        box.image("1.0", *members())
        assert not aside.exists()


def test_old_versions_go_but_never_what_is_needed(box: Sandbox) -> None:
    box.apply()
    put(box, "a")
    box.apply(version="2.0")
    out = box.apply(version="3.0").out
    assert "remove the old version web-1.0; data of its own stays (upgrade.keep is 2)" in out
    assert sorted(p.name for p in box.containers.glob("web-*")) == ["web-2.0", "web-3.0"]
    box.apply(version="4.0", upgrade={"keep": 5})
    box.apply(version="1.0", upgrade={"keep": 1})
    assert sorted(p.name for p in box.containers.glob("web-*")) == ["web-1.0", "web-4.0"]  # 4.0: a rollback goes there
    assert has(box, "a") == {"a"}


def test_prune(box: Sandbox) -> None:
    keep: dict[str, Any] = {"upgrade": {"keep": 9, "data": "copy"}}
    for version in ("1.0", "2.0", "3.0", "4.0"):
        box.apply(version=version, **keep)
    put(box, "a")
    box.apply(version="4.0", upgrade={"keep": 2, "data": "copy"})
    before = box.snapshot(times=True)
    plan = box.appbox("--json", "prune", "--plan").data()
    assert box.snapshot(times=True) == before
    assert [one["directory"] for one in plan["versions"]] == ["web-1.0", "web-2.0"]
    out = box.appbox("prune").out
    assert "web: remove the old version web-1.0; its data stays" in out
    assert "data of old versions of web stays; appbox prune --purge removes it" in out
    assert (box.containers / "web-1.0/data").is_dir()
    assert not (box.containers / "web-1.0/rootfs").exists()
    size = r"\(\d+ bytes, last written \d+ .* ago\)"
    for words in ((), ("--plan",)):
        first, second, _, last = box.appbox("prune", *words).out.splitlines()
        assert first == "nothing to remove"
        assert re.fullmatch(rf"web: the data of web-1\.0 stays {size}", second)
        assert last == "data of old versions of web stays; appbox prune --purge removes it"
    left, _ = box.appbox("--json", "prune", "--plan").data()["data"]
    assert (left["directory"], left["only"], left["files"]) == ("web-1.0", True, 6)
    assert left["written"].endswith("Z")
    line = rf"\n/opt/containers/web-1\.0/data: {size[2:-2]}, of which only that is left\n"
    assert re.search(line, box.appbox("history", "web").out)
    assert left in box.appbox("--json", "history", "web").data()["data"]
    assert re.search(rf"web: delete the data of the old version web-1\.0 {size}", box.appbox("prune", "--purge").out)
    assert "web-1.0" not in box.appbox("history", "web").out
    assert sorted(p.name for p in box.containers.glob("web-*")) == ["web-3.0", "web-4.0"]
    assert states(box)[0][2] == "current"
    box.appbox("rollback", "web", "--to", "3.0")
    box.appbox("rollback", "web", "--to", "4.0")
    assert has(box, "a") == {"a"}
    assert "is not installed" in box.appbox("prune", "nope", code=1).err


def test_an_interrupted_change_is_finished_or_undone_by_the_next_command(box: Sandbox) -> None:
    box.apply()
    put(box, "a")
    box.apply(version="2.0")
    note = Entry("web", Place("web-1.0", 1), Place("web-2.0", 2), running=False, made=True)
    other = box.manifest("other", volumes=None)
    with Root(str(box.root)) as root:
        journal.write(root, note)
    (box.containers / ".staging.web").mkdir()
    result = box.appbox("apply", other)
    assert "web: an interrupted change to web-2.0 was finished" in result.err
    assert not (box.root / "var/lib/appbox/journal.json").exists()
    assert not box.debris()
    # It was about to make 3.0, which is there, and nobody has used it.
    box.apply(version="3.0", upgrade={"keep": 9})
    box.appbox("rollback", "web")
    with Root(str(box.root)) as root:
        journal.write(root, Entry("web", Place("web-2.0", 2), Place("web-3.0", 3), running=False, made=True))
    unit = box.root / "etc/systemd/system/web.service"
    unit.write_text(unit.read_text().replace("2.0", "3.0"))
    assert "web: an interrupted change to web-3.0 was undone" in box.appbox("prune").err
    assert not (box.containers / "web-3.0").exists()
    assert "web 2.0" in unit.read_text()
    assert has(box, "a") == {"a"}
    # Nobody can say what a torn journal meant; the bundles say what is there.
    (box.root / "var/lib/appbox/journal.json").write_text('{"schema": 1, "services": [{"ser')
    box.appbox("apply", box.manifest(version="2.0"))
    box.settled()


def test_history_in_words(box: Sandbox) -> None:
    box.apply()
    lines = box.appbox("history", "web").out.splitlines()
    assert lines[0].split() == ["GENERATION", "VERSION", "CREATED", "DIGEST", "DATA", "STATE"]
    assert lines[1].split()[:2] == ["1", "1.0"]
    (found,) = json.loads(box.appbox("--json", "history", "web").out)["generations"]
    assert found["created"].endswith("Z")
    assert os.path.basename(found["directory"]) == "web-1.0"
