"""The performance section of the README: put in between two marks, everything else left as it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench import table
from tests.bench.table import Figure, Pull

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def section(pulls: Sequence[Pull], figures: Sequence[Figure], host: str, versions: Sequence[str]) -> str:
    """Return the section's text."""
    parts = [f"Measured on {host}. {', '.join(versions)}.\n"]
    if pulls:
        parts.append(table.markdown(table.PULLS, [line for pull in pulls for line in table.pull_lines(pull)]))
    if figures:
        parts.append(table.markdown(table.FIGURES, [table.figure_line(figure) for figure in figures]))
    return "\n".join(parts)


def replace(text: str, fresh: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """Return a README with another section between its marks; ValueError when it has no such place."""
    first, last = marks
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end or first in rest or last in before + after:
        msg = f"there have to be one {first} and then one {last}"
        raise ValueError(msg)
    return f"{before}{first}\n{fresh.strip()}\n{last}{after}"
