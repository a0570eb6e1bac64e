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
    host.write(f"{host.places.state}/journal.json", text)


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
        host.machine.path(f"{host.containers}/job/data/data/hooks").unlink()
        journal(host, ("job-1", 1), ("job-2", 2), running=True, starts=True, upgrade=True)
        host.appbox(*command)
        assert host.data("job", "hooks") == "after\n"
        assert not host.machine.exists(f"{host.places.state}/journal.json")
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


def test_nobody_starts_or_judges_a_service_half_way(host: Host) -> None:
    # A container that ignores its signal is ended, even when what would clean up behind it is lost.
    deaf = script_manifest("trap '' TERM; while :; do sleep 0.1; done")
    deaf["process"]["stop_timeout"] = 1
    host.apply(deaf)
    host.machine.path(f"{host.containers}/job-debian/.generations/1/run").unlink()
    host.appbox("stop", "job")
    assert [p for p in host.machine.processes() if "trap '' TERM" in " ".join(p.words)] == []
    # A health check that falls into a pause says nothing of the service.
    check = {"exec": ["sh", "-c", "[ ! -e /data/bad ] || { sleep 1; false; }"], "interval": 3600, "start_period": 0}
    host.apply(script_manifest(STAY, name="calm", health={**check, "retries": 5}))
    run, place = [f"{host.containers}/calm/run", "health"], "/run/appbox/calm"

    def failures() -> int:
        return int(host.machine.read(f"{place}/health").split()[1])

    host.machine.path(f"{host.containers}/calm/data/data/bad").write_text("")
    host.machine.run(run)
    assert failures() == 1
    during = host.machine.start(run)
    asking = lambda: any(tuple(p.words) == ("sleep", "1") for p in host.machine.processes())  # noqa: E731
    host.machine.wait_until(asking, 10, "the check")
    host.machine.write(f"{place}/paused", "")
    assert during.wait(20) == 0
    assert failures() == 1
    held = "mkdir -p /run/appbox/.held; echo pause >/run/appbox/.held/calm; runc pause calm"
    host.machine.run(["sh", "-c", held])
    host.machine.run(run)
    host.machine.run(["runc", "resume", "calm"])
    assert failures() == 1
