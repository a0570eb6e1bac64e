"""Starting a service: what the run script adds to bare runc, and what podman takes for the same image."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import tomli_w

from tests.bench import measure
from tests.bench.peers import podman_words
from tests.bench.table import Figure
from tests.ground import images, roots
from tests.ground.machine import Machine
from tests.ground.registry import RealRegistry

_BATCHES, _ROUNDS = 5, 5
"""Who is measured takes turns: so many times so many starts each."""

# Inside a machine: the shortest time of each command in milliseconds.
_TIMER = """
import json, subprocess, sys, time
commands, rounds = json.load(sys.stdin)
times = [[] for _ in commands]
for _ in range(rounds):
    for words, taken in zip(commands, times):
        subprocess.run(["runc", "delete", "--force", "job"], stderr=subprocess.DEVNULL)
        started = time.perf_counter()
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        taken.append((time.perf_counter() - started) * 1000)
print(json.dumps([min(taken) for taken in times]))
"""
_BUNDLE = "/opt/containers/job"
_COMMANDS = (("runc", "run", "--bundle", _BUNDLE, "job"), (f"{_BUNDLE}/run",))


def figures(registry: RealRegistry, scratch: Path) -> Iterator[Figure]:
    """Yield what a start costs beyond `runc run` of the same bundle, and beside `podman run` of the same image."""
    with machine(scratch) as host, podman(registry, scratch) as command:
        batches = [(*inside(host), outside(command)) for _ in range(_BATCHES)]
    bare, ours, theirs = (min(times) for times in zip(*batches, strict=True))
    yield Figure(f"start through the run script, beyond the {bare:.1f} ms of bare runc", ours - bare, 10)
    yield Figure(
        f"the same start as a whole; `podman run` takes {theirs:.1f} ms, and a quarter is allowed", ours, theirs / 4
    )


@contextlib.contextmanager
def machine(scratch: Path) -> Iterator[Machine]:
    """Yield a machine on which `true` of the busybox image is installed as a service."""
    root = roots.ensure("systemd")
    layer = scratch / "appbox"
    layer.mkdir()
    roots.install_appbox(root, layer)
    image = f"oci:/var/cache/appbox-dev/images/{images.ensure('busybox').name}"
    manifest = {"name": "job", "image": image, "version": images.REF, "process": {"args": ["true"]}}
    with Machine(root, [layer]) as host:
        host.boot()
        host.write("/root/job.toml", tomli_w.dumps(manifest))
        host.run(["appbox", "apply", "--no-start", "/root/job.toml"])
        yield host


def inside(host: Machine) -> tuple[float, float]:
    """Return the milliseconds that a start takes with runc, and with the run script."""
    bare, ours = json.loads(host.run(["python3", "-c", _TIMER], input=json.dumps([_COMMANDS, _ROUNDS])).out)
    return bare, ours


@contextlib.contextmanager
def podman(registry: RealRegistry, scratch: Path) -> Iterator[list[str]]:
    """Yield the command that runs `true` of the busybox image with podman: no network, as ours, and runc."""
    registry.push(f"oci:{images.ensure('busybox')}:{images.REF}", "busybox:1")
    reference = f"{registry.host}/busybox:1"
    place = scratch / "podman"
    place.mkdir()
    with podman_words(place) as words:
        measure.run([*words, "pull", "--quiet", "--tls-verify=false", reference])
        # Without these it asks for more than some hosts may give.
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        yield [*words, "--runtime", "runc", "run", "--rm", "--network", "none", *limits, reference, "true"]


def outside(command: list[str]) -> float:
    """Return the milliseconds that a command takes."""
    return measure.Costs(tuple(measure.run(command) for _ in range(_ROUNDS))).minimum * 1000
