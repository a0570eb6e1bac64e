"""A host that changes from one runtime to another: its services go along with the next apply, and not before."""

from __future__ import annotations

import pytest

from tests.init.host import AWAY, Host, redis_manifest


@pytest.mark.parametrize("host", ["systemd-user"], indirect=True)
def test_services_follow_from_one_runtime_to_the_other(host: Host) -> None:
    path = host.write_manifest(redis_manifest())
    host.appbox("apply", path)
    host.wait_for_pong()
    assert host.redis("set", "key", "value") == "OK"
    # With both there, runc is taken, and nothing changes.
    host.machine.run(["cp", f"{AWAY}/crun", "/usr/bin/crun"])
    assert host.appbox("plan", path).out == "nothing to do\n"
    host.machine.run(["sh", "-c", f'mv "$(command -v runc)" {AWAY}/'])
    # What runs goes on, and is seen. It is known what comes of it, and what there was before is cleaned up.
    assert host.redis("ping") == "PONG"
    assert "running" in host.appbox("status").out
    planned = host.appbox("plan", "--exit-code", path, code=4).out
    assert "generation 2 of cache-debian" in planned
    assert "restart it" in planned
    host.appbox("apply", path)
    host.wait_for_pong()
    assert host.redis("get", "key") == "value"
    assert len(host.machine.find("redis-server")) == 1
    assert [path.name for path in host.machine.path(f"{host.places.states}/crun").iterdir()] == ["cache"]
    assert not list(host.machine.path(f"{host.places.states}/runc").iterdir())
    assert host.appbox("plan", path).out == "nothing to do\n"
    assert host.appbox("exec", "cache", "redis-cli", "-p", "6390", "ping").out == "PONG\n"
    # Without any, a sentence says what is missing, and what runs goes on.
    host.machine.run(["rm", "/usr/bin/crun"])
    assert "neither runc nor crun is installed" in host.appbox("plan", path, code=8).err
    assert host.redis("ping") == "PONG"
