"""`python -m tests.fuzz [TARGET…] [--seconds N]`: fuzz, and say of each target how far it came.

With atheris (`pip install atheris`; glibc only) the search is guided by coverage; without it, mutations of the corpus
have to do. Ends with 1 when an input crashed; the input is then in the corpus, where the tests try it from now on.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import corpus, mutation
from tests.fuzz.mutation import Crash, Outcome
from tests.fuzz.targets import TARGETS, Target

_RUNS = re.compile(r"^#([0-9]+)|^Done ([0-9]+) runs", re.MULTILINE)
_COVERAGE = re.compile(r"cov: ([0-9]+)")
_PROBLEM = re.compile(r"^ *=+ Uncaught Python exception: =+\n(.*)|^.*ERROR: libFuzzer: (.*)", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the targets one after the other, each for its share of the time."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what reads bytes of strangers.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="for all targets together (60)")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="of the mutations (default: a new one)")
    parser.add_argument("--engine", choices=("auto", "atheris", "mutation"), default="auto", help="default: auto")
    parser.add_argument("--save", type=Path, default=corpus.CORPUS, metavar="DIR", help="where crashes are kept")
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}: choose from {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in options.targets or TARGETS]
    guided = options.engine == "atheris" or (options.engine == "auto" and importlib.util.find_spec("atheris"))
    seed = int.from_bytes(os.urandom(4)) if options.seed is None else options.seed
    print(f"engine: {'atheris' if guided else f'mutation, seed {seed}'}", flush=True)
    share = options.seconds / len(chosen)
    crashed = [fuzz(target, share, seed, options.save, guided=bool(guided)) for target in chosen]
    return 1 if any(crashed) else 0


def fuzz(target: Target, seconds: float, seed: int, folder: Path, *, guided: bool) -> bool:
    """Fuzz one target, print one line about it, and return whether an input crashed."""
    begin = corpus.seeds(target.name)
    measure = "branches" if guided else "behaviours"
    outcome = by_atheris(target, begin, seconds) if guided else by_mutation(target, begin, seconds, seed)
    line = f"{target.name}: {outcome.inputs} inputs from {len(begin)} seeds, {outcome.behaviours} {measure}"
    if outcome.crash is None:
        print(f"{line}, no crash", flush=True)
        return False
    crash = mutation.smaller(target, outcome.crash)
    print(f"{line}, CRASH: {crash.why[:300]}\n  kept: {corpus.keep(target.name, crash, folder)}", flush=True)
    return True


def by_mutation(target: Target, begin: dict[str, bytes], seconds: float, seed: int) -> Outcome:
    """Fuzz in this process."""
    return mutation.fuzz(target, list(begin.values()), seconds, seed)


def by_atheris(target: Target, begin: dict[str, bytes], seconds: float) -> Outcome:
    """Fuzz in a process of its own, which libFuzzer ends."""
    with tempfile.TemporaryDirectory(prefix="appbox-fuzz.") as folder:
        place = Path(folder)
        for name in ("seeds", "found"):
            (place / name).mkdir()
        for name, data in begin.items():
            (place / "seeds" / name).write_bytes(data)
        limits = [f"-max_len={target.longest}", "-timeout=10", "-rss_limit_mb=512"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", target.name, f"{place}/found", f"{place}/seeds", *limits,
             f"-max_total_time={max(1, round(seconds))}", f"-artifact_prefix={place}/artifact-"],
            capture_output=True, text=True, check=False, errors="replace",
        )  # fmt: skip
        said = done.stdout + done.stderr
        crashes = [path.read_bytes() for path in place.glob("artifact-*")]
    if not crashes and done.returncode != 0:
        raise SystemExit(f"the fuzzer does not run: {said[-2000:]}")
    runs, coverage = [int(a or b) for a, b in _RUNS.findall(said)], _COVERAGE.findall(said)
    problem = _PROBLEM.search(said)
    why = next((part for part in problem.groups() if part), "") if problem else "crash"
    crash = Crash(crashes[0], why) if crashes else None
    return Outcome(max(runs, default=0), int(coverage[-1]) if coverage else 0, crash)


if __name__ == "__main__":
    sys.exit(main())
