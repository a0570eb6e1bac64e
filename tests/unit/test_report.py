"""Plans in words and as JSON."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from appbox import actions, report, sizes
from appbox.actions import Action, RenderConfig
from appbox.errors import AppboxError, HostLacks, Locked, ManifestError, Problem, Refused, Unavailable, UsageError
from appbox.plan_values import Observed, Plan, ServicePlan
from tests.ground.pure import build

EVERY: tuple[Action, ...] = (
    actions.AllocateRange("web", "r", 65536, 65536),
    actions.AllocateAddress("web", "r", "appbox", "10.89.0.0/24", ("10.89.0.2", "fd00:89::2")),
    actions.TellPeers("web", "r", "appbox"),
    actions.Unpack("web", "r", "web-1", "docker.io/x@sha256:0", "sha256:0", 1, 1_500_000),
    actions.Publish("web", "r", "web-1", ".replaced/web-1@0"),
    actions.MakeVolume("web", "r", "data", "/opt/containers/web-1/data/data", "/data", "0:0", True),
    RenderConfig("web", "r", "web-1", 2, ("config.json", "run"), False, "-a\n+b\x1b[2J\n"),
    actions.InstallUnit("web", "r", "/etc/init.d/web", True, "+new\n"),
    actions.RemoveUnit("web", "r", "/etc/cron.d/appbox-web"),
    actions.Enable("web", "r", False),
    actions.Stop("web", "r"),
    actions.Switch("web", "r", "web-0", "web-1"),
    actions.CarryData("web", "r", "web-0", "web-1"),
    actions.Start("web", "r"),
    actions.Restart("web", "r"),
    actions.KeepWrites("web", "r", ".replaced/web-1@0", "web-1"),
    actions.Schedule("web", "r", True),
    actions.Replace("web", "r", ("/etc/web.conf",)),
    actions.Reload("web", "r"),
)


def plan(*found: Action, notes: tuple[str, ...] = ()) -> Plan:
    return Plan((ServicePlan(build(), Observed(), found, notes),))


def test_every_kind_of_action_is_here() -> None:
    assert {type(action).__name__ for action in EVERY} == {kind.__name__ for kind in Action.__subclasses__()}
    assert len({action.kind for action in EVERY}) == len(EVERY)


def test_actions_say_what_they_do() -> None:
    assert [action.sentence for action in EVERY] == [
        "give it the user ids 65536 to 131071 of the host",
        "give it 10.89.0.2 and fd00:89::2 in the network appbox (10.89.0.0/24)",
        "tell the running services of the network appbox who is in it",
        "unpack docker.io/x@sha256:0 (1 layer, 1.5 MB) for web-1",
        "publish /opt/containers/web-1, keeping what is there as /opt/containers/.replaced/web-1@0",
        "make volume data in /opt/containers/web-1/data/data for /data, owner 0:0, filled from the image",
        "write config.json, run as generation 2 of web-1",
        "write /etc/init.d/web",
        "delete /etc/cron.d/appbox-web",
        "do not start it at boot",
        "stop it",
        "switch /opt/containers/web from web-0 to web-1",
        "move the volumes from web-0/data to web-1/data",
        "start it",
        "restart it",
        "move what it wrote from .replaced/web-1@0/upper to web-1/upper",
        "start it at its times from now on",
        "replace /etc/web.conf in the running container",
        "reload it",
    ]


def test_actions_as_json_have_all_that_they_hold() -> None:
    data = report.plan_data(plan(*EVERY, notes=("n",)))
    assert json.loads(json.dumps(data)) == json.loads(json.dumps(data, sort_keys=True))
    assert (data["changes"], data["notes"]) == (True, {"web": ["n"]})
    for action, described in zip(EVERY, data["actions"], strict=True):
        assert set(described) == {"kind", "sentence", *(f.name for f in fields(action))}
    assert report.plan_data(plan()) == {"changes": False, "actions": [], "notes": {}, "host_notes": []}


def test_a_plan_for_people() -> None:
    text = report.plan_text(plan(*EVERY[6:8], notes=("mind the gap",)))
    assert text.splitlines() == [
        "web 1.0",
        "  write config.json, run as generation 2 of web-1 (r)",
        "      -a",
        "      +b\\x1b[2J",
        "  write /etc/init.d/web (r)",
        "  note: mind the gap",
    ]
    assert "      +new" in report.plan_text(plan(*EVERY[6:8]), verbosity=1)
    assert report.plan_text(plan(notes=("unseen",))) == "nothing to do\n"


def test_plan_and_apply_use_the_same_words() -> None:
    for action in EVERY:
        assert f"  {report.sentence(action)}\n" in report.plan_text(plan(action))


def test_the_closing_line() -> None:
    nothing, one = plan(), plan(EVERY[7], notes=("n\x07",))
    assert report.summary(list(nothing.services), nothing) == "nothing to do\n"
    assert report.summary(list(one.services), one) == "done: 1 service changed\n"
    two = Plan((*one.services, *one.services, *nothing.services))
    assert report.summary(list(two.services), two) == "done: 2 services changed\n"
    assert report.notes_text(one) == "web: note: n\\x07\n"
    assert report.notes_text(nothing) == ""


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0.0 kB"), (99_999, "100.0 kB"), (100_000, "0.1 MB"), (10**9, "1000.0 MB")]
)
def test_sizes_are_of_a_readable_scale(size: int, text: str) -> None:
    assert sizes.megabytes(size) == text


def test_errors_have_the_exit_codes_of_the_contract() -> None:
    kinds: tuple[type[AppboxError], ...] = (
        *(AppboxError, UsageError, ManifestError),
        *(Unavailable, Refused, Locked, HostLacks),
    )
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 5, 6, 7, 8]


def test_an_error_is_one_sentence() -> None:
    error = Refused("broke", where="/x", why="it\x1b[31m", hint="mend it")
    assert str(error) == "/x: broke: it\\x1b[31m; mend it"
    assert error.as_dict() == {"exit": 6, "what": "broke", "where": "/x", "why": "it\x1b[31m", "hint": "mend it"}
    problems = [Problem("b", 2, "k", "m"), Problem("a", 9, "", "m", "h"), Problem("b", 1, "k", "m")]
    assert str(ManifestError(problems)) == "a:9: m; h\nb:1: k: m\nb:2: k: m"
