"""A host of tests/vm, booted, and whoever works on it: root, or somebody without any privilege."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from tests.ground import roots, vm
from tests.ground.machine import CommandError, Result
from tests.vm import system

# As the README has it, but that there is no network. The environment is on the disk with what appbox depends on: made
# there by the same pip, but ten times as fast.
INSTALL = (
    f"{roots.VENV}/bin/pip --quiet --disable-pip-version-check install --no-index /media/appbox-*.whl",
    f"ln -sf {roots.VENV}/bin/appbox /usr/local/bin/appbox",
)


class Guest(vm.Emulator):
    """A Debian of `system` with a disk of its own, which is written, kept over boots, and gone with the machine."""

    def __init__(self, init: str) -> None:
        files = system.host(init)
        # One processor: two emulated ones now and then trip over code that the kernel changes while it runs.
        super().__init__(init, files, "ground.look", processors=1)
        self.log: list[str] = []
        with self.step("disks made"):
            self._more = system.supplies(self.directory)
            self._root = self.directory / "root"
            roots.run(["cp", "--sparse=always", str(files / "disk"), str(self._root)])

    def drives(self) -> Sequence[str]:
        """Return the root, and what there is to install from, which the first program mounts on /media."""
        return (f"file={self._root}", f"file={self._more},read-only=on")

    # Words for the log

    def say(self, text: str) -> None:
        """Add a line to the log."""
        self.log.append(f"{self.init:8}{text}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Add a line to the log that says how long the block took."""
        start = time.monotonic()
        yield
        self.say(f"{text} ({time.monotonic() - start:.1f} s)")

    # What an administrator does

    def install(self) -> None:
        """Install appbox for everybody."""
        for line in INSTALL:
            with self.step(f"# {line}"):
                self.run(["sh", "-c", line], timeout=180)

    @contextmanager
    def registry(self) -> Iterator[None]:
        """Run the registry for as long as the block takes."""
        words = "docker-registry serve /media/registry.yml >/var/log/registry 2>&1 & echo $!"
        pid = self.run(["sh", "-c", words]).out.strip()
        try:
            self.wait_until(lambda: ":5000" in self.run(["ss", "-ltn"]).out, 60, "the registry")
            yield
        finally:
            self.run(["kill", pid])


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who has a service on the host.

    `options` go to appbox, and `by` is who runs it: root may do so for others. `kept` is what the server has
    acknowledged.
    """

    guest: Guest
    user: str
    service: str
    port: int
    by: str = "root"
    options: tuple[str, ...] = ()
    kept: dict[str, str] = field(default_factory=dict)

    def run(self, words: Sequence[str], *, check: bool = True, timeout: float = 60) -> Result:
        """Run a program as from a login."""
        if self.by != "root":
            words = ["su", "-l", self.by, "-c", shlex.join(words)]
        return self.guest.run(words, check=check, timeout=timeout)

    def appbox(self, *words: str, code: int = 0) -> Result:
        """Run appbox, which has to end with `code`."""
        result = self.run(["appbox", *self.options, *words], check=False, timeout=300)
        if result.code != code or "Traceback" in result.err:
            raise CommandError(result)
        return result

    def manifest(self, **tables: Any) -> str:
        """Write the manifest of a server that has every write on the disk before it says OK; return its path."""
        file = f"/srv/services/{self.service}.toml"  # everybody may read it
        args = ["redis-server", "--port", str(self.port), "--hz", "1", "--appendonly", "yes", "--appendfsync", "always"]
        content = {
            "name": self.service,
            "image": system.IMAGE,
            "version": system.VERSION,
            "process": {"args": args},
            "volumes": {"data": {"path": "/data"}},
            "network": {"mode": "host"},
            **tables,
        }
        self.guest.write(file, tomli_w.dumps(content))
        return file

    def status(self) -> dict[str, Any]:
        """Return what `appbox status` says of the service."""
        found: dict[str, Any] = json.loads(self.appbox("--json", "status", self.service).out)
        return found

    def redis(self, *words: str) -> str:
        """Ask the server; return what it answers, "" when it does not."""
        return self.guest.run(["redis-cli", "-p", str(self.port), *words], check=False).out.strip()

    def wait_for_pong(self) -> None:
        """Wait until the server answers."""
        self.guest.wait_until(lambda: self.redis("ping") == "PONG", 600, f"PONG from {self.user}'s server")

    def write(self, key: str, value: str) -> None:
        """Have the server acknowledge a value."""
        assert self.redis("set", key, value) == "OK"
        self.kept[key] = value

    def server(self) -> int:
        """Return the number of the one server that listens on the port."""
        found = self.guest.run(["pgrep", "-f", f"^redis-server .*:{self.port}"]).out.split()
        assert len(found) == 1, found
        return int(found[0])

    def limits(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return what the files `names` of the server's cgroup say."""
        group = self.guest.read(f"/proc/{self.server()}/cgroup").strip().removeprefix("0::")
        return {name: self.guest.read(str(Path("/sys/fs/cgroup") / group[1:] / name)).strip() for name in names}
