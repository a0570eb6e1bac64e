"""Each TOML file here is a service as `units.model` sees it, and carries what has to be rendered from it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from appbox.units import openrc, render, systemd
from appbox.units.model import RestartLimit, RunScript, StopSignal, Unit

CASES = sorted(Path(__file__).parent.glob("*.toml"))
ASSERTION = re.compile(r"^## (assert|assert-not) (\S+) (.*)$", re.MULTILINE)


def values(data: dict[str, Any], kind: type) -> dict[str, Any]:
    """Return those of the file's keys that `kind` has, as its types."""
    nouns = {"restart_limit": lambda v: RestartLimit(**v), "stop_signal": lambda v: StopSignal(**v)}
    names = {field.name for field in fields(kind)} & data.keys()
    made = {name: nouns.get(name, lambda v: v)(data[name]) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in made.items()}


def rendered(data: dict[str, Any]) -> dict[str, str]:
    unit, script = Unit(**values(data, Unit)), RunScript(**values(data, RunScript))
    return {
        "systemd": systemd.render(unit)[0].text,
        "openrc": openrc.render(unit)[0].text,
        "run": render.run_script(script),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_service_is_rendered_as_its_file_says(case: Path) -> None:
    text = case.read_text()
    found = ASSERTION.findall(text)
    files = rendered(tomllib.loads(text))
    assert {target for _, target, _ in found} == set(files)
    assert len(found) == text.count("\n## assert")
    for kind, target, line in found:
        if kind == "assert":
            assert line in files[target].split("\n"), f"{target}: {line}"
        else:
            assert line not in files[target], f"{target}: {line}"


def test_a_unit_lies_where_its_init_looks_for_it() -> None:
    unit = Unit("web", "1")
    assert (systemd.render(unit)[0].path, systemd.render(unit)[0].mode) == ("/etc/systemd/system/web.service", 0o644)
    assert (openrc.render(unit)[0].path, openrc.render(unit)[0].mode) == ("/etc/init.d/web", 0o755)
