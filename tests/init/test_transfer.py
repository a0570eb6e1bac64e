"""A running service is exported with its data, and lives on from the file alone."""

from __future__ import annotations

from tests.init.host import PORT, Host, redis_manifest


def test_a_running_server_lives_on_elsewhere(host: Host) -> None:
    durable = {"args": ["redis-server", "--port", str(PORT), "--appendonly", "yes", "--appendfsync", "always"]}
    host.apply(redis_manifest(process=durable))
    host.wait_for_pong()
    assert host.redis("SET", "a", "1") == "OK"
    said = host.appbox("export", "cache", "--data", "-o", f"{host.home}/cache.tar.zst").out
    assert "cache debian with its data" in said
    assert "note: cache: was " in said  # paused or stopped, as the file system can
    host.wait_for_pong()
    assert host.redis("GET", "a") == "1"
    host.server()
    live = host.appbox("export", "cache", "--data", "--live", "-o", f"{host.home}/live.tar").out
    assert "was paused" not in live
    assert "was stopped" not in live
    assert not [path.name for path in host.machine.path(host.containers).iterdir() if "export" in path.name]
    # What is written from now on is not in it.
    assert host.redis("SET", "a", "2") == "OK"
    assert (
        "is installed, and keeps its own data"
        in host.appbox("import", f"{host.home}/cache.tar.zst", "-d", f"{host.home}/other", code=1).err
    )
    host.appbox("remove", "cache", "--purge")
    done = host.appbox("import", f"{host.home}/cache.tar.zst", "-d", f"{host.home}/elsewhere", "--apply").out
    assert f"{host.home}/elsewhere/cache.toml: cache with its data" in done
    host.wait_for_pong()
    assert host.redis("GET", "a") == "1"
    host.server()
    assert host.appbox("apply", "--locked", f"{host.home}/elsewhere").out == "nothing to do\n"
