"""What people and scripts run often, on hosts with many services."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import tomli_w

from tests.bench import measure
from tests.bench.peers import APPBOX
from tests.bench.table import MEGABYTE, Figure
from tests.ground import images

_CASES = {
    20: (("status", 150),),
    100: (("status", 250), ("plan", 400), ("apply", 400)),
    1000: (("status", 1500), ("plan", 3000), ("apply", 3000)),
}
"""Number of services: commands and their milliseconds. What `status` may take beyond 20 services is our own word."""

_MEMORY = 200
"""Megabytes that a plan of a thousand services may need."""


def figures(rounds: int) -> Iterator[Figure]:
    """Yield the times of commands in roots with many services of which nothing has changed."""
    python = shortest([sys.executable, "-c", "pass"], rounds)
    yield Figure("`appbox --version`, beyond bare python", shortest([APPBOX, "--version"], rounds) - python, 60)
    image = images.ensure("busybox")
    for count, verbs in _CASES.items():
        with tempfile.TemporaryDirectory(prefix="appbox-bench.") as scratch:
            services, root = Path(scratch) / "services", Path(scratch) / "root"
            services.mkdir()
            root.mkdir()
            write_services(services, count, image)
            rooted = [APPBOX, "--root", str(root), "--init", "systemd"]
            subprocess.run([*rooted, "apply", str(services)], check=True, stdout=subprocess.DEVNULL)
            for verb, allowed in verbs:
                words = [verb] if verb == "status" else [verb, str(services)]
                took = shortest([*rooted, *words], rounds)
                yield Figure(f"`appbox {verb}` of {count:,} unchanged services", took, allowed)
            if count == max(_CASES):
                memory = measure.run([*rooted, "plan", str(services)]).memory / MEGABYTE
                yield Figure(f"memory of `appbox plan` of {count:,} services", memory, _MEMORY, "MB")


def shortest(words: Sequence[str], rounds: int) -> float:
    """Return the shortest time of a command in milliseconds."""
    return measure.Costs(tuple(measure.run(words) for _ in range(rounds))).minimum * 1000


def write_services(directory: Path, count: int, image: Path) -> None:
    """Write `count` manifests of the busybox image."""
    for number in range(count):
        manifest = {
            "name": f"service-{number:04}",
            "image": f"oci:{image}",
            "version": images.REF,
            "process": {"args": ["sleep", "1000"]},
        }
        (directory / f"{manifest['name']}.toml").write_text(tomli_w.dumps(manifest), encoding="utf-8")
