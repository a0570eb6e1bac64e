"""What was measured, as text: lines of cells from figures, and tables from lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.measure import Costs

MEGABYTE = 1_000_000
PULLS = ("image", "with", "minimum", "median", "processor", "memory", "beside appbox", "budget")
FIGURES = ("what", "measured", "budget")
OURS = "appbox"


@dataclass(frozen=True, slots=True)
class Pull:
    """An image, measured with everyone who can take it. `ratios`: how many times as long as ours another one has to
    take at least; `memory`: the bytes that ours may need at most."""

    name: str
    what: str
    costs: Mapping[str, Costs | None]
    ratios: Mapping[str, float] = field(default_factory=dict)
    memory: int = 120 * MEGABYTE

    def ratio(self, name: str) -> float:
        """Return how many times as long as ours `name` takes, by the shortest run of each; 0 when it cannot."""
        ours, other = self.costs.get(OURS), self.costs.get(name)
        return other.minimum / ours.minimum if ours and other else 0.0

    def missed(self) -> Iterator[str]:
        """Yield the budgets that do not hold, as sentences."""
        ours = self.costs.get(OURS)
        if ours and ours.memory > self.memory:
            yield f"{self.name}: {megabytes(ours.memory)} of memory, and {megabytes(self.memory)} are allowed"
        for name, least in self.ratios.items():
            if ours and self.costs.get(name) and self.ratio(name) < least:
                yield f"{self.name}: {name} takes {self.ratio(name):.1f} times as long, which should be {least:g} times"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, and what it may be at most; `allowed` is None where it is only told. Times are milliseconds."""

    what: str
    measured: float
    allowed: float | None
    unit: str = "ms"

    def missed(self) -> Iterator[str]:
        """Yield the sentence that it is too much, if it is."""
        if self.allowed is not None and self.measured > self.allowed:
            yield f"{self.what}: {amount(self.measured, self.unit)}, and {amount(self.allowed, self.unit)} are allowed"


def amount(value: float, unit: str) -> str:
    """Return a number with its unit; whole numbers and large ones without a fraction."""
    digits = f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:,.1f}"
    return f"{digits} {unit}".rstrip()


def megabytes(count: int) -> str:
    """Return bytes as megabytes."""
    return f"{count / MEGABYTE:,.0f} MB"


def pull_lines(pull: Pull) -> list[tuple[str, ...]]:
    """Return a line for each who was measured; the image stands in the first."""
    lines = [_pull_line(pull, name, costs) for name, costs in pull.costs.items()]
    return [(pull.what if number == 0 else "", *line) for number, line in enumerate(lines)]


def _pull_line(pull: Pull, name: str, costs: Costs | None) -> tuple[str, ...]:
    if costs is None:
        return (name, "n/a", "", "", "", "", "")
    times = (f"{costs.minimum:.2f} s", f"{costs.median:.2f} s", f"{costs.processor:.2f} s", megabytes(costs.memory))
    if name == OURS:
        over = costs.memory > pull.memory
        return (name, *times, "", mark(f"{megabytes(pull.memory)}", over))
    least = pull.ratios.get(name)
    budget = "" if least is None else mark(f"{least:g} ×", 0 < pull.ratio(name) < least)
    return (name, *times, f"{pull.ratio(name):.1f} ×" if pull.costs.get(OURS) else "", budget)


def mark(text: str, missed: bool) -> str:
    """Return a budget's text, marked when it does not hold."""
    return f"{text} MISSED" if missed else text


def figure_line(figure: Figure) -> tuple[str, ...]:
    """Return the line of a figure."""
    allowed = "" if figure.allowed is None else amount(figure.allowed, figure.unit)
    return (figure.what, amount(figure.measured, figure.unit), mark(allowed, any(figure.missed())))


def terminal(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns stand below each other."""
    rows = [headings, *lines]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "".join("  ".join(row).rstrip() + "\n" for row in cells)


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return the table for a README."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
