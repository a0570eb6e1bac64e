"""Measures what has a budget, beside other tools, and prints it: `./dev bench --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import cached, commands, downtime, host, pulls, readme, starts, table
from tests.bench.measure import Failed
from tests.bench.peers import PEERS, Peer
from tests.bench.table import Figure, Pull
from tests.ground import cache, registry
from tests.ground.registry import RealRegistry

README = Path(__file__).parents[2] / "README.md"
SLOW = "million"
OTHERS = ("cached", "commands", "start", "downtime")
USUAL = (*(name for name in pulls.ROWS if name != SLOW), *OTHERS)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measure what has a budget, beside other tools.")
    parser.add_argument("--rows", type=rows, default=USUAL, help=f"only these: {','.join((*pulls.ROWS, *OTHERS))}")
    parser.add_argument(
        "--with", type=peers, default=tuple(PEERS.values()), dest="peers", help=f"only these: {','.join(PEERS)}"
    )
    parser.add_argument("--runs", type=positive, default=5, help="runs of each, in turns (default: 5)")
    parser.add_argument("--million", action="store_true", help="an image of a million entries too, which takes minutes")
    parser.add_argument("--save", action="store_true", help="write the tables into the README; needs all rows")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a budget is missed")
    chosen = parser.parse_args(arguments)
    if chosen.save and (chosen.rows != USUAL or len(chosen.peers) < len(PEERS)):
        parser.error("--save writes the whole section, so it cannot go with --rows or --with")
    if chosen.million:
        chosen.rows = tuple(dict.fromkeys((*chosen.rows, SLOW)))
    return chosen


def rows(text: str) -> tuple[str, ...]:
    """Return the rows that are named; ArgumentTypeError for one that there is not."""
    names = tuple(text.split(","))
    for name in names:
        if name not in pulls.ROWS and name not in OTHERS:
            msg = f"there is no row {name!r}"
            raise argparse.ArgumentTypeError(msg)
    return names


def peers(text: str) -> tuple[Peer, ...]:
    """Return those who are named; ArgumentTypeError for one whom nobody knows."""
    unknown = [name for name in text.split(",") if name not in PEERS]
    if unknown:
        msg = f"there is no {unknown[0]!r} to measure with"
        raise argparse.ArgumentTypeError(msg)
    return tuple(PEERS[name] for name in text.split(","))


def positive(text: str) -> int:
    """Return a number of runs."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"{text!r} is no number of runs"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def figures(name: str, local: RealRegistry, scratch: Path, rounds: int) -> Iterator[Figure]:
    """Yield the figures of a row that is no pull."""
    if name == "cached":
        yield from cached.figures(local, scratch)
    elif name == "commands":
        yield from commands.figures(rounds)
    elif name == "downtime":
        yield from downtime.figures(scratch, rounds)
    else:
        yield from starts.figures(local, scratch)


def measure(names: Sequence[str], peers: Sequence[Peer], rounds: int) -> tuple[list[Pull], list[Figure]]:
    """Measure and print each row when it is done."""
    done: list[Pull] = []
    told: list[Figure] = []
    with cache.scratch("bench") as scratch, registry.start(f"{scratch}/registry") as local:
        for name in names:
            if name in pulls.ROWS:
                done.append(pulls.pull(name, peers, local, scratch, rounds))
                lines = [line[1:] for line in table.pull_lines(done[-1])]
                print(f"{name}: {done[-1].what}\n{table.terminal(table.PULLS[1:], lines)}", flush=True)
            else:
                new = list(figures(name, local, scratch, rounds))
                print(table.terminal(table.FIGURES, [table.figure_line(figure) for figure in new]), flush=True)
                told += new
    return done, told


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and keep what was measured if that is wanted."""
    chosen = options(arguments)
    where, versions = host.describe(), list(host.versions(PEERS.values()))
    print(f"{where}\n{', '.join(versions)}\n", flush=True)
    try:
        done, told = measure(chosen.rows, chosen.peers, chosen.runs)
    except Failed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    budgets: list[Pull | Figure] = [*done, *told]
    missed = [sentence for one in budgets for sentence in one.missed()]
    print("".join(f"missed: {sentence}\n" for sentence in missed) or "every budget holds\n", end="")
    if chosen.save:
        text = readme.replace(README.read_text(encoding="utf-8"), readme.section(done, told, where, versions))
        README.write_text(text, encoding="utf-8")
        print(f"saved in {README}")
    return 1 if chosen.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
