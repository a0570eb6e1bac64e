"""Plans that are written down: text in, values out, and what differs."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from appbox import plan_file
from appbox.errors import AppboxError
from appbox.plan_file import PlanFile, Wish
from appbox.plan_values import Observed, Plan, ServicePlan
from appbox.store.installed import Installed, Stored
from tests.ground.pure import FACTS, build

A, B = "a" * 64, "b" * 64
FILE = PlanFile(
    Wish(("/s",), "/r", "openrc", prune=True), {"/s/a.toml": A}, {"unit x": A}, {"actions": [{"kind": "k"}]}
)


def test_what_is_written_is_read() -> None:
    text = plan_file.text(FILE)
    assert text.startswith(plan_file.MARK)
    assert plan_file.parse(text, "x") == FILE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"appbox_plan": 2}, "this version"),
        ({"more": 1}, "this version"),
        ({"files": []}, "files are not names with digests"),
        ({"files": {"/x": "A" * 64}}, "files are not names with digests"),
        ({"state": {"x": 1}}, "state are not names with digests"),
        ({"plan": []}, "it holds no plan"),
        ({"wish": {}}, "what was asked for"),
        ({"wish": {"manifests": []}}, "absolute paths"),
        ({"wish": {"manifests": ["a"]}}, "absolute paths"),
        ({"wish": {"manifests": ["/a\0"]}}, "absolute paths"),
        ({"wish": {"manifests": ["/" + "a" * 5000]}}, "absolute paths"),
        ({"wish": {"root": "r"}}, "is not known"),
        ({"wish": {"init": "upstart"}}, "is not known"),
        ({"wish": {"prune": 1}}, "is not known"),
        ({"wish": {"command": "x"}}, "what was asked for"),
    ],
)
def test_what_is_none(changes: dict[str, object], words: str) -> None:
    data = json.loads(plan_file.text(FILE))
    for key, value in changes.items():
        partly = key == "wish" and isinstance(value, dict) and value
        data[key] = {**data[key], **value} if partly and isinstance(value, dict) else value
    with pytest.raises(AppboxError, match=words):
        plan_file.parse(json.dumps(data).encode(), "x")


def test_what_is_no_json() -> None:
    for text in (b"", b"\xff", b"[]", b"{", b'{"a": NaN}', b"[" * 100_000):
        with pytest.raises(AppboxError, match="x: is no plan"):
            plan_file.parse(text, "x")


def test_what_differs_is_said() -> None:
    def said(**changes: object) -> list[str]:
        return list(plan_file.differences(FILE, replace(FILE, **changes)))  # type: ignore[arg-type]

    assert said() == []
    assert said(files={"/s/a.toml": B}) == ["/s/a.toml has changed since"]
    assert said(files={}) == ["/s/a.toml is gone"]
    assert said(files={**FILE.files, "/s/b.toml": A}) == ["/s/b.toml is new"]
    assert said(state={"unit x": B, "y": A}) == ["the host has changed since: unit x, y"]
    generation = {**FILE.state, "generation of a-1": B, "run of a-1": B, "config.json of a-1": B, "run of b-1": B}
    assert said(state=generation) == ["the host has changed since: generation of a-1, run of b-1"]
    # What follows from a changed file, or is only looked at where something is to be done, is not said beside it.
    follows = {**FILE.state, "newest generation of a": B, "what the manifest of a comes to here": B}
    assert said(state={**follows, "unit x": B}) == ["the host has changed since: unit x"]
    assert said(files={"/s/a.toml": B}, state=follows) == ["/s/a.toml has changed since"]
    assert said(state={**FILE.state, "newest generation of a": B}) == [
        "the host has changed since: newest generation of a"
    ]
    other = {"actions": [{"kind": "other", "sentence": "stop it"}]}
    assert said(plan=other) == ["what would be done is not the same: stop it instead of ?"]
    assert said(plan={"actions": []}) == ["what would be done is not the same: nothing instead of ?"]
    assert said(plan={"actions": "x"}) == ["what would be done is not the same: nothing instead of ?"]


def fingerprint(observed: Observed) -> dict[str, str]:
    return plan_file.fingerprint(Plan((ServicePlan(build(), observed, ()),)), FACTS.for_templates())


def test_a_running_service_may_go_on_writing_its_data() -> None:
    found = [fingerprint(Observed(data=frozenset({"a"}), data_size=size)) for size in (1, 2)]
    assert found[0] == found[1]


def test_every_part_of_what_was_found_has_a_name() -> None:
    names = {field.name for field in fields(Observed)}
    assert names == {*plan_file._WORDS, *plan_file._ELSEWHERE}


def test_every_part_of_what_was_found_counts() -> None:
    installed = Installed("web", "1.0", "web-1.0", 1, {}, {"run": Stored(b"r", 0o755, (0, 0))})
    before = Observed(current=installed, units={"/etc/systemd/system/web.service": "u"}, data=frozenset({"a", "b"}))
    changes = {
        "unit web.service": {"units": {"/etc/systemd/system/web.service": "v"}},
        "container of web": {"running": "web-1.0"},
        "volumes of web": {"data": frozenset({"a"})},
        "run of web-1.0": {"current": replace(installed, files={"run": Stored(b"s", 0o755, (0, 0))})},
        "generation of web-1.0": {"current": replace(installed, generation=2)},
        "timer of web": {"armed": True},
        "place of the data of web": {"kept": "web-0"},
    }
    was = fingerprint(before)
    assert was == fingerprint(before)
    assert was == fingerprint(replace(before, data=frozenset({"b", "a"})))
    for name, change in changes.items():
        now = fingerprint(replace(before, **change))  # type: ignore[arg-type]
        assert {key for key in {*was, *now} if was.get(key) != now.get(key)} == {name}
    again = fingerprint(replace(before, current=replace(installed, written=5, visible_written=6)))
    assert was == again, "when something was written is not what it is"
