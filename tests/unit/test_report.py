"""Plans in words and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from appbox import plan_data, report, sizes
from appbox.actions import Action, RemoveService
from appbox.errors import AppboxError, HostLacks, Locked, ManifestError, Problem, Refused, Unavailable, UsageError
from appbox.host.facts import Abilities
from appbox.oci.runtimes import Runtime
from appbox.outcome import Outcome, exit_code, first_error
from appbox.plan_values import Observed, Plan, Removal, ServicePlan
from appbox.planning import Planned
from appbox.store.installed import Installed
from tests.ground.every_action import EVERY
from tests.ground.pure import FACTS, build

REPLACED = "/opt/containers/.replaced/web-1"


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
        "go back to generation 2 of web-1",
        f"bring {REPLACED}@0 back as web-1, keeping what is there as {REPLACED}@1",
        "keep the volumes in web-1/data as a snapshot",
        "clone the volumes of web-0 to web-1/data; a rollback finds those of web-0 as they are now",
        "run upgrade.before in it: sh -c 'echo a'",
        "take its data from format 1 to 2: migrate",
        "note that its data has the format 2",
        "remove the old version web-0; data of its own stays",
        "note that its manifest is /etc/services/web.toml",
        "write the image's manifest and configuration to web-1/.image again",
        "stop and remove it (web-1); its data stays",
    ]


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


@pytest.mark.parametrize("verbosity", [-1, 0, 1])
def test_a_plan_that_was_written_down_reads_as_it_did(verbosity: int) -> None:
    installed = Installed("web", "0", "web-0", 3, {"image": {"digest": "d"}})
    old = replace(installed, name="old")
    removal = Removal(old, "/s/old.toml", RemoveService("old", "r", "old-0"))
    service = ServicePlan(build(), Observed(current=installed, running="web-0"), EVERY, ("a note",))
    whole = Plan((service, ServicePlan(build(), Observed(), ())), ("of the host",), (removal,))
    recorded = json.loads(json.dumps(plan_data.plan_data(whole)))
    text = report.recorded_text(recorded, verbosity=verbosity)
    assert text == report.plan_text(whole, verbosity=verbosity)
    assert "  note: a note\n" in text
    assert text.endswith("note: of the host\n")
    assert report.recorded_text(json.loads(json.dumps(plan_data.plan_data(plan())))) == "nothing to do\n"


def test_what_is_known_against_a_runtime_is_no_part_of_a_plan() -> None:
    runtime = Runtime("runc", (1, 1, 15))
    planned = Planned(replace(FACTS, abilities=Abilities(programs=frozenset(), runtime=runtime)), (), mended=("m",))
    assert planned.plan.notes == ("m",)
    assert "lacks the fixes of CVE-2025-31133" in planned.runtime_note
    assert Planned(FACTS, ()).runtime_note == ""


def test_plan_and_apply_use_the_same_words() -> None:
    for action in EVERY:
        assert f"  {report.sentence(action)}\n" in report.plan_text(plan(action))


def test_a_plan_says_what_its_users_notice() -> None:
    stopped = Observed(running="web-0")
    text = report.plan_text(Plan((ServicePlan(build(), stopped, (EVERY[10], EVERY[13])),)))
    assert text.splitlines()[-1] == "  it is stopped, for which it has 10 s, and then starts again"


def test_the_closing_line() -> None:
    unchanged, done = Outcome("a", "unchanged"), Outcome("b", "done")
    assert report.summary([unchanged]) == "nothing to do\n"
    assert report.summary([]) == "nothing to do\n"
    assert report.summary([unchanged, done]) == "done: 1 service changed\n"
    assert report.summary([done, done, unchanged]) == "done: 2 services changed\n"
    assert report.summary([done, Outcome("c", "removed")]) == "done: 1 service changed, 1 service removed\n"


def test_what_became_of_each_is_said_when_not_all_is_well() -> None:
    failed = Outcome("b", "failed", Refused("broke\x1b", where="/x"))
    found = [Outcome("a", "done"), failed, Outcome("c", "not begun", why="it requires b, which failed")]
    assert report.summary([*found, Outcome("d", "unchanged")]).splitlines() == [
        "a: done",
        "b: failed: /x: broke\\x1b",
        "c: not begun: it requires b, which failed",
        "d: nothing to do",
        "1 service changed, 1 service failed, 1 service not begun",
    ]


def test_how_a_run_ends() -> None:
    refused, lacks = Outcome("a", "failed", Refused("r")), Outcome("b", "failed", HostLacks("h"))
    assert exit_code([Outcome("c", "done")]) == 0
    assert exit_code([Outcome("c", "done"), refused, refused]) == 6
    assert exit_code([refused, lacks]) == 1
    assert first_error([Outcome("c", "done"), lacks, refused]) is lacks.error
    assert refused.as_dict()["error"] == {"exit": 6, "what": "r", "where": "", "why": "", "hint": ""}


def test_notes_of_what_changes() -> None:
    assert report.notes_text(plan(EVERY[7], notes=("n\x07",))) == "web: note: n\\x07\n"
    assert report.notes_text(plan()) == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1_000, "1.0 kB"), (99_999, "100.0 kB")),
        *((100_000, "0.1 MB"), (10**9 - 1, "1000.0 MB"), (10**9, "1.0 GB"), (25 * 10**10, "250.0 GB")),
    ],
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
