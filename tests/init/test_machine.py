"""The ground itself: a machine is what it claims to be and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ground import cache, roots
from tests.ground.machine import Machine
from tests.init.host import Host


def test_pid_1_is_the_init_and_cgroups_are_unified(host: Host) -> None:
    first = host.machine.processes()[0]
    assert first.pid == 1
    assert first.name == ("systemd" if host.systemd else "init")
    assert " /sys/fs/cgroup cgroup2 " in host.machine.run(["cat", "/proc/mounts"]).out


@pytest.mark.parametrize("hard", [False, True], ids=["reboot", "power cut"])
def test_disk_survives_a_reboot_and_run_does_not(host: Host, *, hard: bool) -> None:
    for path in ("/etc/kept", "/opt/kept", "/var/lib/kept", "/run/lost"):
        host.machine.write(path, path)
    host.machine.reboot(hard=hard)
    assert [host.machine.read(path) for path in ("/etc/kept", "/opt/kept")] == ["/etc/kept", "/opt/kept"]
    assert host.machine.exists("/var/lib/kept")
    assert not host.machine.exists("/run/lost")


def test_a_machine_leaves_nothing(host: Host) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    with Machine(roots.ensure(host.machine.init)) as machine:
        machine.boot()
        process = machine.start(["setsid", "sleep", "1000"])
        pid, cgroup, directory = machine.pid, machine.cgroup, machine.directory
    process.communicate()
    assert not Path(f"/proc/{pid}").exists()
    assert not cgroup.exists()
    assert not directory.exists()
    assert Path("/proc/self/mountinfo").read_text() == before
    assert cache.root() in directory.parents
