"""Snapshots of a service that runs: paused, stopped or left alone, and running again afterwards whatever happens."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.init.host import Host, script_manifest

COUNTING = """
trap 'exit 0' TERM
n=$(cat /data/second 2>/dev/null || echo 0)
while :; do
  n=$((n + 1))
  echo "$n" >/data/.new && mv /data/.new /data/first
  echo "$n" >/data/.new && mv /data/.new /data/second
  [ $((n % 50)) -ne 0 ] || sleep 0.01
done
"""
"""Writes the same number to one file, then to another: at any instant the first is as large, or larger by one."""


@contextmanager
def on_xfs(host: Host, place: Path) -> Iterator[None]:
    """Mount a new xfs, whose files can share blocks, where the machine has its services."""
    image = place / "xfs.img"
    with image.open("wb") as file:
        file.truncate(300 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    device = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    name = device.stdout.strip()
    try:
        host.run(["mkdir", "-p", host.containers])
        if not host.machine.exists(name):
            host.machine.run(["mknod", name, "b", "7", name.removeprefix("/dev/loop")])
        host.machine.run(["mount", "-t", "xfs", name, host.containers])
        host.give(host.containers)
        yield
    finally:
        subprocess.run(["losetup", "--detach", name], check=True)  # once nobody has it mounted any more


def counted(host: Host, where: str) -> tuple[int, int]:
    text = host.run(["cat", f"{where}/data/data/first", f"{where}/data/data/second"]).out.split()
    return int(text[0]), int(text[1])


def snapshots(host: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(host.appbox("--json", "snapshot", "--list", "job").out)["snapshots"]
    return found


def by_clock(host: Host) -> list[str]:
    return [one["id"] for one in snapshots(host) if one["scheduled"]]


def goes_on(host: Host) -> None:
    """See that one service counts."""
    before = counted(host, f"{host.containers}/job")[0]
    host.machine.wait_until(lambda: counted(host, f"{host.containers}/job")[0] > before + 3, 10, "the service to go on")
    assert host.is_active("job")


def test_a_running_service_is_kept_and_brought_back(host: Host, tmp_path: Path) -> None:
    above = script_manifest("trap 'exit 0' TERM; while :; do sleep 0.1; done", name="above")
    with on_xfs(host, tmp_path):
        host.apply(script_manifest(COUNTING))
        host.apply({**above, "service": {"requires": ["job"]}})
        goes_on(host)
        pid = json.loads(host.appbox("--json", "status", "job").out)["pid"]
        for _ in range(3):
            assert re.search(r"the service was paused for [0-9.]+ s", host.appbox("snapshot", "job").out)
        for one in snapshots(host):
            first, second = counted(host, f"{host.containers}/.snapshots/job/{one['id']}")
            assert first - second in {0, 1}
            assert (one["state"], one["how"]) == ("paused", "reflink")
        assert json.loads(host.appbox("--json", "status", "job").out)["pid"] == pid
        goes_on(host)
        # Stopped: whoever requires it stops with it, and runs again, too.
        assert "the service was stopped for" in host.appbox("snapshot", "--stop", "job").out
        assert host.is_active("above")
        goes_on(host)
        host.appbox("snapshot", "--live", "job")
        assert [one["state"] for one in snapshots(host)[3:]] == ["stopped", "live"]
        # A command that was killed together with all that waited for it: the next one lets the service go on.
        held = f"{host.places.runs}/.held"
        host.run(["sh", "-c", f"mkdir -p {held}; echo pause >{held}/job"])
        host.oci("pause", "job")
        error = host.appbox("apply", host.services).err
        assert "job: resumed, since a command that had paused it was killed" in error
        goes_on(host)
        chosen = snapshots(host)[0]["id"]
        number = counted(host, f"{host.containers}/.snapshots/job/{chosen}")[1]
        assert counted(host, f"{host.containers}/job")[1] > number + 50
        host.control("stop", "job")
        host.appbox("restore", "job", chosen)
        assert not host.is_active("job")
        assert counted(host, f"{host.containers}/job")[1] == number
        host.appbox("start", "above")
        goes_on(host)
        done = json.loads(host.appbox("--json", "restore", "job", chosen).out)
        assert done["down_seconds"] < 5
        assert host.is_active("above")
        goes_on(host)
        assert host.appbox("plan", "--exit-code", host.services).code == 0
        when = "*:*:0/5" if host.systemd else "*-*-* *:*:00"
        host.apply(script_manifest(COUNTING, snapshots={"schedule": when, "keep": 1}))
        for _ in range(2):
            if not host.systemd:  # what cron does each minute
                host.run(["env", "-i", "sh", "-c", host.cron_line("job")[1]])
            host.machine.wait_until(lambda: by_clock(host), 30, "a snapshot by the clock")
        (last,) = by_clock(host)[-1:]
        if host.systemd:
            host.machine.wait_until(lambda: by_clock(host) not in ([], [last]), 30, "the next one")
        goes_on(host)
        host.appbox("remove", "above")
        host.appbox("remove", "--purge", "job")
        assert not host.machine.exists(f"{host.containers}/.snapshots/job")
        host.machine.run(["umount", host.containers])
