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


def replace(text: str, fresh: str) -> str:
    """Return a README with another section between its marks; ValueError when it has no such place."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        msg = f"there have to be one {BEGIN} and then one {END}"
        raise ValueError(msg)
    return f"{before}{BEGIN}\n{fresh.strip()}\n{END}{after}"
