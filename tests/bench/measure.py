"""What it takes to run programs: seconds, processor seconds and memory; and what several runs say together."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class Failed(Exception):
    """A program that is measured did not do its work; its words are in the message."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One run. `seconds` on the wall; `processor`: user and system seconds of all processes; `memory`: the most bytes
    that any one process had resident at a time (as `/usr/bin/time -v` says it)."""

    seconds: float
    processor: float
    memory: int

    def __add__(self, other: Self) -> Cost:
        """Return the cost of one run after the other."""
        return Cost(self.seconds + other.seconds, self.processor + other.processor, max(self.memory, other.memory))


@dataclass(frozen=True, slots=True)
class Costs:
    """What some runs of the same thing say."""

    runs: tuple[Cost, ...]

    @property
    def minimum(self) -> float:
        """The shortest time in seconds: what it takes when nothing else disturbs."""
        return min(run.seconds for run in self.runs)

    @property
    def median(self) -> float:
        """The median time in seconds."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def processor(self) -> float:
        """The median of the processor seconds."""
        return statistics.median(run.processor for run in self.runs)

    @property
    def memory(self) -> int:
        """The most memory that any run had, in bytes."""
        return max(run.memory for run in self.runs)


def run(words: Sequence[str], **environment: str) -> Cost:
    """Run a program to its end; Failed when it fails."""
    # A child counts its parent's memory as its own until it execs, so GNU time, which is small, stands in between.
    with tempfile.NamedTemporaryFile("r", prefix="appbox-bench.") as report, tempfile.TemporaryFile() as said:
        argv = ["/usr/bin/time", "--quiet", "--format=%M", f"--output={report.name}", *words]
        started = time.perf_counter()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env={**os.environ, **environment}
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            msg = f"{' '.join(words)} → {process.returncode}\n{said.read().decode(errors='replace')}"
            raise Failed(msg)
        return Cost(seconds, usage.ru_utime + usage.ru_stime, int(report.read()) * 1024)


def sync(place: Path) -> Cost:
    """Make what was written to the file system of `place` durable."""
    return run(["sync", "--file-system", str(place)])


def of_process(pid: int) -> Cost:
    """Return what a running process has cost until now; its time is not counted."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    # utime, stime, and those of children that were waited for: fields 14 to 17 of proc(5); the third is the first here.
    ticks = sum(int(field) for field in fields[11:15])
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    return Cost(0, ticks / os.sysconf("SC_CLK_TCK"), int(status["VmHWM"].split()[0]) * 1024)
