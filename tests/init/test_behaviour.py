"""What a service does in its life, the same with every init, by means of the command line and the init's commands."""

from __future__ import annotations

import json
import signal
import time

import pytest

from tests.init.host import PORT, Host, redis_manifest, script_manifest


def test_apply_starts_the_service_and_a_second_apply_writes_nothing(host: Host) -> None:
    manifest = redis_manifest()
    path = host.write_manifest(manifest)
    host.appbox("check", path)
    host.appbox("plan", "--exit-code", path, code=4)
    assert not host.machine.exists(host.containers)
    host.apply(manifest)
    host.wait_for_pong()
    assert host.is_active("cache")
    before, server = host.files(without=("data",)), host.server()
    assert "nothing to do" in host.apply(manifest).out.lower()
    host.appbox("plan", "--exit-code", path)
    assert host.files(without=("data",)) == before
    assert host.server() == server


def test_the_layout_is_a_bundle_behind_a_link(host: Host) -> None:
    host.apply(redis_manifest())
    assert host.run(["readlink", f"{host.containers}/cache"]).out.strip() == "cache-debian"
    names = set(host.run(["ls", f"{host.containers}/cache/"]).out.split())
    assert {"rootfs", "data", "config", "config.json", "run", "bundle.toml"} <= names
    assert "cache" in host.listed()


def test_root_in_the_service_is_not_root_outside(host: Host) -> None:
    host.apply(redis_manifest())
    host.wait_for_pong()
    users = {p.user for p in host.machine.processes() if p.name == "redis-server"}
    assert min(users) >= host.least_id


def test_data_survives_a_restart(host: Host) -> None:
    host.apply(redis_manifest())
    host.wait_for_pong()
    host.redis("set", "key", "value")
    assert host.redis("save") == "OK"
    host.control("restart", "cache")
    host.wait_for_pong()
    assert host.redis("get", "key") == "value"


def test_own_commands_control_and_show_the_service(host: Host) -> None:
    host.apply(redis_manifest())
    host.wait_for_pong()
    assert host.appbox("exec", "cache", "redis-cli", "-p", str(PORT), "ping").out.strip() == "PONG"
    assert "cache" in host.appbox("status").out
    host.machine.wait_until(lambda: "eady to accept connections" in host.appbox("logs", "cache").out, 10, "the log")
    first = host.server()
    host.appbox("restart", "cache")
    host.wait_for_pong()
    assert host.server() != first
    host.appbox("stop", "cache")
    assert not host.is_active("cache")
    host.appbox("start", "cache")
    host.wait_for_pong()


@pytest.mark.parametrize("victim", ["server", "runtime", "script"])
def test_kill_9_leads_to_exactly_one_server(host: Host, victim: str) -> None:
    host.apply(redis_manifest())
    host.wait_for_pong()
    first = host.server()
    host.machine.kill(victims(host, victim)[0])
    host.machine.wait_until(
        lambda: host.redis("ping") == "PONG" and host.servers() not in ([], [first]), 30, "another server"
    )
    time.sleep(2)  # a second one, if any, would come now
    assert host.redis("ping") == "PONG"
    assert len(host.machine.find("redis-server")) == 1
    assert len(host.machine.find(host.runtime)) == 1
    assert host.listed() == ["cache"]
    assert host.is_active("cache")


def victims(host: Host, victim: str) -> list[int]:
    """Return the processes to kill. A script that became runc is killed as runc."""
    if victim == "server":
        return [host.server()]
    scripts = [p.pid for p in host.machine.processes() if any(word.endswith("/cache/run") for word in p.words[:2])]
    return (scripts if victim == "script" and scripts else []) or host.machine.find(host.runtime)


def test_stop_leaves_nothing_running_or_mounted(host: Host) -> None:
    mounts = host.machine.mounts()
    host.apply(redis_manifest())
    host.wait_for_pong()
    assert host.machine.mounts() == mounts  # mounts of the service are its own
    host.control("stop", "cache")
    assert not host.is_active("cache")
    host.machine.wait_until(lambda: not host.traces("cache"), 5, f"the end of {host.traces('cache')}")
    assert host.machine.mounts() == mounts
    host.control("start", "cache")
    host.wait_for_pong()
    assert host.server()


@pytest.mark.parametrize("hard", [False, True], ids=["reboot", "power cut"])
def test_reboot_brings_it_back(host: Host, *, hard: bool) -> None:
    host.apply(redis_manifest())
    host.wait_for_pong()
    host.redis("set", "key", "value")
    assert host.redis("save") == "OK"
    host.reboot(hard=hard)
    host.wait_for_pong()
    assert host.redis("get", "key") == "value"
    assert host.server()
    assert "nothing to do" in host.apply(redis_manifest()).out.lower()


def test_a_service_that_is_not_enabled_stays_down_after_a_reboot(host: Host) -> None:
    host.apply(redis_manifest(service={"enable": False}))
    host.reboot()
    time.sleep(1)
    assert not host.is_active("cache")
    assert not host.traces("cache")


def test_services_need_neither_appbox_nor_python(host: Host) -> None:
    host.apply(redis_manifest())
    host.wait_for_pong()
    host.redis("set", "key", "value")
    host.redis("save")
    host.machine.remove_python()
    host.control("restart", "cache")
    host.wait_for_pong()
    host.reboot()
    host.wait_for_pong()
    assert host.redis("get", "key") == "value"
    host.control("stop", "cache")
    host.machine.wait_until(lambda: not host.traces("cache"), 5, "the end")


def test_a_unit_that_is_not_ours_is_left_alone(host: Host) -> None:
    unit = host.unit("cache")
    host.write(unit, "# somebody's own\n", 0o755)
    before = host.files()
    error = host.apply(redis_manifest(), code=1).err
    assert unit in error
    assert len(error.strip().splitlines()) == 1
    after = host.files()
    assert {p: v for p, v in after.items() if p.startswith(("/etc", "/opt"))} == {
        p: v for p, v in before.items() if p.startswith(("/etc", "/opt"))
    }


def test_a_changed_configuration_restarts_only_its_service(host: Host) -> None:
    def write(databases: int) -> None:
        text = f"port {PORT}\ndatabases {databases}\n"
        config = {"/etc/redis.conf": {"text": text}}
        host.write_manifest(redis_manifest(process={"args": ["redis-server", "/etc/redis.conf"]}, config=config))
        host.write_manifest(redis_manifest("other", PORT + 1))

    write(4)
    host.appbox("apply", host.services)
    host.wait_for_pong()
    host.wait_for_pong(PORT + 1)
    first, other = host.server(), host.server(PORT + 1)
    write(5)
    host.appbox("apply", host.services)
    host.wait_for_pong()
    assert host.redis("config", "get", "databases").split() == ["databases", "5"]
    assert host.server() != first
    assert host.server(PORT + 1) == other


def test_remove_keeps_data_and_purge_takes_it(host: Host) -> None:
    host.apply(redis_manifest())
    host.wait_for_pong()
    host.redis("set", "key", "value")
    host.redis("save")
    host.appbox("remove", "cache")
    assert not host.machine.exists(host.unit("cache"))
    host.machine.wait_until(lambda: not host.traces("cache"), 5, "the end")
    kept = host.run(["find", host.containers, "-name", "dump.rdb"]).out.split()
    assert len(kept) == 1
    host.apply(redis_manifest())
    host.wait_for_pong()
    assert host.redis("get", "key") == "value"
    host.appbox("remove", "cache", "--purge")
    assert not host.machine.exists(host.unit("cache"))
    assert host.run(["find", host.containers, "-mindepth", "1", "-name", "cache*"]).out == ""
    assert not host.traces("cache")


COUNTING = 'echo start >>/data/starts; exit "$1"'


@pytest.mark.parametrize(
    ("policy", "status", "again"),
    [("no", 3, False), ("on-failure", 0, False), ("on-failure", 3, True), ("always", 0, True)],
)
def test_restart_policy(host: Host, policy: str, status: int, *, again: bool) -> None:
    service = {"restart": policy, "restart_delay": 1}
    host.apply(script_manifest(COUNTING, str(status), service=service), "--no-start")
    host.control("start", "job", check=False)
    host.machine.wait_until(lambda: host.has_data("job", "starts"), 10, "the first start")
    time.sleep(4)
    starts = len(host.data("job", "starts").splitlines())
    assert starts >= 2 if again else starts == 1
    host.control("stop", "job", check=False)
    host.machine.wait_until(lambda: not host.traces("job"), 5, "the end")


def test_restart_limit_ends_the_attempts(host: Host) -> None:
    service = {"restart": "on-failure", "restart_delay": 1, "restart_limit": "3/60s"}
    host.apply(script_manifest(COUNTING, "3", service=service), "--no-start")
    host.control("start", "job", check=False)
    host.machine.wait_until(lambda: host.has_data("job", "starts"), 10, "the first start")
    time.sleep(8)
    starts = len(host.data("job", "starts").splitlines())
    assert 3 <= starts <= 4
    assert not host.is_active("job")
    assert not host.listed()


WAITING = """
trap 'echo "$1" >/data/signal; exit 0' "$1"
echo ready >/data/ready
while :; do sleep 1 & wait $!; done
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT", "SIGQUIT"])
def test_the_stop_signal_reaches_the_server(host: Host, name: str) -> None:
    process = {"entrypoint": ["sh", "-c", WAITING, "sh"], "args": [name.removeprefix("SIG")], "stop_signal": name}
    host.apply(script_manifest("", process=process))
    host.machine.wait_until(lambda: host.has_data("job", "ready"), 10, "the service")
    started = time.monotonic()
    host.control("stop", "job")
    assert time.monotonic() - started < 5
    assert host.data("job", "signal").strip() == name.removeprefix("SIG")


def test_a_server_that_ignores_its_stop_signal_is_killed_in_time(host: Host) -> None:
    process = {"entrypoint": ["sh", "-c", "trap '' TERM; echo up >/data/ready; while :; do sleep 1; done"]}
    host.apply(script_manifest("", process={**process, "stop_timeout": 2}))
    host.machine.wait_until(lambda: host.has_data("job", "ready"), 10, "the service")
    started = time.monotonic()
    host.control("stop", "job")
    assert 1.5 < time.monotonic() - started < 8
    host.machine.wait_until(lambda: not host.traces("job"), 5, "the end")
    assert json.loads(host.appbox("--json", "status", "job").out)["state"] == "stopped"


def test_what_is_written_outside_volumes_is_gone_at_the_next_start(host: Host) -> None:
    script = "[ -e /scratch ] && echo stale >/data/found; echo x >/scratch; echo up >>/data/starts; exec sleep 1000"
    host.apply(script_manifest(script))
    host.machine.wait_until(lambda: host.has_data("job", "starts"), 10, "the service")
    host.machine.kill(host.machine.find("sleep")[0], signal.SIGKILL)
    host.machine.wait_until(lambda: host.data("job", "starts").count("up") >= 2, 20, "another start")
    assert not host.has_data("job", "found")
    assert not host.machine.exists(f"{host.containers}/job/rootfs/scratch")
