"""Plans as JSON data, and the schema that they have."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, Literal

import jsonschema
import pytest

from appbox import actions, plan_data, plan_schema
from appbox.actions import Action, RemoveService
from appbox.outcome import Outcome
from appbox.plan_values import Observed, Plan, Removal, ServicePlan
from appbox.store.installed import Installed
from tests.ground.every_action import EVERY
from tests.ground.pure import FACTS, build

SCHEMA = plan_schema.schema()
STOP, START, RESTART = actions.Stop("web", "r"), actions.Start("web", "r"), actions.Restart("web", "r")
NOTHING = Observed()
INSTALLED = Installed("web", "0", "web-0", 3, {"manifest": {"process": {"stop_timeout": 60}}, "image": {"digest": "d"}})


def plan(*found: Action, observed: Observed = NOTHING, notes: tuple[str, ...] = ()) -> Plan:
    return Plan((ServicePlan(replace(build(), source="/s/web.toml"), observed, found, notes),))


def as_read(of: Plan, **more: object) -> Any:
    return json.loads(json.dumps({**plan_data.plan_data(of, FACTS.for_templates()), **more}))


def valid(data: Any) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(data)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("action", EVERY, ids=lambda action: action.kind)
def test_every_action_has_its_schema(action: Action) -> None:
    data = as_read(plan(action))
    valid(data)
    assert set(data["actions"][0]) == {"kind", "sentence", *(f.name for f in fields(action))}
    for key in ("kind", "sentence", "service"):
        broken = json.loads(json.dumps(data))
        del broken["actions"][0][key]
        with pytest.raises(jsonschema.ValidationError):
            valid(broken)
    data["actions"][0]["more"] = 1
    with pytest.raises(jsonschema.ValidationError):
        valid(data)


def test_whatever_commands_add_has_its_schema() -> None:
    results = [Outcome("web", "done").as_dict(), Outcome("x", "not begun", why="w").as_dict()]
    valid(as_read(plan(*EVERY), results=results, done=False, error={}, silent={}, locks={"web": ["n"]}, failed={}))
    with pytest.raises(jsonschema.ValidationError):
        valid(as_read(plan(), other=1))


def test_a_type_that_no_action_has_had_is_an_error() -> None:
    assert plan_schema._type(int | None) == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert plan_schema._type(Literal["a", "b"]) == {"enum": ["a", "b"]}
    with pytest.raises(TypeError, match="no schema for"):
        plan_schema._type(dict[str, int])


def test_a_plan_has_all_that_its_actions_hold() -> None:
    data = as_read(plan(*EVERY, notes=("n",)))
    assert (data["schema"], data["changes"], data["notes"]) == (1, True, {"web": ["n"]})
    (web,) = data["services"]
    assert web["actions"] == data["actions"]
    assert [action["kind"] for action in data["actions"]] == [action.kind for action in EVERY]
    assert (web["file"], web["from"], web["to"]["version"]) == ("/s/web.toml", None, "1.0")
    assert data["facts"]["init"] == "systemd"


def test_a_plan_of_nothing() -> None:
    data = plan_data.plan_data(plan())
    assert (data["changes"], data["actions"], data["notes"], data["host_notes"]) == (False, [], {}, [])
    valid(json.loads(json.dumps(data)))


def test_a_removal() -> None:
    removal = Removal(INSTALLED, "/s/web.toml", RemoveService("web", "r", "web-0"))
    data = as_read(Plan((), (), (removal,)))
    valid(data)
    (web,) = data["services"]
    assert web["from"] == {"version": "0", "digest": "d", "generation": 3}
    assert (web["to"], web["restarts"], web["downtime"]) == (None, False, "is stopped for good")
    assert [action["kind"] for action in data["actions"]] == ["remove-service"]


RUNNING = Observed(current=INSTALLED, running="web-0")
COPY = actions.CopyData("web", "r", "web-0", "web-1", "copy")
OTHER = actions.Start("app", "it requires web, and stopped with it")


@pytest.mark.parametrize(
    ("found", "observed", "words"),
    [
        ((STOP, START), RUNNING, "is stopped, for which it has 60 s, and then starts again"),
        ((RESTART,), Observed(running="web-0"), "is stopped, for which it has 10 s, and then starts again"),
        (
            (STOP, COPY, START),
            RUNNING,
            "is stopped, for which it has 60 s, stays so while its data is copied, and then starts again",
        ),
        ((STOP,), RUNNING, "is stopped, for which it has 60 s, and is not started again"),
        ((STOP, START, OTHER), RUNNING, "is stopped, for which it has 60 s, and then starts again; so does app"),
        ((actions.Reload("web", "r"),), RUNNING, "goes on running, and is told of its new files"),
        ((), RUNNING, "goes on running"),
        ((OTHER,), RUNNING, "goes on running"),
        ((START,), Observed(), "is started"),
        ((EVERY[6],), Observed(), "does not run"),
    ],
)
def test_what_its_users_notice(found: tuple[Action, ...], observed: Observed, words: str) -> None:
    (service,) = plan(*found, observed=observed).services
    assert plan_data.downtime(service) == words
    assert plan_data.restarts(service) is words.startswith("is stopped")


@pytest.mark.parametrize(
    ("action", "how", "words"),
    [
        (COPY, "copy", "brings back the data as it was"),
        (actions.CopyData("web", "r", "web-0", "web-1", "clone"), "clone", "brings back the data as it was"),
        (actions.CarryData("web", "r", "web-0", "web-1"), "move", "takes the data along"),
        (STOP, "none", "there is no data"),
    ],
)
def test_what_a_rollback_brings_back(action: Action, how: str, words: str) -> None:
    data = as_read(plan(action))["services"][0]["data"]
    assert data["how"] == how
    assert words in data["rollback"]
