"""Order, timed jobs, reloading and logs: what the manifest says of a service's life, the same with every init."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.init.host import Host, script_manifest

STAY = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
STAMPING = """
stamp() { read -r up _ </proc/uptime; echo "$up" >>/data/$1; }
trap 'sleep 0.5; stamp stop; exit 0' TERM
stamp start; while :; do sleep 0.1; done
"""


def stamps(host: Host, when: str) -> dict[str, float]:
    """Return when services have started or stopped last."""
    return {name: float(host.data(name, when).split()[-1]) for name in ("base", "app", "a-looker")}


def test_services_start_in_order_and_stop_together(host: Host) -> None:
    base = script_manifest(STAMPING, name="base")
    app = script_manifest(STAMPING, name="app", service={"requires": ["base"]})
    looker = script_manifest(STAMPING, name="a-looker", service={"wants": ["app"], "after": ["app"]})
    for manifest in (app, base, looker):
        host.write_manifest(manifest)
    told = host.appbox("apply", host.services).out
    assert [line.split()[0] for line in told.splitlines() if line[:1].isalpha()][:3] == ["base", "app", "a-looker"]
    starts = stamps(host, "start")
    assert starts["base"] < starts["app"] < starts["a-looker"]
    host.control("stop", "base")
    assert not host.is_active("app")
    assert host.is_active("a-looker")
    host.control("start", "app")
    assert host.is_active("base")
    host.reboot()
    # Each is given its time before the next one is told.
    stops = stamps(host, "stop")
    assert stops["a-looker"] + 0.4 < stops["app"] < stops["base"] - 0.4
    host.machine.wait_until(lambda: host.is_active("a-looker"), 20, "all of them")
    assert "is required by app" in host.appbox("remove", "base", code=1).err
    host.write_manifest(script_manifest(STAMPING, name="base", service={"requires": ["app"]}))
    error = host.appbox("plan", host.services, code=3).err
    assert "app → base → app" in error
    host.write_manifest(script_manifest(STAMPING, name="base", service={"requires": ["nobody"]}))
    assert "there is no service nobody" in host.appbox("plan", host.services, code=3).err


JOB = 'trap "exit 5" TERM; echo start >>/data/starts; sleep "$1" & wait; echo "done with $1"; exit "$2"'


def test_a_timed_job_runs_at_its_times_and_its_last_result_is_kept(host: Host) -> None:
    when = {"schedule": "*:*:0/5" if host.systemd else "*-*-* *:*:00", "restart": "no"}
    host.apply(script_manifest(JOB, "1", "7", service={**when, "enable": False}))
    assert not host.machine.exists("/etc/cron.d/appbox-job")
    assert json.loads(host.appbox("--json", "status", "job").out)["state"] == "stopped"
    if not host.systemd:
        assert "cron knows no seconds" in host.apply(script_manifest(JOB, service={"schedule": "*:*:30"}), code=3).err
    host.appbox("start", "job")
    host.machine.wait_until(
        lambda: host.machine.exists(f"{host.places.state}/jobs/job"), 10, "the end of the first run"
    )
    status = json.loads(host.appbox("--json", "status", "job").out)
    assert status["last_status"] == "7"
    assert 1 <= status["last_seconds"] < 3
    # Now the clock starts it, and no run begins while another goes on.
    host.apply(script_manifest(JOB, "500", "0", service=when))
    host.appbox("plan", "--exit-code", f"{host.services}/job.toml")
    if host.systemd:
        host.machine.wait_until(lambda: len(host.data("job", "starts").splitlines()) > 1, 20, "the time of the job")
        time.sleep(6)
    else:
        assert json.loads(host.appbox("--json", "status", "job").out)["state"] == "waiting"
        # What cron does each minute.
        times, command = host.cron_line("job")
        assert times == "* * * * *"
        for _ in range(2):
            host.machine.run(["env", "-i", "sh", "-c", command])
            host.machine.wait_until(lambda: len(host.data("job", "starts").splitlines()) > 1, 20, "the job")
    assert len(host.data("job", "starts").splitlines()) == 2
    host.appbox("stop", "job")
    status = json.loads(host.appbox("--json", "status", "job").out)
    assert status["last_status"] == "5"
    assert status["next_run"]
    assert "done with 1" in host.appbox("logs", "job").out
    host.appbox("remove", "job", "--purge")
    assert not host.machine.exists(f"{host.places.state}/jobs/job")
    assert not host.machine.exists("/etc/cron.d/appbox-job")


TALKER = r"""
trap 'echo "heard HUP"' HUP; trap 'exit 0' TERM
printf 'esc \033[31m percent %%s \\n dollar $HOME\n'
echo "to stderr" >&2
echo "by name" >/dev/stdout
echo "<0>nothing for every terminal"
while :; do sleep 0.1; echo tick; done
"""


def test_a_service_that_never_stays_up_is_a_failed_start(host: Host) -> None:
    crashing = script_manifest("echo no configuration found; exit 3", name="job", volumes={})
    for restart in ("on-failure", "no"):
        error = host.apply({**crashing, "service": {"restart": restart, "restart_limit": "2/60s"}}, code=1).err
        assert error.startswith("appbox: job: does not stay up: no configuration found")
        assert error.count("no configuration found") == 1
    for verb in ("start", "restart"):
        assert "does not stay up" in host.appbox(verb, "job", code=1).err
    # What takes its time to fail never reaches a limit: the first try that has failed is enough to know.
    secrets = {"slow": {"command": ["sh", "-c", "sleep 2; exit 1"]}}
    slow = {**crashing, "name": "slow", "secrets": secrets, "service": {"restart_limit": "5/5s"}}
    began = time.monotonic()
    error = host.apply(slow, code=1).err
    assert "does not stay up" in error
    assert "the command of secret slow failed" in error
    assert time.monotonic() - began < 20
    status = ["--json", "status", "slow"]
    host.machine.wait_until(lambda: json.loads(host.appbox(*status).out)["state"] == "failed", 10, "the next try")
    host.appbox("stop", "slow")
    # Where a start waits for the service to be well, it is the init system that says that it failed.
    host.appbox("stop", "job")
    waiting = {**crashing, "health": {"exec": ["true"]}, "service": {"restart_limit": "2/60s"}}
    assert "failed: no configuration found" in host.apply(waiting, code=1).err
    above = script_manifest(STAY, name="above", service={"requires": ["job"]})
    assert "no configuration found" not in host.apply(above, code=1).err
    host.apply({**crashing, "process": {"entrypoint": ["sh", "-c", STAY]}})
    host.appbox("stop", "job")
    host.appbox("start", "above")


def test_reload_and_logs(host: Host) -> None:
    log = {"max_size": 20_000, "keep": 3}
    words = ["sh", "-c", 'echo "reloading $1" | tee /data/reloaded; [ "$1" != bad ] || exit 3', "sh", "good $x"]
    manifest = script_manifest(TALKER, service={"reload": words, "log": log})
    told = host.apply(manifest).out
    assert ("service.log has no effect under systemd" in told) == host.systemd
    host.appbox("reload", "job")
    assert host.data("job", "reloaded") == "reloading good $x\n"
    host.control("reload", "job")
    host.machine.wait_until(lambda: "tick" in host.appbox("logs", "job").out, 10, "a tick")
    out = host.appbox("logs", "-n", "1000", "job").out
    for line in (
        "esc \033[31m percent %s \\n dollar $HOME\n",
        "to stderr\n",
        "by name\n",
        "<0>nothing for every terminal\n",
    ):
        assert line in out
    assert host.appbox("logs", "-n", "1", "job").out == "tick\n"
    assert "to stderr\n" in host.appbox("logs", "--since", "1h", "job").out
    assert host.appbox("logs", "--since", "1h", "-n", "1", "job").out == "tick\n"
    assert host.appbox("logs", "--since", "2099-01-01", "job").out == ""
    stamped = host.appbox("logs", "-t", "-n", "1", "job").out
    assert re.fullmatch(r"[0-9-]{10}T[0-9:]{8}Z tick\n", stamped)
    assert json.loads(host.appbox("--json", "logs", "-n", "1", "job").out)["line"] == "tick"
    host.machine.install("pgrep")
    follower = host.start(["timeout", "120", "appbox", "logs", "-f", "-n", "0", "job"])
    time.sleep(1.5)
    host.apply({**manifest, "service": {"reload": "SIGHUP", "log": log}})
    host.appbox("reload", "job")
    host.machine.wait_until(lambda: "heard HUP" in host.appbox("logs", "job").out, 10, "the signal")
    time.sleep(1)
    host.machine.run(["sh", "-c", "kill $(pgrep -f '[a]ppbox.* logs -f')"])
    followed = follower.communicate(timeout=30)[0].decode()
    assert "tick" in followed
    assert "heard HUP" in followed
    host.apply({**manifest, "service": {"reload": [*words[:-1], "bad"], "log": log}})
    assert "reloading bad" in host.appbox("reload", "job", code=1).err
    host.appbox("stop", "job")
    assert "tick" in host.appbox("logs", "job").out
    assert "is not running" in host.appbox("reload", "job", code=1).err


FLOOD = rf"""
i=0
while [ $i -lt 3000 ]; do echo "line $i of a flood"; i=$((i+1)); done
head -c 20000000 /dev/zero | tr '\0' x
echo; sleep 2; echo "after the long one" # what kills the writer costs what it had read by then
{STAY}
"""


# With systemd it is the journal's own affair.
@pytest.mark.parametrize("host", ["openrc", "busybox"], indirect=True)
def test_log_files_are_bounded_and_nothing_is_lost(host: Host) -> None:
    host.apply(script_manifest(FLOOD, service={"log": {"max_size": "30K", "keep": 100}}))
    host.machine.wait_until(lambda: "after the long one" in host.appbox("logs", "job").out, 60, "the end of the flood")
    lines = host.appbox("logs", "-n", "100000", "job").out.splitlines()
    assert [line for line in lines if line.startswith("line ")] == [f"line {i} of a flood" for i in range(3000)]
    writers = [p.pid for p in host.machine.processes() if "awk" in p.words[0] or "awk" in p.words[:2]]
    assert len(writers) == 1
    host.machine.kill(writers[0])
    time.sleep(1)
    assert host.is_active("job")
    host.control("stop", "job")
    host.machine.wait_until(lambda: not host.traces("job"), 5, "the end")
