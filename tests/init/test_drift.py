"""What somebody did by hand to a service of a running machine: shown, and mended by the next apply."""

from __future__ import annotations

import json

from tests.init.host import Host, script_manifest

STAY = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def drift(host: Host, name: str = "job") -> list[str]:
    found = json.loads(host.appbox("--json", "status", name).out)["drift"]
    assert isinstance(found, list)
    return found


def test_hands_of_others(host: Host) -> None:
    manifest = script_manifest(STAY)
    host.apply(manifest)
    file = host.write_manifest(manifest)
    assert drift(host) == []
    assert host.appbox("apply", file).out == "nothing to do\n"

    # Disabled and edited by hand, its container killed.
    run = host.machine.run
    host.init(["systemctl", "disable", "job"] if host.systemd else ["rc-update", "del", "job", "default"])
    run(["sh", "-c", f"echo '# by hand' >>{host.unit('job')}"])
    assert drift(host) == ["unit edited", "not enabled"]
    assert host.oci("kill", "job", "KILL").code == 0
    host.appbox("apply", file)
    assert drift(host) == []
    assert host.is_active("job")

    # A changed root file system is unpacked anew, and the service runs from it.
    run(["sh", "-c", f"echo evil >{host.containers}/job/rootfs/evil"])
    assert drift(host) == ["rootfs changed: /evil"]
    before = json.loads(host.appbox("--json", "status", "job").out)["pid"]
    assert "has a changed root file system: /evil" in host.appbox("apply", file).out
    after = json.loads(host.appbox("--json", "status", "job").out)
    assert (after["state"], after["drift"]) == ("running", [])
    assert after["pid"] != before
    assert run(["test", "-e", f"{host.containers}/job/rootfs/evil"], check=False).code == 1

    # Another mode of the unit is put right, and the service need not know of it: not now, not at the next apply.
    run(["chmod", "666", host.unit("job")])
    assert drift(host) == ["unit has another mode or owner"]
    assert "its mode or owner is not its own" in host.appbox("apply", file).out
    assert host.appbox("plan", file).out == "nothing to do\n"
    assert drift(host) == []

    # The unit stops a service by its run script; one that has lost it is stopped and made anew all the same.
    run(["rm", "-r", f"{host.containers}/job/.generations"])
    host.appbox("apply", file)
    assert drift(host) == []
    assert host.is_active("job")
    run(["rm", f"{host.containers}/job"])
    host.appbox("apply", file)
    assert drift(host) == []
    assert host.is_active("job")

    # Somebody else's container has the name: it is left alone, and said. (A user cannot copy what others' ids own.)
    host.appbox("stop", "job")
    if host.ordinary:
        return
    run(["cp", "-a", f"{host.containers}/job/", "/srv/theirs"])
    run(["sh", "-c", 'cd /srv/theirs && sed -i \'s/"cgroupsPath": *"[^"]*",//\' config.json'])
    run(["sh", "-c", f"cd /srv/theirs && setsid {host.runtime} run -d job >/dev/null 2>&1 </dev/null"])
    assert drift(host) == ["foreign container (/srv/theirs)"]
    for command in ("plan", "apply"):
        refused = host.appbox(command, file, code=1).err
        assert (
            "job: a container that appbox did not make has this name: its bundle is /srv/theirs; end it with" in refused
        )
    assert '"status": "running"' in host.oci("state", "job").out
    host.oci("delete", "--force", "job")
    host.appbox("apply", file)
    assert drift(host) == []
    assert host.is_active("job")
