"""Prints a line for each budget: what was measured, what is allowed, whether it holds. Exits 1 when one does not."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from tests.ground import cache, images, roots
from tests.ground.machine import Machine

ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured time and its budget, in milliseconds."""

    what: str
    measured: float
    allowed: float

    def __str__(self) -> str:
        verdict = "ok" if self.measured <= self.allowed else "OVER"
        return f"{verdict:<4}  {self.measured:8.1f} ms of {self.allowed:6.0f} ms  {self.what}"


def median_time(words: Sequence[str], rounds: int = ROUNDS) -> float:
    """Return the median time of a command in milliseconds; the first run, which fills caches, does not count."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[1:])


def write_services(directory: Path, count: int, image: Path) -> None:
    """Write `count` manifests of the busybox image."""
    for number in range(count):
        manifest = {
            "name": f"service-{number:03}",
            "image": f"oci:{image}",
            "version": images.REF,
            "process": {"args": ["sleep", "1000"]},
        }
        (directory / f"{manifest['name']}.toml").write_text(tomli_w.dumps(manifest), encoding="utf-8")


def command_line() -> Iterator[Figure]:
    """Yield the times of commands that people and scripts run often, in a root of 20 and of 100 services."""
    appbox = [str(Path(sys.executable).with_name("appbox"))]
    python = median_time([sys.executable, "-c", "pass"])
    yield Figure("appbox --version, beyond bare python", median_time([*appbox, "--version"]) - python, 60)
    image = images.ensure("busybox")
    for count, verb, allowed in ((20, "status", 150), (100, "plan", 400), (100, "apply", 400)):
        with tempfile.TemporaryDirectory(prefix="appbox-bench.") as scratch:
            services, root = Path(scratch) / "services", Path(scratch) / "root"
            services.mkdir()
            root.mkdir()
            write_services(services, count, image)
            rooted = [*appbox, "--root", str(root), "--init", "systemd"]
            subprocess.run([*rooted, "apply", str(services)], check=True, stdout=subprocess.DEVNULL)
            words = [verb] if verb == "status" else [verb, str(services)]
            yield Figure(f"appbox {verb} of {count} unchanged services", median_time([*rooted, *words], 5), allowed)


# Inside a machine: the median time of a command in milliseconds.
TIMER = """
import json, statistics, subprocess, sys, time
def measure(words):
    times = []
    for _ in range(20):
        subprocess.run(["runc", "delete", "--force", "job"], stderr=subprocess.DEVNULL)
        started = time.perf_counter()
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[1:])
print(json.dumps([measure(words) for words in json.load(sys.stdin)]))
"""


def start(scratch: Path) -> Iterator[Figure]:
    """Yield what a start through the run script costs beyond `runc run` of the same bundle."""
    root = roots.ensure("systemd")
    layer = scratch / "appbox"
    layer.mkdir()
    roots.install_appbox(root, layer)
    image = "oci:/var/cache/appbox-dev/images/busybox"
    manifest = {"name": "job", "image": image, "version": images.REF, "process": {"args": ["true"]}}
    with Machine(root, [layer]) as machine:
        machine.boot()
        machine.write("/root/job.toml", tomli_w.dumps(manifest))
        machine.run(["appbox", "apply", "--no-start", "/root/job.toml"])
        bundle = "/opt/containers/job"
        commands = [["runc", "run", "--bundle", bundle, "job"], [f"{bundle}/run"]]
        bare, ours = json.loads(machine.run(["python3", "-c", TIMER], input=json.dumps(commands)).out)
        yield Figure(f"start through the run script, beyond runc's {bare:.1f} ms", ours - bare, 10)


def main() -> int:
    """Measure everything."""
    figures = []
    with cache.scratch("bench") as scratch:
        for figure in (*command_line(), *start(scratch)):
            print(figure, flush=True)
            figures.append(figure)
    return 0 if all(figure.measured <= figure.allowed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
