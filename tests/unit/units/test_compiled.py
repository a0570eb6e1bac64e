"""Compiled templates: taken where they fit the source, made anew where they do not, and never needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_RENDER = """
import jinja2.environment, sys
from appbox.units import compiled, render
from appbox.units.model import RunScript
made = []
plain = jinja2.environment.Environment._compile
jinja2.environment.Environment._compile = lambda *all: made.append(1) or plain(*all)
if "without" not in sys.argv:
    compiled.use()
sys.stdout.write(f"{len(made)}\\n" + render.run_script(RunScript("web", "1.0", base=1879048192)))
sys.stderr.write(str(len(made)))
"""


def render(place: Path, *words: str, **more: str) -> tuple[int, str]:
    """Render a run script in a process of its own; return how many templates were compiled, and the text."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPYCACHEPREFIX": str(place), **more}
    done = subprocess.run(
        [sys.executable, "-c", _RENDER, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return int(done.stderr), done.stdout


def kept(place: Path) -> list[Path]:
    return sorted(place.rglob("template_*.pyc"))


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a place where Python and appbox have left what they compiled, and what was rendered then."""
    place = tmp_path_factory.mktemp("cache")
    number, text = render(place)
    assert number > 0
    assert kept(place)
    return place, text


def test_templates_are_compiled_once_and_say_the_same_ever_after(warm: tuple[Path, str]) -> None:
    place, text = warm
    before = {path: path.stat().st_mtime_ns for path in kept(place)}
    assert render(place) == (0, text)
    assert {path: path.stat().st_mtime_ns for path in kept(place)} == before
    assert render(place, "without")[1] == text


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "zeros", "other"])
def test_what_is_torn_or_made_from_something_else_is_made_anew(warm: tuple[Path, str], damage: str) -> None:
    place, text = warm
    for path in kept(place):
        data = path.read_bytes()
        path.write_bytes(
            {
                "empty": b"",
                "cut": data[: len(data) // 2],
                "flipped": data[:-50] + bytes(byte ^ 1 for byte in data[-50:]),
                "zeros": bytes(len(data)),
                "other": data[:4] + bytes(8) + data[12:],
            }[damage]
        )
    number, again = render(place)
    assert (number > 0, again) == (True, text)
    assert render(place) == (0, text)


def test_who_does_not_want_or_may_not_write_goes_without(tmp_path: Path, warm: tuple[Path, str]) -> None:
    number, text = render(tmp_path, PYTHONDONTWRITEBYTECODE="1")
    assert (number > 0, text) == (True, warm[1])
    assert not list(tmp_path.iterdir())
    blocked = tmp_path / "file"
    blocked.touch()
    number, text = render(blocked)
    assert (number > 0, text) == (True, warm[1])
