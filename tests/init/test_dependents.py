"""What a change of one service does to those that need it; a service that becomes a timed job and is one no more."""

from __future__ import annotations

import json
from typing import Any

from tests.init.host import Host, script_manifest

LOOP = "echo up >>/data/starts; trap 'exit 0' TERM; while :; do sleep 0.1; done"


def starts(host: Host, name: str) -> int:
    """Return how often a service has been started."""
    path = f"{host.containers}/{name}/data/data/starts"
    return host.machine.read(path).count("up") if host.machine.exists(path) else 0


def state(host: Host, name: str) -> Any:
    return json.loads(host.appbox("--json", "status", name).out)["state"]


def apply(host: Host, *manifests: dict[str, Any], code: int = 0) -> str:
    """Write the manifests and apply the whole directory."""
    for manifest in manifests:
        host.write_manifest(manifest)
    result = host.appbox("apply", host.services, code=code)
    return result.out + result.err


def test_an_upgrade_brings_back_what_it_took_down(host: Host) -> None:
    host.run(
        ["appbox", "image", "copy", "oci:/var/cache/appbox-dev/images/busybox:debian", f"oci:{host.home}/image:two"]
    )
    db = script_manifest(LOOP, name="db")
    web = script_manifest(LOOP, name="web", service={"requires": ["db"]})
    side = script_manifest(LOOP, name="side", network={"mode": "service:db"})
    apply(host, db, web, side)
    host.machine.wait_until(lambda: all(starts(host, name) == 1 for name in ("db", "web", "side")), 20, "three starts")
    planned = host.write_manifest({**db, "image": f"oci:{host.home}/image", "version": "two"})
    text = host.appbox("plan", host.services).out
    assert "start it (it requires db, and stopped with it)" in text
    alone = host.appbox("apply", planned).out  # the others are not named, and come back nevertheless
    assert alone.count("start it (it requires db, and stopped with it)") == 2
    assert host.run(["readlink", f"{host.containers}/db"]).out.strip() == "db-two"
    names = ("db", "web", "side")
    # Under OpenRC the one that shares a network may be started twice.
    host.machine.wait_until(lambda: all(starts(host, name) >= 2 for name in names), 30, "three starts again")
    host.machine.wait_until(lambda: all(host.is_active(name) for name in names), 10, "three that run")
    assert "nothing to do" in host.appbox("apply", host.services).out
    # The way back takes them along as well, one of a configuration alone starts what it changes, and so does one that
    # is undone.
    assert host.appbox("rollback", "db").out.count("start it (it requires db, and stopped with it)") == 2
    host.machine.wait_until(lambda: all(host.is_active(name) for name in names), 30, "three that run")
    host.appbox("apply", host.write_manifest({**db, "process": {**db["process"], "env": {"A": "1"}}}))
    before = starts(host, "db")
    assert "restart it (what it runs with changed)" in host.appbox("rollback", "db").out
    host.machine.wait_until(lambda: starts(host, "db") > before, 20, "another start")
    host.machine.wait_until(lambda: all(host.is_active(name) for name in names), 30, "three that run")
    bad = script_manifest("exit 3", name="db", service={"restart": "no"})
    assert "is back" in host.appbox("apply", host.write_manifest(bad), code=1).err
    host.machine.wait_until(lambda: all(host.is_active(name) for name in names), 30, "three that run")
    assert (
        "is required by" in host.appbox("remove", "db", code=1).err
        or "network" in host.appbox("remove", "db", code=1).err
    )


def test_what_failed_takes_nobody_down_for_good(host: Host) -> None:
    copy = ["appbox", "image", "copy", "oci:/var/cache/appbox-dev/images/busybox:debian", f"oci:{host.home}/image:two"]
    host.run(copy)
    names = ("alone", "db", "web")
    good = {"db": script_manifest(LOOP, name="db"), "alone": script_manifest(LOOP, name="alone")}
    web = script_manifest(LOOP, name="web", service={"requires": ["db"]})
    apply(host, *good.values(), web)
    host.machine.wait_until(lambda: all(starts(host, name) == 1 for name in names), 20, "three starts")
    new = {"image": f"oci:{host.home}/image", "version": "two"}
    bad = {**script_manifest("exit 3", name="db", service={"restart": "no"}), **new}
    said = apply(host, bad, {**web, **new}, {**good["alone"], **new}, code=1)
    assert "alone: done" in said
    assert "db: failed: " in said
    assert "web: not begun: it requires db, which failed" in said
    current = [host.run(["readlink", f"{host.containers}/{name}"]).out.strip() for name in names]
    assert current == ["alone-two", "db-debian", "web-debian"]
    host.machine.wait_until(lambda: all(host.is_active(name) for name in names), 20, "three that run")


def test_a_service_becomes_a_job_and_one_no_more(host: Host) -> None:
    apply(host, script_manifest(LOOP, name="job"))
    host.machine.wait_until(lambda: starts(host, "job") == 1, 20, "the start")
    timed = script_manifest("echo done; exit 3", name="job", service={"schedule": "*-*-01 03:30", "restart": "no"})
    apply(host, timed)
    assert not host.is_active("job")
    assert state(host, "job") == "waiting"
    assert "nothing to do" in apply(host)
    host.reboot()
    assert state(host, "job") == "waiting"
    host.appbox("start", "job", code=1)
    shown = json.loads(host.appbox("--json", "status", "job").out)
    assert (shown["last_status"], shown["next_run"] != "") == ("3", True)
    apply(host, script_manifest(LOOP, name="job"))
    host.machine.wait_until(lambda: starts(host, "job") == 2, 20, "the start as a service")
    left = host.run(["sh", "-c", "ls /etc/systemd/system /etc/cron.d /etc/systemd/system/timers.target.wants; :"]).out
    assert "job.timer" not in left
    assert "appbox-job" not in left
    assert "nothing to do" in apply(host)


def test_what_stopped_along_with_a_killed_change_is_started_by_the_next_command(host: Host) -> None:
    host.write_manifest(script_manifest(LOOP, name="db", network={"mode": "none"}))
    host.write_manifest(
        script_manifest(LOOP, name="web", network={"mode": "none"}, service={"requires": ["db"]}),
    )
    host.write_manifest(script_manifest(LOOP, name="alone", network={"mode": "none"}))
    host.appbox("apply", host.services)
    entry = {
        "service": "db",
        "origin": {"directory": "db-debian", "generation": 1},
        "target": {"directory": "db-debian", "generation": 1},
        "running": True,
        "made": False,
        "others": ["web"],
    }
    host.control("stop", "db")
    host.write(f"{host.places.state}/journal.json", json.dumps({"schema": 1, "services": [entry]}), 0o600)
    said = host.appbox("--json", "apply", f"{host.services}/alone.toml")
    assert "db: an interrupted change to db-debian was finished" in said.err
    assert json.loads(said.out)["changes"] is False
    assert all(host.is_active(name) for name in ("alone", "db", "web"))
    assert not host.machine.exists(f"{host.places.state}/journal.json")
