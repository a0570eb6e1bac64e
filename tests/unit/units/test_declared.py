"""Units that say what they were made from: exactly that is read back, and no other text is taken."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.units import declared, openrc, systemd
from appbox.units.model import Check, RestartLimit, StopSignal, Unit, When

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
PATHS = st.from_regex(r"(/[A-Za-z0-9_][A-Za-z0-9._-]{0,8}){1,4}", fullmatch=True)
LIMITS = st.builds(RestartLimit, st.integers(1, 10_000), st.integers(1, 86_400))
TIMES = st.builds(When, st.sampled_from(["*-*-* 03:00:00", "daily", "Mon..Fri *-*-1~3", "*/5 * * * *"]))
CHECKS = st.builds(
    Check,
    st.sampled_from(["exec", "http", "https", "tcp"]),
    st.integers(1, 99),
    st.integers(1, 99),
    st.integers(1, 99),
    st.integers(0, 99),
    st.sampled_from(["restart", "stop", "none"]),
    LIMITS,
    st.integers(1, 65_535),
)
UNITS = st.builds(
    Unit,
    name=NAMES,
    version=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
    restart=st.sampled_from(["no", "on-failure"]),
    restart_delay=st.integers(0, 86_400),
    restart_limit=LIMITS,
    stop_signal=st.builds(StopSignal, st.sampled_from(["SIGINT", "SIGRTMIN+3"]), st.integers(1, 64)),
    stop_timeout=st.integers(0, 86_400),
    requires=st.lists(NAMES, max_size=3).map(tuple),
    after=st.lists(NAMES, max_size=3).map(tuple),
    wants=st.lists(NAMES, max_size=3).map(tuple),
    network=st.booleans(),
    mounts_for=st.lists(st.one_of(PATHS, st.text()), max_size=3).map(tuple),
    check=st.none() | CHECKS,
    notify=st.booleans(),
    schedule=st.none() | TIMES,
    cron=st.none() | TIMES,
    crontab=st.booleans(),
    enable=st.booleans(),
    reload=st.booleans(),
    pids=st.booleans(),
    snapshots=st.none() | TIMES,
    snapshots_cron=st.none() | TIMES,
    program=PATHS,
    bundles=PATHS,
    runs=PATHS,
    rootless=st.booleans(),
    user=st.from_regex(r"[a-z_][a-z0-9_-]{0,31}", fullmatch=True),
    uid=st.integers(1, 2**32 - 2),
)
UNIT = Unit("web", "1.0", user="alice", uid=1000, rootless=True, check=Check("exec"), schedule=When("daily"))
DATA = json.loads(declared.line(UNIT).removeprefix("# "))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def said(data: Any) -> str:
    return f"[Unit]\n# {json.dumps(data, sort_keys=True)}\n"


@given(UNITS)
def test_what_a_unit_declares_is_read_back_exactly(unit: Unit) -> None:
    line = declared.line(unit)
    assert line.isascii()
    assert line.startswith("# {")
    assert line.splitlines(keepends=True) == [line]
    assert declared.unit_of(f"[Unit]\nDescription=x\n{line}") == unit


@pytest.mark.parametrize("render", [systemd.render, openrc.render])
def test_units_that_run_as_a_user_declare_themselves(render: Any) -> None:
    first, *_ = render(UNIT)
    assert declared.unit_of(first.text) == UNIT
    own, *_ = render(Unit("web", "1.0"))
    with pytest.raises(ValueError, match="does not say"):
        declared.unit_of(own.text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "[Unit]\n",
        "#",
        "# {",
        "# {}",
        "# []",
        "# null",
        "# {" + '"a":[' * 4000,
        "# " + '{"a":' * 3000,
        declared.line(UNIT)[2:],
        " " + declared.line(UNIT),
        "#" + declared.line(UNIT)[2:],
        declared.line(UNIT) + "touch /run/evil\n",
        declared.line(UNIT).rstrip("\n") + " ",
        declared.line(UNIT).rstrip("\n") + "\r\n",
        declared.line(UNIT).replace(": ", ":"),
        declared.line(UNIT).replace('{"after"', '{"after": ["x"], "after"'),
        said({**DATA, "mounts_for": ["/" + "a" * 17_000]}),
        said({key: value for key, value in DATA.items() if key != "uid"}),
        said({**DATA, "more": 1}),
        said({**DATA, "name": "a\nExecStart=/bin/sh"}),
        said({**DATA, "user": "../root"}),
        said({**DATA, "uid": 0}),
        said({**DATA, "uid": 1000.0}),
        said({**DATA, "enable": 1}),
        said({**DATA, "network": "yes"}),
        said({**DATA, "requires": "abc"}),
        said({**DATA, "requires": {"a": 1}}),
        said({**DATA, "mounts_for": [1]}),
        said({**DATA, "schedule": {}}),
        said({**DATA, "schedule": {"text": "daily\n", "more": 1}}),
        said({**DATA, "schedule": "daily"}),
        said({**DATA, "restart_limit": {"count": 5}}),
        said({**DATA, "stop_signal": {"name": "SIGTERM; id", "number": 15}}),
        said({**DATA, "check": {"kind": "exec", "limit": {"count": 1, "seconds": 1}}}),
        said({**DATA, "check": {}}),
        said({**DATA, "check": False}),
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        declared.unit_of(text)


@given(st.sampled_from(sorted(DATA)), JSON)
def test_a_value_of_strangers_is_refused_or_rendered_as_it_stands(key: str, value: Any) -> None:
    text = said({**DATA, key: value})
    try:
        found = declared.unit_of(text)
    except ValueError:
        return
    assert json.loads(json.dumps(asdict(found))) == {**DATA, key: value}
    if found.user:
        for render in (systemd.render, openrc.render):
            first, *_ = render(found)
            assert declared.unit_of(first.text) == found


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_arbitrary_text_is_refused(text: str) -> None:
    for candidate in (text, f"# {text}", f"# {{{text}}}\n"):
        with pytest.raises(ValueError, match=r"."):
            declared.unit_of(candidate)


def test_whose_a_unit_is_shows_after_changes_by_hand_and_of_the_format() -> None:
    unit = replace(UNIT, user="alice")
    text = f"[Unit]\nDescription=x\n{declared.line(unit)}"
    assert declared.user_of(text) == "alice"
    assert declared.user_of(f"{text}# by hand\n#{{}}\n# {{}}\n# {{\n") == "alice"
    assert declared.user_of(text.replace('"user": ', '"more": 1, "user": ')) == "alice"
    assert declared.user_of("[Unit]\nDescription=x\n") == ""
