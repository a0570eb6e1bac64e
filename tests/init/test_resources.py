"""Limits on machines that share this one's kernel: kept where it has the controllers, and else refused in words."""

from __future__ import annotations

from tests.init.host import Host, script_manifest


def test_a_limit_is_kept_or_refused_before_anything_is_touched(host: Host) -> None:
    manifest = script_manifest("exec sleep 1000", resources={"pids": 40, "cpu_weight": 250})
    there = host.run(["cat", "/sys/fs/cgroup/cgroup.controllers"]).out.split()
    lacking = [key for key, name in (("cpu_weight", "cpu"), ("pids", "pids")) if name not in there]
    if not lacking:
        host.apply(manifest)
        host.machine.wait_until(lambda: host.machine.find("sleep"), 10, "the service")
        group = next(p.cgroup for p in host.machine.processes() if p.name == "sleep")
        assert host.run(["cat", f"/sys/fs/cgroup{group}/pids.max"]).out == "40\n"
        return
    path = host.write_manifest(manifest)
    kept = ("/etc", "/opt")
    before = host.files(kept)
    for words in (("check", path), ("plan", path), ("apply", path)):
        done = host.appbox(*words, code=0 if words[0] == "check" else 8)
        if done.code:
            assert f"{path}:" in done.err
            said = "no limit can be set: " if host.ordinary else "this host has no cgroup controller"
            assert any(f"resources.{key}: {said}" in done.err for key in lacking)
            assert ("rc_cgroup_mode" in done.err) != (host.systemd or host.world.own)
    assert host.files(kept) == before
    assert not host.machine.exists(host.containers)
