"""How data gets from one version to another, and which data a version must not get."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appbox import plan as plans
from appbox import plan_data, reconcile
from appbox.actions import CopyData
from appbox.desired_values import Desired
from appbox.errors import AppboxError
from appbox.planning import Planned, Prepared
from tests.ground.pure import FACTS, HEAD, build, image, locked
from tests.ground.simulated import Host

MOVE = ["unpack", "render-config", "publish", "install-unit", "stop", "switch", "carry-data", "start"]
COPY = ["unpack", "render-config", "publish", "install-unit", "stop", "copy-data", "switch", "start"]


def service(version: str = "1.0", upgrade: str = "", content: str = "1") -> Desired:
    tables = f'[volumes.data]\npath = "/data"\n[upgrade]\n{upgrade}\n'
    return build(tables, head=HEAD.replace("1.0", version), of=image(content))


def installed(upgrade: str = "", cloning: str = "copy") -> Host:
    host = Host(cloning=cloning)
    host.carry_out(host.plan(service(upgrade=upgrade)))
    return host


def kinds(host: Host, desired: Desired) -> list[str]:
    return [action.kind for action in host.plan(desired).actions]


@pytest.mark.parametrize(
    ("policy", "cloning", "expected"),
    [
        ("", "copy", MOVE),
        ("", "reflink", COPY),
        ("", "subvolume", COPY),
        ('data = "snapshot"', "reflink", COPY),
        ('data = "copy"', "reflink", COPY),
        ('data = "move"', "reflink", MOVE),
        ('data = "share"', "reflink", MOVE),
    ],
)
def test_the_way_is_what_the_manifest_says_or_the_file_system_can(
    policy: str, cloning: str, expected: list[str]
) -> None:
    plan = installed(policy, cloning).plan(service("2.0", policy))
    assert [action.kind for action in plan.actions] == expected
    for action in plan.actions:
        if isinstance(action, CopyData):
            assert (action.origin, action.how) == ("web-1.0", "copy" if "copy" in policy else "clone")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_move_of_which_only_the_note_is_left_is_ended_first(version: str) -> None:
    moving = 'data = "move"'
    host = installed(moving)
    host.carry_out(host.plan(service("2.0", moving)))
    host.versions["web-2.0"] = replace(host.versions["web-2.0"], carry="web-2.0")
    plan = host.plan(service(version, moving))
    assert plan.actions[0].sentence == "end the move of the volumes to web-2.0/data"
    assert "make-volume" not in [action.kind for action in plan.actions]
    host.carry_out(plan)
    assert list(host.data) == [f"web-{version}"]


def test_a_rollback_finds_what_the_way_promised() -> None:
    for policy, back in (('data = "copy"', ["stop", "switch"]), ('data = "move"', ["stop", "switch", "carry-data"])):
        host = installed(policy)
        old = host.versions["web-1.0"]
        host.carry_out(host.plan(service("2.0", policy)))
        assert host.versions["web-2.0"].meta["previous"] == 1
        plan = host.roll_back("web-1.0", old)
        assert [action.kind for action in plan.actions] == ["install-unit", *back, "start"]
        host.carry_out(plan)
        assert host.data["web-1.0"] == {"data"}


def test_data_that_is_in_the_way_is_kept() -> None:
    host = installed('data = "copy"')
    old = host.versions["web-1.0"]
    host.carry_out(host.plan(service("2.0", 'data = "copy"')))
    host.carry_out(host.roll_back("web-1.0", old))
    plan = host.plan(service("2.0", 'data = "copy"'))
    assert "put-aside" in [action.kind for action in plan.actions]
    host.carry_out(plan)
    assert host.aside == [frozenset({"data"})]


FIRST = 'data_format = "a"'
NEXT = 'data_format = "b"\nmigrate = ["up"]'


def test_formats_guard_data() -> None:
    host = installed(FIRST)
    assert host.formats == {"web-1.0": "a"}
    for wanted in ('data_format = "b"', ""):
        with pytest.raises(AppboxError, match=r"its data has the format a, and 2\.0"):
            host.plan(service("2.0", wanted))
    assert kinds(host, service("2.0", f'data = "share"\n{FIRST}'.replace('"a"', '"b"')))[-3:] == [
        *("carry-data", "note-format", "start"),
    ]
    # auto copies when the format changes: the migration has no other way back.
    plan = host.plan(service("2.0", NEXT))
    assert [a.kind for a in plan.actions][4:8] == ["stop", "copy-data", "migrate", "switch"]
    assert not plan_data.irreversible(plan)
    old = host.versions["web-1.0"]
    host.carry_out(plan)
    assert host.formats == {"web-1.0": "a", "web-2.0": "b"}
    host.carry_out(host.roll_back("web-1.0", old))
    assert host.link == "web-1.0"


def test_the_first_format_of_data_that_another_version_wrote_is_not_guessed() -> None:
    host = installed()
    with pytest.raises(AppboxError, match=r"nobody has said which format its data has, and 2\.0 is for the format b"):
        host.plan(service("2.0", 'data_format = "b"'))
    # The version that wrote the data says what it is in: nothing is to be migrated.
    assert kinds(host, service(upgrade=NEXT))[-1] == "note-format"
    plan = host.plan(service("2.0", NEXT))
    assert {"copy-data", "migrate"} <= {action.kind for action in plan.actions}
    assert "take its data from a format that nobody noted to b: up" in [action.sentence for action in plan.actions]
    shared = [action.kind for action in host.plan(service("2.0", 'data = "share"\ndata_format = "b"')).actions]
    assert "note-format" in shared
    assert "migrate" not in shared


def test_a_migration_without_a_copy_is_asked_about() -> None:
    host = installed(FIRST)
    plan = host.plan(service("2.0", f'data = "move"\n{NEXT}'))
    assert [a.kind for a in plan.actions][4:8] == ["stop", "switch", "carry-data", "migrate"]
    assert "no copy is kept" in plan_data.irreversible(plan)
    assert plan_data.rollback(plan).startswith("no rollback brings back the data")
    planned = Planned(FACTS, (Prepared(None, locked(""), plan),))  # type: ignore[arg-type]
    asked: list[str] = []

    def answer(text: str, *, yes: bool) -> bool:
        asked.append(text)
        return yes

    reconcile._ask(planned, None)
    reconcile._ask(planned, lambda text: answer(text, yes=True))
    with pytest.raises(AppboxError, match="nothing was changed; --yes asks nothing"):
        reconcile._ask(planned, lambda text: answer(text, yes=False))
    said = "upgrade.migrate changes its data, of which no copy is kept, so that 2.0 stays even if it does not get well"
    assert asked == [f"web: {said}. Go on?"] * 2


def test_nothing_is_migrated_where_nothing_is_started() -> None:
    host = installed(FIRST)
    host.running = ""
    desired = service("2.0", NEXT)
    for live, start in ((False, True), (True, False)):
        with pytest.raises(AppboxError, match="nothing is to be started"):
            plans.diff(desired, host.observe("web-2.0"), live=live, start=start, new_range=False)


def test_a_configuration_that_first_named_the_format_can_be_undone() -> None:
    host = installed()
    silent = host.versions["web-1.0"]
    host.carry_out(host.plan(service(upgrade=FIRST)))
    assert host.formats == {"web-1.0": "a"}
    host.carry_out(host.roll_back("web-1.0", silent))
    assert host.versions["web-1.0"].generation == 1
    # Another image that says no format is kept from it as before.
    with pytest.raises(AppboxError, match=r"its data has the format a, and 2\.0 says no format"):
        host.plan(service("2.0"))


def test_data_that_is_shared_and_gets_another_format_is_asked_about() -> None:
    host = installed(FIRST)
    plan = host.plan(service("2.0", 'data = "share"\ndata_format = "b"'))
    assert "counts as of the format b from then on, and no copy is kept" in plan_data.irreversible(plan)
    assert "2.0 stays even if it does not get well" in plan_data.irreversible(plan)
    assert not plan_data.irreversible(host.plan(service("2.0", f'data = "share"\n{FIRST}')))
