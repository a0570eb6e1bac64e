"""Upgrades of a server that is written to all the time, killed at random moments: no acknowledged write is lost."""

from __future__ import annotations

import os
import random
import time

from tests.init.host import Host
from tests.init.load import Client, Killer, server, strays, writing
from tests.init.test_upgrade import status, tag

KILLS = int(os.environ.get("APPBOX_TEST_KILLS", "15"))
"""Kills on each init; `./dev crash --full` asks for 100."""
SEED = int(os.environ.get("APPBOX_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


def _settled(host: Host, client: Client, cgroups: set[str]) -> int:
    """See that exactly one server runs with all that was acknowledged, and that nothing else is left."""
    host.wait_for_pong()
    host.server()
    acknowledged = client.verify()
    client.wait_for_more()
    deadline = time.monotonic() + 5
    while (left := [*strays(host), *(_cgroups(host) ^ cgroups)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    return acknowledged


def _cgroups(host: Host) -> set[str]:
    return {path for path in host.machine.cgroups() if "cache" in path}


def test_kills_under_load_lose_no_acknowledged_write(host: Host) -> None:
    image = tag(host, "redis", "1.0", "2.0")
    killer = Killer(host, SEED)
    print(f"seed {SEED}")
    killed, recovered, acknowledged, began = 0, 0, 0, time.monotonic()

    def manifest(*versions: str) -> str:
        version, data = killer.chance.choice(versions), killer.chance.choice(("move", "copy"))
        killer.tell(("next",), f"{version}, {data}")
        return host.write_manifest(server(image, version, data))

    host.apply(server(image, "1.0", "move"))
    host.wait_for_pong()
    cgroups = _cgroups(host)
    before = time.monotonic()
    killer.run("apply", host.write_manifest(server(image, "2.0", "move")))
    killer.longest = time.monotonic() - before
    try:
        with writing(host) as client:
            client.wait_for_more()
            while killed < KILLS:
                # Another version, so that there is something to kill.
                other = "1.0" if status(host, "cache")["version"] == "2.0" else "2.0"
                words = ("apply", manifest(other)) if killer.chance.random() < 0.8 else ("rollback", "cache", "--keep-data")
                killed += killer.kill(*words)
                how = killer.chance.random()
                if how < 0.25:
                    continue  # what is killed next finds what this one has left
                words = ("prune",) if how < 0.5 else ("apply", manifest("1.0", "2.0"))
                recovered += "interrupted" in killer.run(*words).err
                acknowledged = _settled(host, client, cgroups)
                killer.tell(("all", "is", "well"), f"{acknowledged} writes")
            killer.run("apply", manifest("2.0"))
            acknowledged = _settled(host, client, cgroups)
            assert status(host, "cache")["version"] == "2.0"
    except BaseException:
        print("\n".join(killer.told))
        raise
    took = time.monotonic() - began
    print(
        f"{killed} kills, {recovered} recoveries that were said, {acknowledged} writes acknowledged, 0 lost, {took:.0f} s"
    )
