"""The README's table of worlds, from what passed: python -m tests.init.table [--save] REPORT…

The reports are files of pytest's --junitxml. Of a test that is in several the last one counts, so that what was run
again comes after. What failed is in no table, and ends this with 1; then nothing is saved.
"""

from __future__ import annotations

import argparse
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.bench import readme
from tests.init.worlds import ROOTS_OWN, WORLDS, World

README = Path(__file__).parents[2] / "README.md"
MARKS = ("<!-- worlds:begin -->", "<!-- worlds:end -->")


def world_of(name: str) -> str:
    """Return the world of a test by its name with parameters, "" for one that is in none."""
    inside = name.partition("[")[2].rstrip("]")
    fitting = [world for world in WORLDS if inside == world or inside.startswith(f"{world}-")]
    return max(fitting, key=len, default="")


def outcomes(report: Path) -> Iterator[tuple[str, str]]:
    """Yield name and outcome of each test of a report; these are our own, of a program that we have started."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314
        bad = {child.tag for child in case} & {"failure", "error"}
        kind = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        yield case.get("name", ""), kind


def counts(reports: Iterable[Path]) -> dict[str, Counter[str]]:
    """Return how many tests of each world came out how."""
    last = dict(outcome for report in reports for outcome in outcomes(report))
    found: dict[str, Counter[str]] = {name: Counter() for name in WORLDS}
    for name, kind in last.items():
        if (world := world_of(name)) and not (WORLDS[world].ordinary and name.partition("[")[0] in ROOTS_OWN):
            found[world][kind] += 1
    return found


def words(world: World) -> tuple[str, str, str]:
    """Return init, owner and runtime of a world as the README has them."""
    init = {"systemd": "systemd", "openrc": "OpenRC", "busybox": "OpenRC, busybox alone"}[world.init]
    own = f"{init} ≥ 0.60, the user's own" if world.own else init
    return own, "a user" if world.ordinary else "root", world.runtime


def table(found: dict[str, Counter[str]]) -> str:
    """Return the table, and what is left out of the worlds of users; a world in which nothing ran has no row."""
    lines = ["| init | services of | runtime | tests passed |", "| --- | --- | --- | --- |"]
    for name, counted in found.items():
        if counted:
            lines.append(f"| {' | '.join((*words(WORLDS[name]), str(counted['passed'])))} |")
    why = "; ".join(dict.fromkeys(ROOTS_OWN.values()))
    return "\n".join(lines) + f"\n\nNot asked of a user's services, since only root has it: {why}.\n"


def main(words: Sequence[str]) -> int:
    """Print the table of some reports, or save it; return 1 when any test failed or was skipped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write the table into README.md")
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    asked = parser.parse_args(words)
    found = counts(asked.reports)
    sys.stdout.write(table(found))
    bad = {name: counted["failed"] + counted["skipped"] for name, counted in found.items()}
    for name, number in bad.items():
        if number:
            sys.stderr.write(f"{name}: {number} failed or were left out\n")
    if any(bad.values()):
        return 1
    if asked.save:
        README.write_text(readme.replace(README.read_text(encoding="utf-8"), table(found), MARKS), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
