"""Health checks and readiness on a real init: what is asked, when a start is complete, what is done to the ill."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.init.host import PORT, Host, redis_manifest, script_manifest

FAST = {"interval": 1, "timeout": 2, "retries": 1, "start_period": 0}
WELL = ["sh", "-c", "test -e /data/well || { echo no well; exit 7; }"]
STAY = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def health(host: Host, name: str) -> dict[str, Any]:
    """Return what status says of a service."""
    found: dict[str, Any] = json.loads(host.appbox("--json", "status", name).out)
    return found


def wait_for(host: Host, name: str, state: str) -> dict[str, Any]:
    """Wait until a service is in a state of health; return what status says then."""
    host.machine.wait_until(lambda: health(host, name)["health"] == state, 20, f"{name} to be {state}")
    return health(host, name)


def well(host: Host, name: str, *, yes: bool) -> None:
    """Make the service pass its check, or fail it."""
    host.appbox("exec", name, *(("touch", "/data/well") if yes else ("rm", "/data/well")))


def starts(host: Host, name: str = "job") -> int:
    """Return how often the service was started."""
    return len(host.data(name, "starts").splitlines())


def test_a_start_is_complete_when_the_service_is_healthy_and_a_sick_one_is_restarted(host: Host) -> None:
    check = {"exec": WELL, **FAST, "retries": 2, "restart_limit": "1/600s"}
    host.apply(script_manifest(f"echo x >>/data/starts; sleep 0.6; touch /data/well; {STAY}", health=check))
    assert health(host, "job")["health"] == "healthy"
    assert host.has_data("job", "starts")
    well(host, "job", yes=False)
    host.machine.wait_until(lambda: starts(host) == 2, 20, "the restart")
    wait_for(host, "job", "healthy")
    well(host, "job", yes=False)
    found = wait_for(host, "job", "unhealthy")
    assert "the command ended with 7: no well" in found["health_problem"]
    assert "unhealthy" in host.appbox("status").out
    time.sleep(2)
    assert starts(host) == 2  # one restart in ten minutes, and no more
    assert "is unhealthy (exit-7) and is restarted" in host.appbox("logs", "job").out
    if host.systemd:
        # While it asks again, once a second, it is not listed.
        listed = ["systemctl", "--failed", "--plain"]
        host.machine.wait_until(lambda: "job:health.service" in host.init(listed).out, 20, "its failed unit")
    well(host, "job", yes=True)
    wait_for(host, "job", "healthy")
    host.control("stop", "job")
    assert not health(host, "job")["health"]
    host.machine.wait_until(lambda: not host.traces("job"), 5, f"the end of {host.traces('job')}")


def test_an_unhealthy_service_is_stopped_or_only_shown(host: Host) -> None:
    script = f"echo x >>/data/starts; touch /data/well; {STAY}"
    for name, action in (("ill", "stop"), ("odd", "none")):
        host.write_manifest(script_manifest(script, name=name, health={"exec": WELL, **FAST, "on_unhealthy": action}))
    host.appbox("apply", host.services)
    for name in ("ill", "odd"):
        well(host, name, yes=False)
    # OpenRC says that it is being stopped before it is.
    host.machine.wait_until(lambda: health(host, "ill")["state"] == "stopped", 20, "the stop")
    assert not host.is_active("ill")
    found = health(host, "ill")
    assert found["health"] == "unhealthy"
    assert "it was stopped for it" in found["health_problem"]
    wait_for(host, "odd", "unhealthy")
    time.sleep(1)
    assert host.is_active("odd")
    assert (starts(host, "ill"), starts(host, "odd")) == (1, 1)
    host.appbox("start", "ill")
    assert health(host, "ill")["health"] == "healthy"
    if host.systemd:
        # It has not failed while the next check runs.
        listing = ["systemctl", "--failed", "--plain"]
        host.machine.wait_until(lambda: "odd:health.service" in host.init(listing).out, 10, "the mark")
    host.appbox("remove", "odd")
    if host.systemd:
        assert "odd" not in host.init(["systemctl", "--all", "--plain"]).out


def test_a_service_that_never_gets_healthy_fails_to_start(host: Host) -> None:
    check = {
        "exec": ["sh", "-c", "echo $((6 * 7)); sleep 1000 & sleep 1000"],
        **FAST,
        "timeout": 1,
        "on_unhealthy": "stop",
    }
    error = host.apply(script_manifest(STAY, health=check), code=1).err
    assert "is unhealthy: it took too long: 42" in error
    host.machine.wait_until(lambda: not host.traces("job"), 10, f"the end of {host.traces('job')}")
    assert not host.is_active("job")
    assert health(host, "job")["health"] == "unhealthy"
    assert health(host, "job")["state"] == "failed"
    began = time.monotonic()
    missing = script_manifest(STAY, health={"exec": ["nope"], "start_period": 600})
    missing["service"] = {"restart_delay": 0, "restart_limit": "1000/60s"}
    error = host.apply(missing, code=1).err
    words = {"runc": 'exec: "nope": executable file not found in $PATH', "crun": "executable file `nope` not found"}
    assert f"is unhealthy: the command cannot be started: {words[host.runtime]}" in error
    assert time.monotonic() - began < 60
    # Where the init system tries again at once, that try still runs when the manifest is repaired. One without a check
    # knows nothing of what an earlier one found.
    host.apply({key: table for key, table in missing.items() if key != "health"})
    assert not health(host, "job")["health"]
    host.apply({**missing, "health": {"exec": ["true"]}})
    assert health(host, "job")["health"] == "healthy"
    host.control("stop", "job")
    assert health(host, "job")["state"] == "stopped"


def test_ports_and_pages_are_asked_for_in_the_network_of_the_service(host: Host) -> None:
    server = "mkdir /tmp/w; echo hi >/tmp/w/index.html; httpd -f -p 127.0.0.1:8080 -h /tmp/w & " + STAY
    own = {"network": {"mode": "none"}}
    seen = {**FAST, "on_unhealthy": "none"}
    host.write_manifest(
        script_manifest(server, name="page", health={"http": "http://127.0.0.1:8080/?a=%20'$(x)", **seen}, **own)
    )
    host.write_manifest(script_manifest(server, name="port", health={"tcp": 8080, **seen}, **own))
    host.write_manifest(redis_manifest(health={"tcp": PORT, **FAST}))
    host.appbox("apply", host.services)
    assert [health(host, name)["health"] for name in ("page", "port", "cache")] == ["healthy"] * 3
    host.appbox("exec", "page", "rm", "/tmp/w/index.html")
    host.appbox("exec", "port", "killall", "httpd")
    assert "the answer was 404" in wait_for(host, "page", "unhealthy")["health_problem"]
    host.machine.wait_until(
        lambda: "nothing listens there" in health(host, "port")["health_problem"], 10, "the refusal"
    )


def test_a_service_says_by_itself_that_it_is_ready(host: Host) -> None:
    host.machine.install("perl")
    said = redis_manifest(service={"notify": True})
    said["process"]["args"] += ["--supervised", "systemd"]
    host.apply(said)
    assert host.redis("ping") == "PONG"
    silent = host.write_manifest(script_manifest("sleep 0.5; exit 3", service={"notify": True, "restart": "no"}))
    began = time.monotonic()
    host.appbox("apply", silent, code=1)
    assert time.monotonic() - began < 30  # one that ends is not waited for
    host.control("stop", "cache")
    host.machine.wait_until(lambda: not host.traces("cache"), 5, f"the end of {host.traces('cache')}")
