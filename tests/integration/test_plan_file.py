"""Plans as data: their schema, plans that are written down and carried out later, manifests that are gone."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from tests.ground.sandbox import Sandbox, members

pytestmark = pytest.mark.root


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


# JSON


def test_plans_are_what_their_schema_says(box: Sandbox) -> None:
    schema = json.loads(box.appbox("schema", "plan", root=False).out)
    check = jsonschema.Draft202012Validator(schema).validate
    first = box.appbox("--json", "plan", box.manifest()).data()
    check(first)
    assert first["schema"] == 1
    (web,) = first["services"]
    assert (web["name"], web["from"], web["to"]["version"]) == ("web", None, "1.0")
    assert web["file"] == str(box.services / "web.toml")
    assert web["actions"] == first["actions"]
    check(box.appbox("--json", "apply", box.services).data())
    box.image("2.0", *members(b"2"))
    upgrade = box.appbox("--json", "plan", box.manifest(version="2.0")).data()
    check(upgrade)
    assert upgrade["services"][0]["from"]["version"] == "1.0"
    assert upgrade["services"][0]["restarts"] is False
    check(box.appbox("--json", "apply", box.services).data())
    unchanged = box.appbox("--json", "plan", box.services).data()
    check(unchanged)
    assert (unchanged["changes"], unchanged["services"][0]["actions"]) == (False, [])


def test_there_is_no_schema_of_anything_else(box: Sandbox) -> None:
    assert "there is no schema of 'x'; choose manifest or plan" in box.appbox("schema", "x", code=2, root=False).err


# Plans that are written down


@pytest.fixture
def planned(box: Sandbox) -> Path:
    """Return the plan of a changed configuration of an installed service."""
    box.apply(config={"/etc/web": {"text": "1"}})
    box.manifest(config={"/etc/web": {"text": "2"}})
    path = box.place / "web.plan"
    said = box.appbox("plan", "-o", path, "--exit-code", box.services, code=4).out
    assert f"the plan is in {path}; appbox apply {path} carries it out" in said
    return path


def test_a_plan_that_was_written_down_is_carried_out(box: Sandbox, planned: Path) -> None:
    assert stat.S_IMODE(planned.stat().st_mode) == 0o600
    box.appbox("apply", planned)
    assert (box.current() / "config/etc/web").read_text() == "2"
    box.settled()
    assert box.appbox("apply", planned).out == "nothing to do\n", "once more"
    box.appbox("rollback", "web")
    error = box.appbox("apply", planned, code=1).err
    assert "is not carried out, as it is not what was planned any more" in error
    assert "plan again: appbox plan -o " in error


def test_plan_shows_what_was_written_down(box: Sandbox, planned: Path) -> None:
    said = box.appbox("plan", box.services).out
    data = box.appbox("--json", "plan", box.services).data()
    before = box.snapshot(times=True)
    box.manifest(config={"/etc/web": {"text": "3"}})
    shown = box.appbox("plan", planned).out
    assert shown == f"{said}that is what {planned} says; appbox apply {planned} does it if nothing has changed\n"
    assert "      -1\n      +2\n" in shown.replace(" \n", "\n")
    assert "+2" not in box.appbox("-q", "plan", planned).out
    assert box.appbox("--json", "plan", planned).data() == data
    box.appbox("plan", "--exit-code", planned, code=4)
    assert "is a plan already; plan its manifests again" in box.appbox("plan", "-o", planned, planned, code=2).err
    assert "is in it already; give them to appbox plan -o" in box.appbox("plan", "--prune", planned, code=2).err
    assert "is a plan, and comes alone" in box.appbox("plan", planned, box.services, code=2).err
    missing = box.services / "none.plan"
    assert f"{missing}: cannot be read: No such file or directory" in box.appbox("plan", missing, code=1).err
    assert box.snapshot(times=True) == before


def test_a_plan_that_somebody_has_made_something_else_of_is_shown_as_text(box: Sandbox, planned: Path) -> None:
    data = json.loads(planned.read_text())
    data["plan"] = {"actions": [1], "services": [3, {"name": [], "actions": [{"sentence": {}, "diff": 5}], "data": 1}]}
    planned.write_text(json.dumps(data, indent=1))
    assert box.appbox("plan", planned).out.startswith("[] None\n  {} (None)\n")
    data["plan"] = {}
    planned.write_text(json.dumps(data, indent=1))
    assert box.appbox("plan", "--exit-code", planned).out.startswith("nothing to do\n")


def test_a_plan_of_nothing(box: Sandbox) -> None:
    box.apply()
    path = box.place / "nothing"
    box.appbox("plan", "-o", path, "--exit-code", box.services)
    assert box.appbox("apply", path).out == "nothing to do\n", "it is known by what is in it, too"


def _unit(box: Sandbox) -> None:
    path = box.root / "etc/systemd/system/web.service"
    path.write_text(path.read_text() + "# more\n")


def _manifest(box: Sandbox) -> None:
    path = box.services / "web.toml"
    path.write_text(path.read_text() + "\n")


def _another(box: Sandbox) -> None:
    box.manifest("other")


def _gone(box: Sandbox) -> None:
    (box.services / "web.toml").unlink()
    box.manifest("other")


def _stored(box: Sandbox) -> None:
    (box.current() / "config.json").write_text("{}")


def _image(box: Sandbox) -> None:
    box.image("1.0", *members(b"other"))


def _disabled(box: Sandbox) -> None:
    (box.root / "etc/systemd/system/multi-user.target.wants/web.service").unlink()


def _volume(box: Sandbox) -> None:
    (box.current() / "data/more").mkdir()


def _generation(box: Sandbox) -> None:
    box.manifest(config={"/etc/web": {"text": "3"}})
    box.appbox("apply", box.services)
    box.manifest(config={"/etc/web": {"text": "2"}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_unit, "the host has changed since: unit web.service"),
        (_manifest, "web.toml has changed since"),
        (_another, "other.toml is new"),
        (_gone, "web.toml is gone"),
        (_stored, "config.json of web-1.0"),
        (_image, "image of web"),
        (_disabled, "start at boot of web"),
        (_volume, "volumes of web"),
        (_generation, "generation of web-1.0"),
    ],
)
def test_a_plan_is_refused_when_something_changed(
    box: Sandbox, planned: Path, change: Callable[[Sandbox], None], words: str
) -> None:
    change(box)
    before = box.snapshot(times=True)
    result = box.appbox("apply", planned, code=1)
    assert words in result.err
    assert len(result.err.splitlines()) == 1
    after = box.snapshot(times=True)
    changed = [path for path in {*before, *after} if before.get(path) != after.get(path)]
    assert [path for path in changed if not path.startswith("var/cache/appbox")] == []


def test_a_plan_names_the_file_of_a_template(box: Sandbox) -> None:
    (box.services / "t.j2").write_text("1")
    box.manifest(config={"/etc/web": {"template": "t.j2"}})
    path = box.place / "x.plan"
    box.appbox("plan", "-o", path, box.services)
    (box.services / "t.j2").write_text("2")
    assert f"{box.services}/t.j2 has changed since" in box.appbox("apply", path, code=1).err


def test_secrets_are_not_in_a_plan(box: Sandbox) -> None:
    secret = box.place / "secret"
    secret.write_text("hunter2")
    box.manifest(secrets={"a": {"command": ["printf", "correct horse"]}, "b": {"file": str(secret)}})
    path = box.place / "x.plan"
    box.appbox("-v", "plan", "-o", path, box.services)
    text = path.read_text()
    assert "hunter2" not in text
    assert "correct horse" not in text


def _doctored(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no plan"),
        ("{", "is no plan: "),
        ('{"appbox_plan": 2}', "is no plan: it was not written by this version"),
        ('{"appbox_plan": 1, "appbox_plan": 1}', "is no plan: "),
        ("[" * 100_000, "is no plan: "),
        ("name = 1", "is no plan: "),
    ],
)
def test_what_is_no_plan(box: Sandbox, text: str, words: str) -> None:
    path = box.place / "x.plan"
    path.write_text(text)
    assert f"{path}: {words}" in box.appbox("apply", path, code=1).err


def test_a_plan_is_held_against_the_host_whatever_it_says(box: Sandbox, planned: Path) -> None:
    data = json.loads(planned.read_text())
    assert "web" in box.appbox("apply", _doctored(planned, plan={"actions": []}), code=1).err
    _doctored(planned, plan=data["plan"], wish={**data["wish"], "manifests": ["web.toml"]})
    assert "its manifests are not absolute paths" in box.appbox("apply", planned, code=1).err
    _doctored(planned, wish={**data["wish"], "root": "/nowhere"})
    assert "is the plan of another root: /nowhere" in box.appbox("apply", planned, code=1).err
    _doctored(planned, wish={**data["wish"], "start": "no"})
    assert "what it asks for is not known" in box.appbox("apply", planned, code=1).err
    _doctored(planned, wish=data["wish"], state={"x": "y"})
    assert "state are not names with digests" in box.appbox("apply", planned, code=1).err


def test_how_to_plan_is_said_when_planning(box: Sandbox, planned: Path) -> None:
    for option in ("--prune", "--locked", "--no-start"):
        assert "is in it already" in box.appbox("apply", option, planned, code=2).err
    assert "comes alone" in box.appbox("apply", planned, box.services, code=2).err
    assert "cannot be read" in box.appbox("apply", box.place / "no.plan", code=1).err


def test_a_plan_replaces_nothing_but_a_plan(box: Sandbox, planned: Path) -> None:
    box.appbox("plan", "-o", planned, box.services)
    manifest = box.services / "web.toml"
    assert "is there and is no plan" in box.appbox("plan", "-o", manifest, box.services, code=1).err
    link = box.place / "link"
    link.symlink_to(manifest)
    for place in (link, box.place, Path("/dev/null")):
        assert "is no regular file" in box.appbox("plan", "-o", place, box.services, code=1).err
    assert "no such file" in box.appbox("plan", "-o", box.place / "no/x", box.services, code=1).err


# Manifests that are gone


def test_prune_removes_what_came_from_the_directory(box: Sandbox) -> None:
    for name in ("a", "b", "c"):
        box.manifest(name)
    box.appbox("apply", box.services)
    (box.services / "b.toml").unlink()
    box.settled()
    plan = box.appbox("plan", "--prune", box.services).out
    assert f"stop and remove it (b-1.0); its data stays (its manifest {box.services}/b.toml is gone)" in plan
    data = box.appbox("--json", "plan", "--prune", box.services).data()
    assert [(a["kind"], a["service"]) for a in data["actions"]] == [("remove-service", "b")]
    assert (data["services"][-1]["name"], data["services"][-1]["to"]) == ("b", None)
    said = box.appbox("apply", "--prune", box.services).out
    assert said.endswith("done: 1 service removed\n")
    assert [one["name"] for one in box.appbox("--json", "status").data()] == ["a", "c"]
    assert (box.containers / "b-1.0/data/data").is_dir()
    assert box.appbox("apply", "--prune", box.services).out == "nothing to do\n"


def test_prune_leaves_what_came_from_elsewhere(box: Sandbox) -> None:
    other = box.place / "other"
    other.mkdir()
    box.manifest("a").rename(other / "a.toml")
    box.manifest("b")
    box.appbox("apply", box.services, other)
    (other / "a.toml").unlink()
    assert box.appbox("apply", "--prune", box.services).out == "nothing to do\n"


def test_a_manifest_that_moved_is_noted_and_makes_no_generation(box: Sandbox) -> None:
    other = box.place / "other"
    other.mkdir()
    box.apply(name="a")
    box.apply(name="b")
    generation = box.generation("a")
    (box.services / "a.toml").rename(other / "a.toml")
    plan = box.appbox("--json", "plan", other).data()
    assert [action["kind"] for action in plan["actions"]] == ["note-source"]
    assert plan["services"][0]["restarts"] is False
    box.appbox("apply", other)
    assert box.generation("a") == generation
    assert box.appbox("apply", "--prune", box.services).out == "nothing to do\n", "it is another directory's now"
    assert box.appbox("apply", "--prune", other).out == "nothing to do\n"
    (other / "a.toml").rename(other / "renamed.toml")
    assert "remove" not in box.appbox("apply", "--prune", other).out
    (other / "renamed.toml").unlink()
    assert "done: 1 service removed" in box.appbox("apply", "--prune", other).out, "the last one, too"


def test_prune_of_a_directory_with_a_broken_manifest(box: Sandbox) -> None:
    for name in ("a", "b"):
        box.manifest(name)
    box.appbox("apply", box.services)
    path = box.services / "b.toml"
    text = path.read_text()
    path.write_text("name = ")
    box.appbox("apply", "--prune", box.services, code=3)
    path.unlink()
    path.symlink_to("nowhere")
    assert "leads nowhere: nothing is pruned then" in box.appbox("apply", "--prune", box.services, code=1).err
    path.unlink()
    box.appbox("apply", "--prune", box.services / "a.toml", code=2)
    path.write_text(text)
    box.settled()


def test_prune_in_order_and_not_what_is_required(box: Sandbox) -> None:
    box.manifest("db")
    box.manifest("app", service={"requires": ["db"]})
    box.manifest("web", service={"requires": ["app"]})
    box.appbox("apply", box.services)
    (box.services / "db.toml").unlink()
    error = box.appbox("plan", "--prune", box.services, code=1).err
    assert "db: cannot be removed: app requires it: its manifest " in error
    for name in ("app", "web"):
        (box.services / f"{name}.toml").unlink()
    kinds = box.appbox("--json", "plan", "--prune", box.services).data()["actions"]
    assert [action["service"] for action in kinds] == ["web", "app", "db"]
    box.appbox("apply", "--prune", box.services)
    assert box.appbox("--json", "status").data() == []


def test_a_plan_of_a_removal_is_carried_out(box: Sandbox) -> None:
    for name in ("a", "b"):
        box.manifest(name)
    box.appbox("apply", box.services)
    (box.services / "b.toml").unlink()
    path = box.place / "x.plan"
    box.appbox("plan", "--prune", "-o", path, box.services)
    (box.services / "a.toml").rename(box.services / "b.toml")
    assert "b.toml is new" in box.appbox("apply", path, code=1).err
    (box.services / "b.toml").rename(box.services / "a.toml")
    box.appbox("apply", path)
    assert os.listdir(box.containers / "b-1.0") != []
    assert [one["name"] for one in box.appbox("--json", "status").data()] == ["a"]
