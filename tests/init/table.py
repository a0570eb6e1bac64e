"""The README's table of worlds, from what passed: python -m tests.init.table REPORT… (files of pytest's --junitxml).

A test of `test_refused` that passed is something that a user cannot have and is told in words; what failed is in no
table, and ends this with 1.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.init.worlds import WORLDS, World

REFUSED = "tests.init.test_refused"
KINDS = ("passed", "refused", "failed", "skipped")


def world_of(name: str) -> str:
    """Return the world of a test by its name with parameters, "" for one that is in none."""
    inside = name.partition("[")[2].rstrip("]")
    fitting = [world for world in WORLDS if inside == world or inside.startswith(f"{world}-")]
    return max(fitting, key=len, default="")


def outcomes(report: Path) -> Iterator[tuple[str, str]]:
    """Yield world and outcome of each test of a report; these are our own, of a program that we have started."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314
        bad = {child.tag for child in case} & {"failure", "error"}
        kind = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        if kind == "passed" and case.get("classname") == REFUSED:
            kind = "refused"
        if world := world_of(case.get("name", "")):
            yield world, kind


def counts(reports: Iterable[Path]) -> dict[str, Counter[str]]:
    """Return how many tests of each world came out how."""
    found: dict[str, Counter[str]] = {name: Counter() for name in WORLDS}
    for report in reports:
        for world, kind in outcomes(report):
            found[world][kind] += 1
    return found


def words(world: World) -> tuple[str, str, str]:
    """Return init, owner and runtime of a world as the README has them."""
    init = {"systemd": "systemd", "openrc": "OpenRC", "busybox": "OpenRC, busybox alone"}[world.init]
    return init, "a user" if world.ordinary else "root", world.runtime


def table(found: dict[str, Counter[str]]) -> str:
    """Return the table; a world in which nothing ran has no row."""
    lines = ["| init | services of | runtime | tests passed | refused in words |", "| --- | --- | --- | --- | --- |"]
    for name, counted in found.items():
        if counted:
            cells = (*words(WORLDS[name]), str(counted["passed"]), str(counted["refused"] or "–"))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(paths: Sequence[str]) -> int:
    """Print the table of some reports; return 1 when any test failed or was skipped."""
    found = counts(map(Path, paths))
    sys.stdout.write(table(found))
    bad = {name: counted["failed"] + counted["skipped"] for name, counted in found.items()}
    for name, number in bad.items():
        if number:
            sys.stderr.write(f"{name}: {number} failed or were left out\n")
    return 1 if any(bad.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
