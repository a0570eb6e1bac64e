"""An OpenRC that has services of users (0.60 and later): a user's own one runs them, without any privilege."""

from __future__ import annotations

import json

import pytest

from tests.ground import roots
from tests.init.host import Host, script_manifest

BOOT = f"/etc/runlevels/default/user.{roots.USER}"
SERVES = """\
trap 'sleep 1; echo x >>/data/stops; exit 0' TERM
echo x >>/data/starts
touch /data/well
while :; do sleep 0.1; done
"""
CHECK = {"exec": ["test", "-e", "/data/well"], "interval": 1, "timeout": 9, "retries": 1, "start_period": 1}


def lines(host: Host, file: str) -> int:
    return len(host.data("job", file).splitlines()) if host.has_data("job", file) else 0


def findings(host: Host, code: int = 0) -> dict[str, str]:
    """Return what the user's doctor finds, without the keys that it matters for."""
    found = json.loads(host.appbox("--json", "doctor", code=code).out)["findings"]
    return {one["subject"]: one["state"] for one in found}


@pytest.mark.parametrize("host", ["openrc-user-own"], indirect=True)
def test_the_openrc_of_a_user_runs_services(host: Host) -> None:
    assert findings(host)["linger"] == "ok"  # the machine was prepared by root's `doctor --fix`, and by nothing else
    limited = host.write_manifest(script_manifest("true", name="never", resources={"memory": "64M"}))
    refused = host.appbox("plan", limited, code=8).err
    assert "nobody has given you a cgroup of your own" in refused
    assert f"appbox --user {roots.USER} apply" in refused
    host.run(["rm", limited])

    manifest = script_manifest(SERVES, health=CHECK, process={"stop_timeout": 20})
    manifest["process"] |= script_manifest(SERVES)["process"]
    assert "at boot, unless" not in host.apply(manifest).out
    assert host.is_active("job")
    assert "job" in host.init(["rc-update", "show", "default"]).out
    root_tries = host.machine.run(["appbox", "--user", roots.USER, "apply", host.services], check=False)
    assert (root_tries.code, "is run by the own OpenRC" in root_tries.err) == (1, True), root_tries

    # A killed runtime leads to another start, and so does bad health.
    host.machine.kill(host.machine.find("runc")[0])
    host.machine.wait_until(lambda: lines(host, "starts") == 2, 20, "another start")
    host.machine.wait_until(lambda: host.listed() == ["job"], 10, "its container")
    host.appbox("exec", "job", "rm", "/data/well")
    host.machine.wait_until(lambda: lines(host, "starts") == 3, 30, "a restart of a sick service")
    assert "is unhealthy (exit-1) and is restarted" in host.appbox("logs", "job").out

    stops = lines(host, "stops")
    host.control("stop", "job")
    assert (host.traces("job"), lines(host, "stops")) == ([], stops + 1)
    host.control("start", "job")

    # It is stopped before the machine goes down, however long that takes, and is there again.
    host.reboot()
    host.machine.wait_until(lambda: host.is_active("job"), 20, "the service after a reboot")
    assert lines(host, "stops") == stops + 2
    assert json.loads(host.appbox("--json", "status", "job").out)["state"] == "running"
    assert "all as they were unpacked" in host.appbox("verify", "job").out

    host.machine.run(["rm", BOOT])
    assert findings(host, code=8)["linger"] == "missing"
    said = host.appbox("plan", host.write_manifest({**manifest, "description": "another"})).out
    assert f"rc-update add user.{roots.USER}" in said
    host.appbox("remove", "job", "--purge")
    assert not host.is_active("job")
    assert not list(host.machine.path(f"{host.home}/.config/rc/init.d").iterdir())
    assert not list(host.machine.path(f"{host.home}/.config/rc/runlevels/default").iterdir())
