"""On a real init: what a kill left to do is done, what has no way back is said, nobody starts a service half-way."""

from __future__ import annotations

import json
from typing import Any

from tests.init.host import Host, script_manifest
from tests.init.test_upgrade import generations, status, tag

STAY = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def journal(host: Host, origin: tuple[str, int], target: tuple[str, int], **more: Any) -> None:
    """Write down a change of the service `job` as if its appbox had been killed."""
    places = [{"directory": place, "generation": number} for place, number in (origin, target)]
    row = {"service": "job", "origin": places[0], "target": places[1], "running": False, "made": True, "others": []}
    text = json.dumps({"schema": 1, "services": [{**row, **more}]})
    host.machine.write("/var/lib/appbox/journal.json", text)


def test_an_interrupted_change_comes_to_its_end(host: Host) -> None:
    image = tag(host, "busybox", "1", "2")

    def job(version: str, after: str = "echo after >>/data/hooks", script: str = STAY, **tables: Any) -> dict[str, Any]:
        upgrade = {"data": "copy", "after": [["sh", "-c", after]]}
        return script_manifest(script, image=image, version=version, upgrade=upgrade, **tables)

    # A first install that was killed before its start is started.
    host.apply(job("1"), "--no-start")
    assert not host.is_active("job")
    journal(host, ("", 0), ("job-1", 1), starts=True)
    assert "job: an interrupted change to job-1 was finished" in host.appbox("prune").err
    assert host.is_active("job")
    # An upgrade that was killed before its last command runs it, whoever comes next.
    host.apply(job("2"))
    assert host.data("job", "hooks") == "after\n"
    for command in (["prune"], ["apply", host.write_manifest(job("2"))]):
        host.machine.path("/opt/containers/job/data/data/hooks").unlink()
        journal(host, ("job-1", 1), ("job-2", 2), running=True, starts=True, upgrade=True)
        host.appbox(*command)
        assert host.data("job", "hooks") == "after\n"
        assert not host.machine.exists("/var/lib/appbox/journal.json")
    # When that fails the version of before is back, as it would have been, and this one is not tried again.
    host.appbox("rollback", "job")
    host.appbox("stop", "job")
    failing = job("2", after="exit 4")
    host.apply(failing, "--no-start")
    number = generations(host, "job")[0][0]
    journal(host, ("job-1", 1), ("job-2", number), running=True, starts=True, upgrade=True)
    said = host.appbox("prune").err
    assert "was undone, since it failed: job: upgrade.after failed: it ended with 4" in said
    assert status(host, "job")["version"] == "1"
    assert host.is_active("job")
    assert "2 did not get well on" in host.apply(failing, code=1).err
