"""Limits on cgroup v2, on kernels of virtual machines: machines that share this one's kernel may lack controllers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.conftest import lacking
from tests.ground import images, roots, vm
from tests.init.conftest import SUITE

LIMITS = {"memory": "64M", "memory_swap": "0", "cpus": 0.5, "cpu_weight": 250, "pids": 40, "io_weight": 300}
FILES = {
    "memory.max": str(64 << 20),
    "memory.swap.max": "0",
    "cpu.max": "50000 100000",
    "cpu.weight": "250",
    "pids.max": "40",
    "io.weight": "default 300",
}
# Takes too much in a child, says how that ended, and waits.
GREEDY = """
trap 'exit 0' TERM
dd if=/dev/zero of=/dev/null bs=256M count=1
echo "ended with $?"
sleep 1000 & wait $!
"""


@pytest.fixture(params=sorted(roots.INITS))
def machine(request: pytest.FixtureRequest, appbox_layer: Callable[[roots.Root], Path]) -> Iterator[vm.VirtualMachine]:
    if reason := lacking("vm"):
        pytest.skip(reason)
    root = roots.ensure(request.param, SUITE)
    with vm.VirtualMachine(root, [appbox_layer(root)], images=[images.ensure("busybox")]) as booted:
        booted.boot()
        yield booted


def manifest(name: str, script: str, limits: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "image": "oci:/var/cache/appbox-dev/images/busybox",
        "version": "debian",
        "process": {"entrypoint": ["sh", "-c", script], "args": []},
        "service": {"restart": "no"},
        "resources": limits,
    }


def test_limits_are_set_read_back_and_kept(machine: vm.VirtualMachine) -> None:
    """One machine for all of it: booting takes longer than any of this."""
    machine.write("/root/job.toml", tomli_w.dumps(manifest("job", GREEDY, LIMITS)))
    machine.run(["appbox", "apply", "/root/job.toml"])
    group = group_of(machine)
    names = " ".join(FILES)
    found = machine.run(["sh", "-c", f"cd {group} && head -n 1 {names}"]).out
    for name, value in FILES.items():
        assert f"==> {name} <==\n{value}\n" in found
    assert "ended with 137" in machine.run(["appbox", "logs", "job"]).out
    status = json.loads(machine.run(["appbox", "--json", "status", "job"]).out)
    assert status["state"] == "running"
    assert status["usage"]["oom_kills"] == 1
    assert status["usage"]["processes"] == 2
    assert 0 < status["usage"]["memory"] < 64 << 20
    machine.run(["appbox", "stop", "job"])
    assert "the kernel has killed 1 of its processes" in everything_said(machine)
    a_limit_that_does_not_take(machine)


def group_of(machine: vm.VirtualMachine) -> str:
    """Return the container's cgroup, in which the kernel has killed one process.

    It is below the unit's: whoever ends the unit ends the service.
    """
    units = {"systemd": ("system.slice/job.service",), "openrc": ("openrc.job", "job")}[machine.init]
    words = ["grep", "-lsx", "oom_kill 1", *(f"/sys/fs/cgroup/{unit}/job/memory.events" for unit in units)]
    found = ""

    def killed() -> str:
        nonlocal found
        found = machine.run(words, check=False).out.strip()
        return found

    machine.wait_until(killed, 120, "the death of the greedy")
    return found.removesuffix("/memory.events")


def everything_said(machine: vm.VirtualMachine) -> str:
    if machine.init == "systemd":
        return machine.run(["journalctl", "--no-pager", "-u", "job"]).out
    return machine.console() + machine.run(["sh", "-c", "cat /var/log/appbox/* /var/log/rc.log"], check=False).out


def a_limit_that_does_not_take(machine: vm.VirtualMachine) -> None:
    """Somebody changes what the runtime is told: the start fails, and says what and why."""
    spec = "/opt/containers/job/.current/config.json"
    machine.run(["sed", "-i", 's/"limit": 40$/"limit": 41/', spec])
    failed = machine.run(["/opt/containers/job/run"], check=False)
    assert failed.code == 1
    assert "resources.pids did not take: 40 was asked for, and " in failed.err
    assert "pids.max says 41" in failed.err
    assert machine.run(["runc", "list", "--quiet"]).out == ""
