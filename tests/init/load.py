"""An upgraded server under load: a client that never stops writing, and commands that are killed at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.ground.machine import CommandError, Result
from tests.init.host import PORT, Host, redis_manifest

_ACKNOWLEDGED: Final = "/var/tmp/acknowledged"

# Appends numbers to a list of the server, one after the other, and notes each that the server has acknowledged.
_CLIENT: Final = """
import itertools, os, socket, sys, time
port, path = int(sys.argv[1]), sys.argv[2]
noted = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
link = None
for number in itertools.count(1):
    try:
        if link is None:
            link = socket.create_connection(("127.0.0.1", port), 1)
            link.settimeout(5)
        word = str(number).encode()
        link.sendall(b"*3\\r\\n$5\\r\\nRPUSH\\r\\n$3\\r\\nlog\\r\\n$%d\\r\\n%s\\r\\n" % (len(word), word))
        answer = b""
        while not answer.endswith(b"\\r\\n"):
            more = link.recv(4096)
            if not more:
                raise ConnectionError
            answer += more
        if answer.startswith(b":"):
            os.write(noted, word + b"\\n")
    except OSError:
        if link is not None:
            link.close()
        link = None
    time.sleep(0.01)
"""

DURABLE: Final = ["redis-server", "--port", str(PORT), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
"""A server that acknowledges what is on the disk."""


def server(image: str, version: str, data: str) -> dict[str, Any]:
    """Return the manifest of a version of the server; `data` is how its data gets to it."""
    return redis_manifest(image=image, version=version, process={"args": DURABLE}, upgrade={"data": data})


@dataclass(slots=True)
class Client:
    """Writes to the server all the time; `verify` sees that the server has all that it acknowledged."""

    host: Host

    def acknowledged(self) -> list[int]:
        """Return the numbers that the server has acknowledged by now."""
        path = self.host.machine.path(_ACKNOWLEDGED)
        text = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        return [int(word) for word in text.split()]

    def verify(self) -> int:
        """Return how many writes were acknowledged; AssertionError when one of them is gone, or is there twice."""
        wanted = self.acknowledged()
        found = [int(word) for word in self.host.redis("LRANGE", "log", "0", "-1").split()]
        lost = sorted(set(wanted) - set(found))
        assert not lost, f"{len(lost)} acknowledged writes are lost: {lost[:5]}…{lost[-5:]} of {len(wanted)}"
        assert found == sorted(set(found)), "what was written is there twice, or in another order"
        return len(wanted)

    def wait_for_more(self) -> None:
        """Return when the server has acknowledged another write."""
        before = len(self.acknowledged())
        self.host.machine.wait_until(lambda: len(self.acknowledged()) > before, 30, "another acknowledged write")


@contextlib.contextmanager
def writing(host: Host) -> Iterator[Client]:
    """Write to the server until the block ends."""
    process = host.start(["python3", "-c", _CLIENT, str(PORT), _ACKNOWLEDGED])
    try:
        yield Client(host)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
    finally:
        end(process, 0)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have, as the machine outside counts them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return [*found, *(lower for child in found for lower in descendants(child))]


def end(process: subprocess.Popen[bytes], generations: int) -> None:
    """Kill a command of the machine, with so many generations of what it has started, and wait for it."""
    own = descendants(process.pid)[:1]  # nsenter stays, and starts it
    doomed = own + (descendants(own[0]) if own and generations else [])
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not own:
        process.kill()
    process.communicate()


@dataclass(slots=True)
class Killer:
    """Runs commands and kills them at moments that only `seed` knows."""

    host: Host
    seed: int
    longest: float = 2.5
    chance: random.Random = field(init=False)
    told: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311

    def kill(self, *words: str) -> bool:
        """Run appbox and kill it; return whether that came before its end. What it has started is killed at times."""
        after = self.chance.uniform(0.15, self.longest)
        children = self.chance.random() < 0.3
        began = time.monotonic()
        process = self.host.start(["appbox", *words])
        try:
            _out, err = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            end(process, int(children))
            self.tell(words, f"killed after {after:.3f} s{' with all below' if children else ''}")
            return True
        assert b"Traceback" not in err, err.decode()
        # It was quicker than what was before: those that come are killed sooner.
        self.longest = max(1.0, time.monotonic() - began)
        self.tell(words, f"ended with {process.returncode} before {after:.3f} s: {err.decode().strip()}")
        return False

    def tell(self, words: Sequence[str], what: str) -> None:
        """Note what became of a command."""
        self.told.append(f"{time.monotonic() - self.began:.1f} {' '.join(words)}: {what}")

    def run(self, *words: str) -> Result:
        """Run appbox to its end, which has to be good."""
        began = time.monotonic()
        try:
            result = self.host.appbox(*words)
        except CommandError as error:
            self.tell(words, str(error))
            raise
        self.tell(words, f"{time.monotonic() - began:.2f} s {result.err.strip()}")
        return result


def strays(host: Host, name: str = "cache") -> list[str]:
    """Return what a run that has come to its end must not leave: besides exactly one server and its versions."""
    machine = host.machine
    found = [one for one in host.listed() if one != name]
    found += [path for path in machine.mounts() if path.startswith((host.containers, host.places.runs))]
    own = re.compile(rf"{name}(-[12]\.0)?|\.snapshots|\.replaced")
    found += [entry for entry in os.listdir(machine.path(host.containers)) if not own.fullmatch(entry)]
    current = machine.path(host.containers) / os.readlink(machine.path(host.containers) / name)
    found += [f"{current.name}/{entry}" for entry in (".carry", ".writes") if os.path.lexists(current / entry)]
    for folder in (
        host.containers,
        f"{host.containers}/.snapshots/{name}",
        host.units,
        host.places.state,
    ):
        if machine.exists(folder):
            below = machine.path(folder).glob("**/*" if folder == host.places.state else "*")
            found += [str(path) for path in below if path.name.endswith(".appbox-tmp")]
    for version in machine.path(host.containers).glob(f"{name}-*"):
        found += [str(path) for path in version.iterdir() if path.name.endswith(".appbox-tmp")]
    if machine.exists(f"{host.places.state}/journal.json"):
        found.append(machine.read(f"{host.places.state}/journal.json"))
    return found
