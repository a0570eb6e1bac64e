"""kill -9 at system calls of an upgrade with hooks and a migration, on a real init: the same command again does it all.

What `tests/crash` does below --root, here where services run and commands in their containers have their part in it.
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.ground import calls, layers
from tests.ground.tiny import Content
from tests.init.host import CONTAINERS, Host, script_manifest
from tests.init.load import strays

FULL: Final = os.environ.get("APPBOX_CRASH_FULL") == "1"
SEED: Final = int(os.environ.get("APPBOX_CRASH_SEED", "5"))
MOST: Final = 2
"""Calls of a sample."""

RUN: Final = "trap 'exit 0' TERM; [ -e /data/form ] || echo 1 >/data/form; while :; do sleep 0.1; done"
BEFORE: Final = "echo x >>/data/before"
MIGRATE: Final = "echo 2 >/data/form"
AFTER: Final = "echo x >>/data/after; cat /data/form"

SUPERVISED: Final = """
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, "/root/ground")
import calls
from appbox import cli
wanted, seen = int(sys.argv[1]), []
def decide(call):
    seen.append(str(call))
    return calls.KILL if call.number == wanted else 0
ended = calls.supervise(lambda: cli.run(sys.argv[2:]), decide, alone=True)
print(json.dumps([ended.code, seen, ended.out + ended.err]))
"""
"""Runs a command line and kills it right before its n-th call that changes something; 0 for not at all."""


IMAGES: Final = "/root/images/small"


def make_images(host: Host) -> None:
    """Make the images of two versions with a shell and little else: unpacking many files has many calls, all alike."""
    content = Content()
    shell = Path("/bin/busybox").read_bytes()
    for version in ("1.0", "2.0"):
        members = [layers.directory(b"bin"), layers.file(b"bin/sh", shell, mode=0o755)]
        members += [layers.symlink(b"bin/" + name, b"sh") for name in (b"cat", b"sleep")]
        members.append(layers.file(b"version", version.encode()))
        content.image(version, layers=(layers.archive(*members),), config={"Env": ["PATH=/bin"]})
    host.machine.write(f"{IMAGES}/README", "made by a test")
    content.write_layout(str(host.machine.path(IMAGES) / "layout"))


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A service that is upgraded, with everything that the manifest can ask of an upgrade; `data` is how it moves."""

    host: Host
    data: str

    def manifest(self, version: str) -> dict[str, Any]:
        upgrade: dict[str, Any] = {"data": self.data, "data_format": version.partition(".")[0]}
        if version == "2.0":
            sh = ["sh", "-c"]
            upgrade |= {"before": [[*sh, BEFORE]], "migrate": [*sh, MIGRATE], "after": [[*sh, AFTER]]}
        network = {"mode": "none"}
        return script_manifest(RUN, image=f"oci:{IMAGES}/layout", version=version, upgrade=upgrade, network=network)

    def prepare(self) -> None:
        """Have the old version running, with something that it has written."""
        if self.host.machine.exists(f"{CONTAINERS}/job"):
            self.host.appbox("remove", "job", "--purge")
        self.host.apply(self.manifest("1.0"))
        self.host.machine.wait_until(lambda: self.host.has_data("job", "form"), 10, "the service's file")
        self.host.machine.write(f"{CONTAINERS}/job/data/data/mine", "x")

    def kill(self, number: int) -> tuple[int, list[str], str]:
        """Give the command, killed before its n-th call; return how it ended, its calls and what it said."""
        words = ["apply", "--yes", self.host.write_manifest(self.manifest("2.0"))]
        found = self.host.machine.run(["/usr/local/appbox/bin/python", "-c", SUPERVISED, str(number), *words])
        code, seen, said = json.loads(found.out)
        return code, seen, said

    def see_that_it_is_done(self) -> None:
        """See that the new version runs, once, with migrated data; all that was to be run was, and nothing is left."""
        assert self.host.is_active("job")
        assert os.readlink(self.host.machine.path(CONTAINERS) / "job") == "job-2.0"
        assert (self.host.data("job", "form"), self.host.data("job", "mine")) == ("2\n", "x")
        assert self.host.data("job", "before").count("x") >= 1
        assert self.host.data("job", "after").count("x") >= 1
        assert len(self.host.machine.run(["runc", "list", "--quiet"]).out.split()) == 1
        deadline = time.monotonic() + 5
        while left := strays(self.host, "job"):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
        assert self.host.apply(self.manifest("2.0")).out == "nothing to do\n"


@pytest.mark.timeout(0 if FULL else 300)
@pytest.mark.parametrize("data", ["copy", "move"] if FULL else ["copy"])
def test_an_upgrade_with_hooks_is_killed_at_its_calls(host: Host, data: str) -> None:
    host.machine.write("/root/ground/calls.py", Path(calls.__file__).read_text())
    make_images(host)
    upgrade = Upgrade(host, data)
    upgrade.prepare()
    code, found, said = upgrade.kill(0)
    assert code == 0, said
    upgrade.see_that_it_is_done()
    numbers = range(1, len(found) + 1)
    chance = random.Random(f"{SEED} {host.machine.init}")  # noqa: S311 - what is tried is no secret
    violations = []
    for number in numbers if FULL else sorted(chance.sample(numbers, MOST)):
        upgrade.prepare()
        code, seen, said = upgrade.kill(number)
        assert code in {-9, 0}, said
        try:
            host.appbox("apply", "--yes", host.write_manifest(upgrade.manifest("2.0")))
            upgrade.see_that_it_is_done()
        except (AssertionError, OSError, RuntimeError) as error:
            violations.append(f"{seen[-1] if seen else number}: {type(error).__name__}: {str(error)[:1500]}")
    print(f"{host.machine.init}, {data}: {len(found)} points, {len(numbers) if FULL else MOST} tried")
    assert not violations, "\n".join(violations)
