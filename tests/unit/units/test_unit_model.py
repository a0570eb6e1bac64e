"""Values of units: nothing but identifiers, integers and paths made of them gets in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.units import files, model, openrc, render, systemd
from appbox.units.model import RestartLimit, RunScript, StopSignal, Unit

HOSTILE = [
    "",
    "a b",
    "a\nExecStart=/bin/sh",
    "a\r",
    "$(id)",
    "a;b",
    "%n",
    "a\\",
    "é",
    "../a",
    "a/b",
    "A",
    "-a",
    "a'",
    "`id`",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("key", ["name", "requires", "after", "wants"])
def test_a_unit_takes_no_name_that_is_none(key: str, text: str) -> None:
    values: dict[str, Any] = {"name": "web", key: text if key == "name" else (text,)}
    with pytest.raises(ValueError, match="that a unit can carry"):
        Unit(version="1", **values)


@pytest.mark.parametrize("text", ["", "1 0", "1\n", "$x", "1/2", "-1", ".1", "1%", "é", "1" * 129])
def test_a_version_is_a_tag(text: str) -> None:
    for make in (Unit, RunScript):
        with pytest.raises(ValueError, match="not a version"):
            make("web", text)


@pytest.mark.parametrize(
    "text", ["", "opt", "/", "/a//b", "/a/", "/a/../b", "/a b", "/a\n", "/a:b", "/a,b", "/a%b", "/é"]
)
def test_a_place_for_bundles_needs_no_quoting(text: str) -> None:
    for make in (Unit, RunScript):
        with pytest.raises(ValueError, match="not a path"):
            make("web", "1", bundles=text)


@pytest.mark.parametrize("name", ["TERM", "SIG", "SIGTERM;id", "sigterm", "SIGRTMIN+333", "15"])
def test_a_signal_has_its_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a signal"):
        StopSignal(name, 15)


@pytest.mark.parametrize("number", [0, 65, -1, True])
def test_a_signal_has_a_number(number: int) -> None:
    with pytest.raises(ValueError, match="not a signal number"):
        StopSignal("SIGTERM", number)


@pytest.mark.parametrize("values", [{"restart_delay": -1}, {"stop_timeout": 86_401}, {"restart": "sometimes"}])
def test_numbers_and_policies_are_bounded(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"restart delay|stop timeout|restart policy"):
        Unit("web", "1", **values)


@pytest.mark.parametrize(("count", "seconds"), [(0, 1), (1, 0), (10_001, 1)])
def test_a_limit_is_bounded(count: int, seconds: int) -> None:
    with pytest.raises(ValueError, match="restart"):
        RestartLimit(count, seconds)


@pytest.mark.parametrize("values", [{"base": -1}, {"base": 2**32}, {"runtime": "run c"}])
def test_a_script_takes_no_other_values(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a"):
        RunScript("web", "1", **values)


def test_paths_that_need_quoting_stay_out_of_the_unit() -> None:
    unit = Unit("web", "1", mounts_for=("/srv/b", "/srv/a", "/srv/ä", "/srv/c d", "/srv/a", "/x%n", "/y\n", "/"))
    assert unit.writable_mounts == ("/srv/a", "/srv/b")


def test_a_stop_takes_at_least_a_second() -> None:
    assert [Unit("web", "1", stop_timeout=seconds).stop_seconds for seconds in (0, 1, 90)] == [1, 1, 90]


def test_a_delay_may_keep_the_restarts_below_their_limit() -> None:
    assert Unit("web", "1", restart_delay=20, restart_limit=RestartLimit(5, 60)).never_too_often
    assert not Unit("web", "1", restart_delay=12, restart_limit=RestartLimit(5, 60)).never_too_often


@pytest.mark.parametrize(
    ("signal", "statuses"),
    [
        (StopSignal(), (143,)),
        (StopSignal("SIGINT", 2), (130, 143)),
        (StopSignal("SIGKILL", 9), (143,)),
        (StopSignal("SIGRTMIN+3", 37), (143, 165)),
    ],
)
def test_an_end_as_told_is_a_success(signal: StopSignal, statuses: tuple[int, ...]) -> None:
    assert model.success_statuses(signal) == statuses


def test_every_file_says_whose_it_is() -> None:
    unit = Unit("web", "1")
    for text in (systemd.render(unit)[0].text, openrc.render(unit)[0].text, render.run_script(RunScript("web", "1"))):
        assert files.owner(text) == "web"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#!/bin/sh\n",
        "[Unit]\n# Made by appbox for the service web; appbox apply writes it anew.\n",
        "\n# Made by appbox for the service web; appbox apply writes it anew.\n",
        "# Made by appbox for the service ../web; appbox apply writes it anew.\n",
        "# Made by appbox for the service web; appbox apply writes it anew. Not.\n",
        "# Made by appbox for the service web; appbox apply writes it anew.\r\n",
    ],
)
def test_a_foreign_file_has_no_owner(text: str) -> None:
    assert files.owner(text) is None


@given(st.text(max_size=200))
def test_any_text_may_be_asked_for_its_owner(text: str) -> None:
    assert files.owner(text) is None
    assert files.owner(files.marker("web") + "\n" + text) == "web"
