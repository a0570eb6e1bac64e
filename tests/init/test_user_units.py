"""Units of the system that run an ordinary user's services: root writes them for the user, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import tomli_w

from appbox import owner
from appbox.owner import Extent, Owner
from appbox.units import declared, openrc, systemd
from tests.ground import roots
from tests.init.host import PORT, Host, redis_manifest

ASK = """
import json, sys
from appbox import session
from appbox.host import privileged
from appbox import owner
session.choose_owner(sys.argv[1])
own = owner.current()
asked = json.load(sys.stdin)
print(json.dumps([privileged.answer(own, one) for one in asked]))
"""
"""What a process of the user's could have root do: it has the other end of a socket, and may send anything."""

HOOK = """
import sys
from appbox import hooks, session
session.choose_owner(sys.argv[1])
session.leave_root()
with session.Options().open_root() as root:
    hook = hooks.Hook("cache", "upgrade.before", ["cat", "/proc/self/cgroup"], 60, sys.argv[2])
    print(*hooks.run_inside(root, hook), sep="\\n")
"""
"""A command of an upgrade, as `appbox --user` runs it."""

BY_ROOT = pytest.mark.parametrize("host", roots.INITS, indirect=True)
ON_SYSTEMD = pytest.mark.parametrize("host", ["systemd"], indirect=True)
ON_OPENRC = pytest.mark.parametrize("host", ["openrc"], indirect=True)


def apply_for_user(host: Host) -> str:
    """Have root make a service for the user; return the path of its unit."""
    host.machine.write(f"/home/{roots.USER}/redis.toml", tomli_w.dumps(redis_manifest()))
    host.machine.run(["appbox", "--user", roots.USER, "apply", f"/home/{roots.USER}/redis.toml"])
    return "/etc/systemd/system/cache.service" if host.systemd else "/etc/init.d/cache"


def ask(host: Host, *asked: dict[str, object]) -> list[dict[str, object]]:
    """Ask root's side as a process of the user's may."""
    words = [f"{roots.VENV}/bin/python", "-c", ASK, roots.USER]
    found: list[dict[str, object]] = json.loads(host.machine.run(words, input=json.dumps(asked)).out)
    return found


def rendered(host: Host, path: str, text: str, **changed: Any) -> str:
    """Return the unit of a text with other values, as appbox makes it."""
    unit = dataclasses.replace(declared.unit_of(text), **changed)
    home, mine = f"/home/{roots.USER}", (Extent(0, roots.USER_ID, 1),)
    places = (f"{home}/.local/share", f"{home}/.config", f"{home}/.cache", f"/run/user/{roots.USER_ID}")
    owner.use(Owner(roots.USER, roots.USER_ID, roots.USER_ID, home, *places, mine, mine, by_root=True))
    try:
        files = systemd.render(unit) if host.systemd else openrc.render(unit)
    finally:
        owner.use(None)
    return {file.path: file.text for file in files}[path]


@BY_ROOT
def test_a_users_service_is_run_by_the_systems_init(host: Host) -> None:
    path = apply_for_user(host)
    host.wait_for_pong()
    (server,) = [p for p in host.machine.processes() if p.words[0] == f"redis-server *:{PORT}"]
    assert server.user > 100_000  # a subordinate id of the user's
    words = ["appbox", "--user", roots.USER, "exec", "cache", "cat", "/proc/self/cgroup"]
    assert "0::/\n" in host.machine.run(words).out  # in the container's own cgroup, and so within its limits
    words = [f"{roots.VENV}/bin/python", "-c", HOOK, roots.USER, "systemd" if host.systemd else "openrc"]
    assert "0::/\n" in host.machine.run(words).out
    plan = host.machine.run(["appbox", "--user", roots.USER, "plan", f"/home/{roots.USER}/redis.toml"]).out
    assert "nothing to do" in plan
    host.machine.reboot(hard=True)
    host.wait_for_pong()
    assert host.machine.exists(path)
    assert not host.machine.exists("/opt/containers/cache")
    host.machine.run(["appbox", "--user", roots.USER, "remove", "cache", "--purge", "--yes"])
    assert not host.machine.exists(path)
    host.machine.wait_until(lambda: not [p for p in host.machine.processes() if "cache" in p.cgroup], 10, "its end")


@BY_ROOT
def test_root_takes_only_what_it_would_write_itself(host: Host) -> None:
    path = apply_for_user(host)
    kind = "systemd" if host.systemd else "openrc"
    text = host.machine.read(path)
    mode = 0o644 if host.systemd else 0o755
    host.write_manifest(redis_manifest("other", 6395))
    host.machine.run(["appbox", "apply", "/root/services/other.toml"])
    good = {"kind": kind, "task": "write", "path": path, "text": text, "mode": mode, "declared": text}
    evil = text.replace(f"{roots.USER}", "root")
    patient, same = (rendered(host, path, text, stop_timeout=seconds) for seconds in (3600, 10))
    assert same == text
    line = "ExecStartPre=+/bin/touch /run/evil\n" if host.systemd else "touch /run/evil\n"
    asked: list[dict[str, object]] = [
        {**good, "text": text + line},
        {**good, "text": text + line, "declared": text + line},
        {**good, "text": evil, "declared": evil},
        {**good, "mode": 0o4755},
        {**good, "text": patient, "declared": patient},
        {**good, "path": path.replace("cache", "evil")},
        {**good, "path": "/etc/passwd"},
        {**good, "path": path.replace("cache", "../../tmp/cache")},
        {**good, "declared": "# {}\n"},
        {
            **good,
            "text": text.replace("cache", "other"),
            "declared": text.replace("cache", "other"),
            "path": path.replace("cache", "other"),
        },
        {"kind": kind, "task": "remove", "name": "other", "path": path.replace("cache", "other")},
        {"kind": kind, "task": "remove", "name": "cache", "path": "/etc/passwd"},
        {"kind": kind, "task": "enable", "name": "other", "link": None},
        {"kind": kind, "task": "enable", "name": "cache", "link": {"path": "/etc/evil", "target": "/etc/passwd"}},
        {"kind": kind, "task": "service", "method": "stop", "arguments": ["other"], "options": {}},
        {"kind": kind, "task": "service", "method": "stop", "arguments": ["dbus"], "options": {}},
        {"kind": kind, "task": "service", "method": "stop", "arguments": ["-h"], "options": {}},
        {"kind": kind, "task": "service", "method": "_ctl", "arguments": ["poweroff"], "options": {}},
        {"kind": kind, "task": "service", "method": "stop", "arguments": [], "options": {}},
        {"kind": "none", "task": "write"},
        {"kind": kind, "task": "shell"},
        {"kind": kind, "task": "admit", "name": "cache", "pid": 1},
        {"kind": kind, "task": "admit", "name": "cache", "pid": "self"},
        {"kind": kind, "task": "admit", "name": "other", "pid": 1},
        {},
    ]
    before = host.files(("/etc",))
    answers = ask(host, *asked)
    assert [one for one, answer in zip(asked, answers, strict=True) if "error" not in answer] == []
    assert host.files(("/etc",)) == before
    assert not host.machine.exists("/run/evil")
    host.wait_for_pong(6395)
    assert ask(host, good) == [{"result": None}]


@ON_OPENRC
def test_a_unit_of_roots_is_not_a_users_to_change(host: Host) -> None:
    host.apply(redis_manifest())
    host.machine.write(f"/home/{roots.USER}/redis.toml", tomli_w.dumps(redis_manifest()))
    words = ["appbox", "--user", roots.USER, "apply", f"/home/{roots.USER}/redis.toml"]
    done = host.machine.run(words, check=False)
    assert done.code in (1, 6)
    assert "it runs a service of root" in done.err
    host.wait_for_pong()


@ON_OPENRC
def test_whom_root_cannot_work_for_is_said(host: Host) -> None:
    for words, said in (
        (["--user", "root"], "root is no ordinary user"),
        (["--user", "nobody-knows"], "no such user"),
        (["--user"], "name one: --user NAME"),
        (["--root", "/mnt", "--user", roots.USER], "a user's services are made on the running host"),
    ):
        done = host.machine.run(
            ["appbox", *words, "status"] if words[-1] != "--user" else ["appbox", "status", *words], check=False
        )
        assert done.code in (2, 8), done
        assert said in done.err


@BY_ROOT
def test_root_reads_and_starts_nothing_for_a_user_that_the_user_could_not(host: Host) -> None:
    path = apply_for_user(host)
    kind = "systemd" if host.systemd else "openrc"
    other = "openrc" if host.systemd else "systemd"
    text = host.machine.read(path)
    host.write_manifest(redis_manifest("other", 6395))
    host.machine.run(["appbox", "apply", "/root/services/other.toml"])
    log = f"/home/{roots.USER}/.local/share/appbox/log/cache.log"
    host.machine.run(["sh", "-c", f"mkdir -p {log.rpartition('/')[0]}; rm -f {log}; ln -s /etc/shadow {log}"])
    tail = {"task": "service", "method": "log_tail", "options": {}}
    declared = json.loads(text.rstrip().rpartition("\n")[2].removeprefix("# "))
    needing = [{**declared, "name": "evil", key: ["other"]} for key in ("requires", "wants")]
    asked: list[dict[str, object]] = [
        {**tail, "kind": kind, "arguments": ["cache", "--cursor-file=/run/evil", 0]},
        {**tail, "kind": kind, "arguments": ["cache", 5, "0"]},
        {**tail, "kind": kind, "arguments": ["cache", -1, 0]},
        {**tail, "kind": kind, "method": "schedule", "arguments": ["cache"], "options": {"on": "--help"}},
        {**tail, "kind": other, "arguments": ["cache", 5, 0]},
        {"kind": other, "task": "write", "path": path, "text": text, "mode": 0o755, "declared": text},
        *(written(host, kind, unit) for unit in needing),
    ]
    assert [answer for answer in ask(host, *asked) if "error" not in answer] == []
    (answer,) = ask(host, {**tail, "kind": kind, "arguments": ["cache", 5, 0]})
    assert roots.USER not in str(answer)
    assert not host.machine.exists("/run/evil")
    assert not host.machine.exists(path.replace("cache", "evil"))
    # One of the user's own may be required.
    own = {**declared, "name": "second", "requires": ["cache"]}
    assert ask(host, written(host, kind, own)) == [{"result": None}]


def written(host: Host, kind: str, unit: dict[str, object]) -> dict[str, object]:
    """Return the request that has a unit written as appbox makes it."""
    program = f"""
import json, sys
from appbox import session
session.choose_owner({roots.USER!r})
from appbox.units import declared, {"systemd" if kind == "systemd" else "openrc"} as kind
one = kind.render(declared.unit_of("# " + sys.stdin.read()))[0]
print(json.dumps({{"path": one.path, "text": one.text, "mode": one.mode, "declared": one.text}}))
"""
    text = json.dumps(unit, ensure_ascii=True, sort_keys=True)
    made = host.machine.run([f"{roots.VENV}/bin/python", "-c", program], input=text).out
    return {"kind": kind, "task": "write", **json.loads(made)}


@ON_OPENRC
def test_what_root_does_for_a_user_is_done_as_the_user(host: Host) -> None:
    """Also where no service is looked at, and without a terminal of root's, into which a process could put words."""
    home = f"/home/{roots.USER}"
    host.machine.write(f"{home}/s/cache.toml", tomli_w.dumps(redis_manifest()))
    script = f"mkdir -p /root/hidden; chown -R {roots.USER} {home}/s; ln -sfn /root/hidden {home}/.cache"
    host.machine.run(["sh", "-c", script])
    for words in (["lock", f"{home}/s"], ["image", "inspect", str(redis_manifest()["image"])]):
        assert host.machine.run(["appbox", "--user", roots.USER, *words], check=False).code != 0
    assert host.machine.run(["ls", "-A", "/root/hidden"]).out == ""
    host.machine.run(["sh", "-c", f"rm {home}/.cache; cd {home}/s; appbox --user {roots.USER} apply cache.toml"])
    host.wait_for_pong()
    words = [f"{roots.VENV}/bin/python", "-c", SESSIONS, roots.USER]
    own, roots_ = host.machine.run(words).out.split()
    assert own != roots_
    done = host.machine.run(["appbox", "--user", roots.USER, "exec", "cache", "sh", "-c", "exit 7"], check=False)
    assert done.code == 7


SESSIONS = """
import os, sys
from appbox import session
before = os.getsid(0)
session.choose_owner(sys.argv[1])
session.leave_root()
assert os.getuid() == 0 and open("/proc/self/uid_map").read().split()[:2] != ["0", "0"]
print(os.getsid(0), before)
"""


@ON_SYSTEMD
def test_one_service_has_one_unit(host: Host) -> None:
    """Root's init system and the user's own would start two servers on one data directory, or stop neither."""
    path = apply_for_user(host)
    host.wait_for_pong()
    own = f"HOME=/home/{roots.USER} XDG_RUNTIME_DIR=/run/user/1000 appbox"
    for words in (f"apply /home/{roots.USER}/redis.toml", "stop cache", "run cache", "remove cache --purge --yes"):
        done = host.machine.run(as_user(f"{own} {words}"), check=False)
        assert done.code == 1
        assert f"{path} is its unit" in done.err
        assert "for good" not in done.out
    assert "running" in host.machine.run(as_user(f"{own} status")).out
    assert host.machine.exists(path)
    host.wait_for_pong()


@ON_OPENRC
def test_other_subordinate_ids_are_refused_before_anything_is_touched(host: Host) -> None:
    apply_for_user(host)
    host.wait_for_pong()
    words = ["appbox", "--user", roots.USER, "apply", f"/home/{roots.USER}/redis.toml"]
    before = host.machine.read("/etc/subgid")
    host.machine.write("/etc/subgid", f"{roots.USER}:700000:65536\n")
    done = host.machine.run(words, check=False)
    assert done.code == 8
    assert "has no longer the ids" in done.err
    host.machine.write("/etc/subgid", f"{before}{roots.USER}:900000:100\n")
    assert host.machine.run(words, check=False).code == 0
    host.machine.write("/etc/subgid", before)
    host.wait_for_pong()


def as_user(script: str) -> list[str]:
    """Return the words that run a script as the user."""
    return ["setpriv", f"--reuid={roots.USER}", f"--regid={roots.USER}", "--init-groups", "sh", "-c", script]
