"""The commands of upgrades on a real init: beside the running service, and once in its place."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.init.host import Host, script_manifest

STAY = "trap 'exit 0' TERM; echo x >>/data/starts; while :; do sleep 0.1; done"
CALL = """
import json, os, sys
from appbox import hooks, session
from appbox.errors import AppboxError
where, limit, *command = sys.argv[1:]
session.choose_owner(session.MYSELF if os.geteuid() else os.environ.get("OWNER", ""))
with session.Options().open_root() as root:
    open("/tmp/me", "w").write(str(os.getpid()))
    try:
        if where == "sweep":
            found = hooks.sweep(root, "job")
        elif where == "inside":
            init = os.environ.get("INIT", "none")
            found = hooks.run_inside(root, hooks.Hook("job", "upgrade.before", command, float(limit), init))
        else:
            found = hooks.run_once(root, hooks.Hook("job", "upgrade.migrate", command, float(limit)), where)
    except AppboxError as error:
        found = str(error)
print(json.dumps(found))
"""
DIRECTORY = "job-debian"


def words(where: str, script: str, limit: float = 60) -> list[str]:
    """Return the words that run a shell script beside the service, or in a version of it."""
    return ["/usr/local/appbox/bin/python", "-c", CALL, where, str(limit), "sh", "-c", script]


def call(host: Host, where: str, script: str, limit: float = 60) -> Any:
    """Run a command of an upgrade; return its last lines, or the words of the error."""
    return json.loads(host.run(words(where, script, limit)).out)


def begin(host: Host, script: str) -> subprocess.Popen[bytes]:
    """Begin a command in the service's place; return when it runs."""
    process = host.start(words(DIRECTORY, f"touch /data/begun; {script}"))
    host.machine.wait_until(
        lambda: host.machine.path(f"{host.containers}/job/data/data/begun").exists(), 10, "the command"
    )
    host.machine.path(f"{host.containers}/job/data/data/begun").unlink()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.communicate(timeout=30)


def kill(host: Host) -> None:
    """Kill appbox while a command runs in the service's place; it runs on."""
    killed = begin(host, "sleep 4321; echo x >>/data/never")
    host.run(["kill", "-9", host.machine.read("/tmp/me")])
    end(killed)
    assert host.runs("sleep 4321")


def test_commands_run_as_the_service_would(host: Host) -> None:
    host.write(f"{host.places.config}/secrets/word", "hush\n")
    manifest = script_manifest(
        STAY,
        secrets={"word": {"file": f"{host.places.config}/secrets/word"}},
        config={"/etc/job.conf": {"text": "well\n"}},
        health={"exec": ["true"], "interval": 1},
        security={"rootfs": "persistent"},
        network={"mode": "none", "hostname": "here"},
    )
    manifest["process"] |= {"env": {"GREETING": "hello"}, "workdir": "/data", "user": "33:44"}
    manifest["process"]["entrypoint"] = ["sh", "-c", STAY, "sh"]
    manifest["volumes"] = {"data": {"path": "/data", "owner": "33:44"}}
    host.apply(manifest)
    asked = 'echo "$GREETING $(id -u):$(id -g) $(pwd) $(hostname)"; cat /run/secrets/word /etc/job.conf >/data/seen; '
    asked += "cat /data/seen"
    # Beside it.
    assert call(host, "inside", asked) == ["hello 33:44 /data here", "hush", "well"]
    assert "upgrade.before failed: it ended with 3: no luck" in call(host, "inside", "echo no luck >&2; exit 3")
    assert "took longer than 1 s" in call(host, "inside", "sleep 1234", 1)
    assert not host.runs("sleep 1234")
    assert "already running as process" in call(host, DIRECTORY, "true")
    assert host.is_active("job")
    # In its place.
    host.control("stop", "job")
    assert "the service is not running" in call(host, "inside", "true")
    assert call(host, DIRECTORY, f"{asked}; touch /data/../tmp/gone; ls /tmp") == [
        *("hello 33:44 /data here", "hush", "well"),
        "gone",
    ]
    assert not host.machine.path(f"{host.containers}/job/upper/tmp/gone").exists()
    assert "upgrade.migrate failed: it ended with 5: too old" in call(host, DIRECTORY, "echo too old; exit 5")
    assert "took longer than 1 s" in call(host, DIRECTORY, "sleep 1234", 1)
    assert not host.traces("job")
    assert not host.machine.path(f"{host.places.runs}/job/hook").exists()
    # What they printed is kept.
    shown = host.appbox("logs", "--hooks", "job").out.splitlines()
    assert "appbox: upgrade.migrate in job-debian: sh -c 'echo too old; exit 5'" in shown
    assert "  too old" in shown
    assert oct(host.machine.path(f"{host.places.logs}/job:hooks.log").stat().st_mode & 0o777) == "0o600"
    host.control("start", "job")
    assert call(host, "inside", "cat /data/starts") == ["x", "x"]
    host.appbox("remove", "job", "--purge")
    assert not host.machine.path(f"{host.places.logs}/job:hooks.log").exists()


def test_nobody_starts_the_service_meanwhile_and_a_killed_appbox_leaves_nothing(host: Host) -> None:
    host.apply(script_manifest(STAY))
    host.control("stop", "job")
    waiting = begin(host, "sleep 3; echo x >>/data/done")
    host.control("start", "job", check=False)
    if host.systemd:
        host.machine.wait_until(lambda: not host.is_active("job"), 5, "the refusal")
    assert not host.has_data("job", "done")
    host.machine.wait_until(lambda: host.has_data("job", "done"), 10, "the end of the command")
    end(waiting)
    assert waiting.returncode == 0
    host.control("stop", "job", check=False)
    assert host.data("job", "starts").count("x") <= 2
    # Killed: what is left of the command is swept.
    kill(host)
    assert call(host, "sweep", "") is None
    assert not host.traces("job")
    assert not host.machine.path(f"{host.places.runs}/job/hook").exists()
    # Or it ends when the service is started; what runs then is not swept.
    kill(host)
    before = host.data("job", "starts").count("x")
    host.control("start", "job", check=False)
    host.machine.wait_until(lambda: host.data("job", "starts").count("x") == before + 1, 10, "the start")
    assert not host.runs("sleep 4321")
    assert call(host, "sweep", "") is None
    assert host.is_active("job")
    host.control("stop", "job")
    host.machine.wait_until(lambda: not host.traces("job"), 5, f"the end of {host.traces('job')}")
    assert not host.has_data("job", "never")
