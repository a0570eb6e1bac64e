"""How long an upgrade interrupts a service, beyond what its own stop and start take, on both inits."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import tomli_w

from tests.bench.table import Figure
from tests.ground import images, roots
from tests.ground.machine import Machine

PORT = 8080

# Asks the server over and over while a command runs; prints the longest time between two good answers, in milliseconds.
_POLLER = """
import socket, subprocess, sys, time
port, words = int(sys.argv[1]), sys.argv[2:]
def answered():
    try:
        with socket.create_connection(("127.0.0.1", port), 0.25) as link:
            link.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            return bool(link.recv(1))
    except OSError:
        return False
while not answered():
    time.sleep(0.01)
command = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
last, longest = time.perf_counter(), 0.0
while True:
    ended = command.poll() is not None
    if answered():
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        if ended:
            break
    time.sleep(0.002)
if command.returncode:
    sys.exit(f"{words} ended with {command.returncode}")
print(longest * 1000)
"""
# As the first process of a container, the shell would not be ended by a signal that it has no trap for.
_SERVER = f"httpd -f -p {PORT} -h /data & trap 'exit 0' TERM; wait"


def figures(scratch: Path, rounds: int) -> Iterator[Figure]:
    """Yield how much longer than a restart by the init's own command an upgrade takes the server away."""
    for init in sorted(roots.INITS):
        with machine(init, scratch) as host:
            restarts, upgrades = measure(host, rounds)
        usual, ours = statistics.median(restarts), statistics.median(upgrades)
        what = f"downtime of an upgrade with {init}, beyond the {usual:.0f} ms of a restart"
        yield Figure(what, ours - usual, 100)


def measure(host: Machine, rounds: int) -> tuple[list[float], list[float]]:
    """Return the interruptions in milliseconds by restarts and by upgrades, in turns; data goes along."""
    restart = ["systemctl", "restart", "job"] if host.init == "systemd" else ["rc-service", "job", "restart"]
    restarts, upgrades = [], []
    for number in range(rounds):
        restarts.append(interruption(host, restart))
        upgrades.append(interruption(host, ["appbox", "-q", "apply", f"/root/{2 - number % 2}.toml"]))
    return restarts, upgrades


def interruption(host: Machine, words: list[str]) -> float:
    """Return for how many milliseconds the server was away while a command ran."""
    return float(json.loads(host.run(["python3", "-c", _POLLER, str(PORT), *words]).out))


@contextlib.contextmanager
def machine(init: str, scratch: Path) -> Iterator[Machine]:
    """Yield a machine on which version 1 of a server runs that answers at once; version 2 has been there before."""
    root = roots.ensure(init)
    layer = scratch / f"appbox-{init}"
    layer.mkdir()
    roots.install_appbox(root, layer)
    image = f"oci:/var/cache/appbox-dev/images/{images.ensure('busybox').name}:{images.REF}"
    with Machine(root, [layer]) as host:
        host.boot()
        for version in ("2", "1"):
            host.run(["appbox", "image", "copy", image, f"oci:/root/images:{version}"])
            host.write(f"/root/{version}.toml", tomli_w.dumps(manifest(version)))
            host.run(["appbox", "apply", f"/root/{version}.toml"])
        yield host


def manifest(version: str) -> dict[str, object]:
    """Return the manifest of a version of the server."""
    return {
        "name": "job",
        "image": "oci:/root/images",
        "version": version,
        "process": {"entrypoint": ["sh", "-c", _SERVER]},
        "volumes": {"data": {"path": "/data"}},
        "network": {"mode": "host"},
        "upgrade": {"data": "move"},
    }
