"""The performance section: put between its marks, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import readme
from tests.bench.measure import Cost, Costs
from tests.bench.readme import BEGIN, END
from tests.bench.table import Figure, Pull

README = Path(__file__).parents[3] / "README.md"


def test_only_what_is_between_the_marks_changes() -> None:
    text = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert readme.replace(text, "new\n") == f"above\n{BEGIN}\nnew\n{END}\nbelow\n"
    assert readme.replace(readme.replace(text, "new"), "new") == readme.replace(text, "new")


@pytest.mark.parametrize(
    "text",
    ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}", f"{END}{BEGIN}{END}"],
)
def test_a_readme_without_exactly_one_place_is_left_alone(text: str) -> None:
    with pytest.raises(ValueError, match="there have to be one"):
        readme.replace(text, "new")


def test_the_readme_has_the_place() -> None:
    assert "new figures" in readme.replace(README.read_text(encoding="utf-8"), "new figures")


def test_the_section_says_what_on_with_what_and_both_tables() -> None:
    pull = Pull("one", "one layer", {"appbox": Costs((Cost(0.5, 0.6, 80_000_000),))})
    text = readme.section([pull], [Figure("start", 5, 10)], "2 × a processor; 2026-01-02", ["appbox 1", "podman 4"])
    assert "2 × a processor; 2026-01-02" in text
    assert "appbox 1, podman 4" in text
    assert "| one layer | appbox | 0.50 s | 0.50 s | 0.60 s | 80 MB |  | 120 MB |\n" in text
    assert "| start | 5 ms | 10 ms |\n" in text
