"""Upgrades on a real init: undone when the new version does not get well, with its data; hooks, formats, rollback."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.init.host import PORT, Host, redis_manifest, script_manifest

IMAGES = "/var/cache/appbox-dev/images"
CHECK = {"tcp": PORT, "interval": 1, "timeout": 2, "retries": 2, "start_period": 5}
SICK = ["sh", "-c", "echo not in the mood; exit 3"]
BROKEN = {"exec": SICK, "interval": 1, "timeout": 5, "retries": 1, "start_period": 0}


def tag(host: Host, image: str, *versions: str) -> str:
    """Give an image several tags in a layout of its own; return that as a manifest names it."""
    for version in versions:
        host.appbox("-q", "image", "copy", f"oci:{IMAGES}/{image}:debian", f"oci:{host.home}/images/{image}:{version}")
    return f"oci:{host.home}/images/{image}"


def status(host: Host, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.appbox("--json", "status", name).out)
    return found


def generations(host: Host, name: str) -> list[tuple[int, str, str]]:
    """Return number, version and state of a service's generations, the newest first."""
    found = json.loads(host.appbox("--json", "history", name).out)
    return [(one["number"], one["version"], one["state"]) for one in found["generations"]]


def one_server(host: Host, name: str = "redis-server") -> None:
    assert len(host.machine.find(name)) == 1, host.machine.processes()


def test_a_version_that_does_not_get_well_is_taken_back_with_its_data(host: Host) -> None:
    image = tag(host, "redis", "1.0", "2.0")
    durable = {"args": ["redis-server", "--port", str(PORT), "--appendonly", "yes", "--appendfsync", "always"]}

    def cache(version: str, check: dict[str, Any], data: str) -> dict[str, Any]:
        return redis_manifest(image=image, version=version, process=durable, health=check, upgrade={"data": data})

    host.apply(cache("1.0", CHECK, "move"))
    assert host.redis("SET", "a", "1") == "OK"
    for data in ("move", "copy"):
        result = host.apply(cache("2.0", BROKEN, data), code=1)
        assert "cache: 2.0 failed, and 1.0 is back: is unhealthy" in result.err
        assert "\n  2.0 did not get well: going back to 1.0\n" in result.out
        told = host.appbox("status").out
        assert re.search(r"\ncache: 2\.0 failed on \S+Z and is not tried again \(is unhealthy.*apply --retry", told), (
            told
        )
        assert "the command ended with 3: not in the mood" in result.err
        assert "it is not tried again until its manifest or image changes" in result.err
        assert host.redis("GET", "a") == "1"
        one_server(host)
        assert (status(host, "cache")["version"], status(host, "cache")["health"]) == ("1.0", "healthy")
        again = host.apply(cache("2.0", BROKEN, data), code=1)
        assert "2.0 did not get well on" in again.err
        assert "change its manifest, or give --retry" in again.err
        one_server(host)
        assert "2.0 failed, and 1.0 is back" in host.apply(cache("2.0", BROKEN, data), "--retry", code=1).err
        assert host.redis("GET", "a") == "1"
    # A configuration that does not get well is undone like a version.
    assert "1.0 failed, and generation 1 is back" in host.apply(cache("1.0", BROKEN, "copy"), code=1).err
    one_server(host)
    host.apply(cache("2.0", CHECK, "copy"))
    assert host.redis("SET", "a", "2") == "OK"
    assert host.redis("SET", "b", "2") == "OK"
    plan = host.appbox("rollback", "--plan", "cache").out
    assert "stop it (its version changes)" in plan
    host.appbox("rollback", "cache")
    assert (host.redis("GET", "a"), host.redis("GET", "b")) == ("1", "")
    one_server(host)
    assert status(host, "cache")["version"] == "1.0"
    newest = generations(host, "cache")[0]
    host.appbox("rollback", "cache", "--to", f"@{newest[0]}")
    assert (host.redis("GET", "a"), host.redis("GET", "b")) == ("2", "2")
    host.appbox("rollback", "cache", "--to", "1.0", "--keep-data")
    assert (host.redis("GET", "a"), host.redis("GET", "b")) == ("2", "2")
    assert status(host, "cache")["version"] == "1.0"
    one_server(host)
    host.reboot(hard=True)
    host.machine.wait_until(lambda: host.redis("GET", "b") == "2", 20, "the server after the reboot")
    assert not host.machine.exists(f"{host.places.state}/journal.json")


STAY = "trap 'exit 0' TERM; echo $V >>/data/ran; while :; do sleep 0.1; done"


def test_hooks_and_formats(host: Host) -> None:
    image = tag(host, "busybox", "1", "2", "3")

    def job(version: str, form: str, migrate: str = "", **upgrade: Any) -> dict[str, Any]:
        moved = {"migrate": ["sh", "-c", migrate]} if migrate else {}
        table = {"data": "copy", "data_format": form, **moved, **upgrade}
        manifest = script_manifest(STAY, image=image, version=version, upgrade=table, network={"mode": "none"})
        manifest["process"]["env"] = {"V": version}
        return manifest

    host.apply(job("1", "a"))
    assert "its data has the format a, and 2 is for the format b" in host.apply(job("2", "b"), code=3).err
    failing = job("2", "b", "echo $V >/data/half; echo no way >&2; exit 9")
    result = host.apply(failing, code=1)
    assert "2 failed, and 1 is back" in result.err
    assert "no way" in result.err
    assert not host.has_data("job", "half")
    assert host.is_active("job")
    before = [["sh", "-c", "echo before $V >>/data/hooks"]]
    after = [["sh", "-c", "echo after $V >>/data/hooks; cat /data/form"]]
    host.apply(job("2", "b", "cp /data/ran /data/form; echo migrate $V >>/data/hooks", before=before, after=after))
    assert host.data("job", "hooks") == "before 1\nmigrate 2\nafter 2\n"
    log = host.machine.read(f"{host.places.logs}/job:hooks.log")
    assert "no way" in log
    assert "upgrade.after" in log
    # The old version has the data that it can read; forward again it is migrated again.
    host.appbox("rollback", "job")
    assert not host.has_data("job", "form")
    assert host.data("job", "hooks") == "before 1\n"
    assert "its data has the format" in host.appbox("rollback", "job", "--to", "2", "--keep-data", code=1).err
    # A hook that fails stops the upgrade: before it, nothing has happened; after it, the old version is back.
    assert "upgrade.before" in host.apply(job("3", "a", before=[["false"]]), code=1).err
    assert host.is_active("job")
    result = host.apply(job("3", "a", after=[["sh", "-c", "echo oh dear; exit 4"]]), code=1)
    assert "3 failed, and 1 is back" in result.err
    assert "oh dear" in result.err
    assert status(host, "job")["version"] == "1"
    # A user's service has a shell of root's that waits for its end.
    assert len([p for p in host.machine.processes() if p.words[:2] == ("sh", "-c") and p.user]) == 1
