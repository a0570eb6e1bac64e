"""On a real init: what a kill left to do is done, what has no way back is said, nobody starts a service half-way."""

from __future__ import annotations

import json
from typing import Any

from tests.init.host import Host, script_manifest
from tests.init.test_upgrade import generations, status, tag

STAY = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


HOLD = """
import os, time
from appbox import session
from appbox.host.start_lock import StartLock
session.choose_owner(session.MYSELF if os.geteuid() else os.environ.get("OWNER", ""))
with session.Options().open_root() as root:
    lock = StartLock(root, "timed")
    lock.take()
    print("held")
    time.sleep(3)
    lock.give_back()
"""


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
    # A migration in place has no way back: that is said before, and when the new version does not get well.
    moving = {"data": "move", "data_format": "b", "migrate": ["true"]}
    sick = {"exec": ["false"], "interval": 1, "retries": 1, "start_period": 0}
    last = script_manifest(STAY, image=image, version="2", upgrade=moving, health=sick)
    host.apply({**job("1"), "upgrade": {"data_format": "a"}})
    plan = host.appbox("plan", host.write_manifest(last)).out
    assert "of which no copy is kept, so that 2 stays even if it does not get well" in plan
    said = host.appbox("apply", "--yes", host.write_manifest(last), code=1).err
    assert "job: 2 failed, and stays: there is no way back to generation" in said
    assert "its data has the format b, and 1 is for the format a" in said
    assert status(host, "job")["version"] == "2"
    assert not host.machine.exists(f"{host.places.state}/journal.json")


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
    run, place = host.beside("calm", [f"{host.containers}/calm/run", "health"]), f"{host.places.runs}/calm"

    def failures() -> int:
        return int(host.machine.read(f"{place}/health").split()[1])

    host.machine.path(f"{host.containers}/calm/data/data/bad").write_text("")
    host.machine.run(run)
    assert failures() == 1
    during = host.machine.start(run)
    host.machine.wait_until(lambda: host.runs("sleep 1"), 10, "the check")
    host.machine.write(f"{place}/paused", "")
    during.communicate(timeout=20)
    assert during.returncode == 0
    assert failures() == 1
    held = f"{host.places.runs}/.held"
    host.run(["sh", "-c", f"mkdir -p {held}; echo pause >{held}/calm"])
    host.oci("pause", "calm")
    host.machine.run(run)
    host.oci("resume", "calm")
    assert failures() == 1
    # When its snapshots are taken is no reason to start a service again.
    server = status(host, "calm")["pid"]
    for when in ("daily", ""):
        table = {"snapshots": {"schedule": when}} if when else {}
        host.apply(script_manifest(STAY, name="calm", health={**check, "retries": 5}, **table))
        assert status(host, "calm")["pid"] == server
        if host.systemd:
            active = host.init(["systemctl", "is-active", "calm:snapshot.timer"], check=False).out
            assert active == ("active\n" if when else "inactive\n")
        assert host.appbox("plan", f"{host.services}/calm.toml").out == "nothing to do\n"
    # While appbox changes a job's version or its data nobody starts it; its time has come when that is done.
    host.apply(script_manifest("echo ran >>/data/ran", name="timed", service={"schedule": "daily", "restart": "no"}))
    holder = host.start(["/usr/local/appbox/bin/python", "-c", HOLD])
    lock = host.machine.path(f"{host.places.runs}/timed")
    host.machine.wait_until(lambda: any(p.read_text().endswith("change\n") for p in lock.glob("lock.*")), 10, "it")
    if host.systemd:
        host.control("start", "timed")
    else:
        assert "appbox is changing it" in host.control("start", "timed", check=False).err
        if host.by_root:  # such a job waits for its next time
            holder.communicate(timeout=30)
            return
        due = host.machine.start(["sh", "-c", host.cron_line("timed")[1]])
    assert not host.has_data("timed", "ran")
    assert holder.poll() is None
    assert holder.communicate(timeout=30)[0] == b"held\n"
    host.machine.wait_until(lambda: host.has_data("timed", "ran"), 10, "the job")
    if not host.systemd:
        due.communicate(timeout=30)
