"""The doctor on real systems: a bare one, each cure in turn, and what it says when all is there."""

from __future__ import annotations

import json
from typing import Any

from appbox.doctor import remedies
from appbox.doctor.seen import Login
from tests.ground import roots
from tests.init.host import Host, script_manifest

USER = roots.USER
UID = roots.USER_ID
DROP_IN = "/etc/systemd/system/user@.service.d/appbox.conf"
STRIP = f"""
: >/etc/subuid
printf 'rubbish\\nother:100000:65536\\n' >/etc/subgid
chmod u-s /usr/bin/newuidmap
rm -f /var/lib/systemd/linger/{USER} {DROP_IN} /etc/runlevels/*/cgroups
"""


def bad(host: Host, *words: str, code: int) -> dict[str, Any]:
    """Return what is not well by subject, as --json has it; the first of each."""
    found: dict[str, Any] = {}
    data = json.loads(host.appbox("--json", "doctor", *words, code=code).out)
    for one in data["findings"]:
        if one["state"] != "ok":
            found.setdefault(one["subject"], one)
    return found


def test_a_bare_user_is_prepared_step_by_step(host: Host) -> None:
    """Everything that is missing for a user is named, mended with --fix, there afterwards, and mended once."""
    host.machine.run(["sh", "-c", STRIP])
    bare = bad(host, "--user", USER, code=8)
    lacking = {name for name, one in bare.items() if one["state"] == "missing" and one["needed"]}
    assert lacking == {"sub-ids", "newuidmap", *(["linger"] if host.systemd else [])}
    assert bare["newuidmap"]["commands"][-1] == "chmod 4755 /usr/bin/newuidmap"
    if not host.systemd:
        assert bare["cgroups"]["commands"][-1] == "rc-update add cgroups sysinit"

    fixed = host.appbox("doctor", "--user", USER, "--fix", "--yes")
    assert f"→ echo {USER}:100000:65536 >>/etc/subuid && echo {USER}:165536:65536 >>/etc/subgid" in fixed.out
    assert host.machine.read("/etc/subuid") == f"{USER}:100000:65536\n"
    assert host.machine.read("/etc/subgid") == f"rubbish\nother:100000:65536\n{USER}:165536:65536\n"
    assert host.machine.run(["stat", "-c", "%A", "/usr/bin/newuidmap"]).out.startswith("-rws")
    if host.systemd:
        assert host.machine.exists(f"/var/lib/systemd/linger/{USER}")
        # The machines of CI have no controllers that could be lacking; the commands that are shown do what they say.
        for step in remedies.delegate(Login(USER, UID, UID)).steps:
            host.machine.run(["sh", "-c", step.shown])
        words = ["systemctl", "show", "--property=Delegate,DelegateControllers", f"user@{UID}.service"]
        assert host.machine.run(words).out == "Delegate=yes\nDelegateControllers=cpu cpuset io memory pids\n"
    else:
        assert host.machine.exists("/etc/runlevels/sysinit/cgroups")
        assert host.machine.run(["stat", "-c", "%a %u", f"/run/user/{UID}"]).out == f"700 {UID}\n"

    prepared = bad(host, "--user", USER, code=0)
    assert not {"newuidmap", "linger", "first start", "user namespaces"} & set(prepared)
    assert prepared["sub-ids"]["what"] == "/etc/subgid:1: 'rubbish' is not of the form user:first id:count"
    before = host.files(("/etc",))
    host.appbox("doctor", "--user", USER, "--fix", "--yes")
    assert host.files(("/etc",)) == before
    if not host.systemd:
        host.machine.reboot()
        assert "runtime directory" not in bad(host, "--user", USER, code=0)


def test_a_manifest_says_what_root_lacks(host: Host) -> None:
    """Only what it needs; a plan would refuse it for the same reasons."""
    host.machine.run(["sh", "-c", "rm -rf /usr/lib/cni /usr/bin/age"])
    path = host.write_manifest(script_manifest("sleep 100", network={"mode": "bridge"}))
    found = bad(host, path, code=8)
    assert {name for name, one in found.items() if one["state"] == "missing"} == {"cni"}
    assert found["cni"]["commands"][-1] == "apt-get install -y containernetworking-plugins"
    assert found["cni"]["keys"][0]["key"] == "network.mode"
    assert "no CNI plugin bridge" in host.appbox("plan", path, code=8).err
    well = host.write_manifest(script_manifest("sleep 100"))
    assert "missing  " not in host.appbox("doctor", well).out
