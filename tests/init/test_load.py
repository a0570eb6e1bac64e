"""Upgrades of a server that is written to all the time, killed at random moments: no acknowledged write is lost."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from tests.init.host import Host
from tests.init.load import Client, Killer, server, strays, writing
from tests.init.test_upgrade import tag

FULL = os.environ.get("APPBOX_CRASH_FULL") == "1"
KILLS = 100 if FULL else 5
"""Kills on each init."""
SEED = int(os.environ.get("APPBOX_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


class _Load:
    """The kills of one test, and what came of them."""

    def __init__(self, host: Host, image: str) -> None:
        self.host, self.image = host, image
        self.killer = Killer(host, SEED)
        self.chance = self.killer.chance
        self.killed = self.said = self.acknowledged = 0
        self.cgroups = self.own_cgroups()

    def own_cgroups(self) -> set[str]:
        return {path for path in self.host.machine.cgroups() if "cache" in path}

    def version(self) -> str:
        """Return the version that is current."""
        return os.readlink(self.host.machine.path(self.host.containers) / "cache").removeprefix("cache-")

    def applying(self, *versions: str) -> list[str]:
        """Return what applies one of the versions, with data that goes along or is copied."""
        version, data = self.chance.choice(versions), self.chance.choice(("move", "copy"))
        self.killer.tell(["next"], f"{version}, {data}")
        return ["apply", self.host.write_manifest(server(self.image, version, data))]

    def kill(self) -> None:
        """Kill a command that changes the version."""
        other = "1.0" if self.version() == "2.0" else "2.0"
        back = ["rollback", "cache", "--keep-data"]
        self.killed += self.killer.kill(*(self.applying(other) if self.chance.random() < 0.8 else back))

    def recover(self) -> None:
        """Run the next command that changes something to its end: another upgrade, or one about something else."""
        words = ["prune"] if self.chance.random() < 0.3 else self.applying("1.0", "2.0")
        self.said += "interrupted" in self.killer.run(*words).err

    def settle(self, client: Client) -> None:
        """See that exactly one server runs with all that was acknowledged, and that nothing else is left."""
        self.host.wait_for_pong()
        self.host.server()
        self.acknowledged = client.verify()
        client.wait_for_more()
        deadline = time.monotonic() + 5
        while left := [*strays(self.host), *(self.own_cgroups() ^ self.cgroups)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


@pytest.mark.timeout(0 if FULL else 600)
def test_kills_under_load_lose_no_acknowledged_write(
    host: Host, record_property: Callable[[str, object], None]
) -> None:
    image = tag(host, "redis", "1.0", "2.0")
    began = time.monotonic()
    for version in ("2.0", "1.0"):
        host.apply(server(image, version, "move"))
    host.wait_for_pong()
    load = _Load(host, image)
    try:
        with writing(host) as client:
            client.wait_for_more()
            while load.killed < KILLS:
                load.kill()
                if load.chance.random() < 0.75:  # otherwise what is killed next finds what this one has left
                    load.recover()
                    load.settle(client)
            load.killer.run(*load.applying("2.0"))
            load.settle(client)
            assert load.version() == "2.0"
    except BaseException:
        print("\n".join(load.killer.told))
        raise
    finally:
        took = time.monotonic() - began
        figures = f"{load.killed} kills, {load.said} recoveries said, {load.acknowledged} writes acknowledged"
        print(f"seed {SEED}: {figures}, {took:.0f} s")
        record_property("load", f"{host.machine.init}: {figures}")
