"""Where a service may write: overlay, persistent and read-only root file systems, and what `appbox writes` shows."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from tests.ground import images
from tests.init.host import Host, script_manifest
from tests.init.test_images import wait_for

STAY = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"

PERSISTENT = f"""
mkdir -p /var/own "/srv/a b" && echo start >>/var/own/starts && echo changed >>/etc/passwd
cat /etc/hostname >/data/hostname; ls -d /dev/null /proc/self /sys/kernel >/data/trees
cat /var/own/starts >/data/new; mv /data/new /data/starts
{STAY}
"""

# Mount points are listed for the run script in a file: it must not take any of this for its own words.
ODD = "a b/$(touch pwned)`touch pwned`\"'\\n*?🎉%"

READ_ONLY = f"""
touch /new /etc/new /run/new /tmp/new /var/tmp/new
for place in / /etc /run /tmp /var/tmp /data; do
    touch $place/mine 2>/dev/null && echo "$place" "$(stat -c '%a %u:%g' $place)"
done >/data/new
cat /run/deep/conf /proc/mounts >>/data/new
mv /data/new /data/seen
{STAY}
"""


def bundle(host: Host, name: str = "job") -> Any:
    return host.machine.path(f"{host.containers}/{name}-debian")


def starts(host: Host) -> int:
    """Return how many starts the service remembers, and forget what it said of this one."""
    host.machine.wait_until(lambda: host.has_data("job", "starts"), 20, "the service")
    seen = host.data("job", "starts")
    bundle(host).joinpath("data/data/starts").unlink()
    return seen.count("start")


def writes(host: Host, name: str = "job") -> dict[str, str]:
    found = json.loads(host.appbox("--json", "writes", name).out)
    assert found["complete"]
    assert not found["unseen"]
    return {one["path"]: one["change"] for one in found["writes"]}


def test_a_persistent_root_outlives_all_but_another_image(host: Host) -> None:
    manifest = script_manifest(
        PERSISTENT, security={"rootfs": "persistent"}, config={f"/srv/{ODD}/conf": {"text": "x\n"}}
    )
    assert f"stays in {host.containers}/job-debian/upper" in host.apply(manifest).out
    assert starts(host) == 1
    host.control("restart", "job")
    assert starts(host) == 2
    assert "nothing to do" in host.apply(manifest).out
    host.reboot(hard=True)
    assert starts(host) == 3
    shown = writes(host)
    assert shown == {"/etc/passwd": "changed", "/var/own": "added", "/var/own/starts": "added"}
    host.control("stop", "job")
    assert writes(host) == shown
    plants_are_harmless(host)
    host.appbox("verify", "job")
    host.appbox("remove", "job")
    host.apply(manifest)
    assert starts(host) == 5


def plants_are_harmless(host: Host) -> None:
    """Leave what a hostile service could leave where the runtime mounts, start it, and see that nothing got out."""
    trap = host.machine.path(f"{host.home}/trap")
    trap.mkdir(mode=0o777)
    trap.chmod(0o777)
    upper = bundle(host) / "upper"
    for place in ("dev", "proc", "sys"):
        if (upper / place).is_dir():
            (upper / place).rmdir()
        (upper / place).symlink_to(f"{host.home}/trap")
    for place in ("etc/resolv.conf", "etc/hostname", "data", f"srv/{ODD}/conf"):
        if (upper / place).is_dir():
            (upper / place).rmdir()
        (upper / place).unlink(missing_ok=True)
        (upper / place).symlink_to(f"{host.home}/trap/" + place.rpartition("/")[2])
    (bundle(host) / "work/work/#1").mkdir(parents=True, exist_ok=True)
    (bundle(host) / "work/work/#1/a/b/c/d").mkdir(parents=True)
    host.give_all(f"{host.containers}/job-debian/work/work", f"{host.containers}/job-debian/upper")
    host.control("start", "job")
    assert starts(host) == 4
    assert host.data("job", "hostname") == "job\n"
    assert host.data("job", "trees").split() == ["/dev/null", "/proc/self", "/sys/kernel"]
    assert list(trap.iterdir()) == []
    host.control("stop", "job")
    for path in (upper / f"srv/{ODD}").iterdir():
        path.unlink()
    (upper / f"srv/{ODD}").rmdir()
    (upper / f"srv/{ODD}").symlink_to(f"{host.home}/trap")
    host.control("start", "job", check=False)
    host.machine.wait_until(lambda: "made the symlink" in host.appbox("logs", "job").out, 10, "the refusal")
    assert list(trap.iterdir()) == []
    host.control("stop", "job", check=False)
    (upper / f"srv/{ODD}").unlink()


def test_a_read_only_root_has_its_usual_places_in_memory(host: Host) -> None:
    manifest = script_manifest(
        READ_ONLY,
        security={"rootfs": "read-only"},
        volumes={"data": {"path": "/data"}},
        config={"/run/deep/conf": {"text": "mine\n"}, "/nowhere/there": {"text": ""}},
    )
    assert "it can write to /run and /tmp and /var/tmp only" in host.apply(manifest).out
    for _ in range(2):
        host.machine.wait_until(lambda: host.has_data("job", "seen"), 20, "the service")
        said, _, mounts = host.data("job", "seen").partition("mine\n")
        assert said.split("\n")[:-1] == [
            "/run 755 0:0",
            "/tmp 1777 0:0",
            "/var/tmp 1777 0:0",
            "/data 755 0:0",
        ]
        kinds = {line.split()[1]: (line.split()[2], line.split()[3].split(",")[0]) for line in mounts.splitlines()}
        assert [kinds[place] for place in ("/run", "/tmp", "/var/tmp")] == [("tmpfs", "rw")] * 3
        assert kinds["/"] == ("overlay", "ro")
        assert writes(host) == {}
        bundle(host).joinpath("data/data/seen").unlink()
        host.control("restart", "job")
    host.appbox("verify", "job")
    host.control("stop", "job")
    assert not host.machine.mounts() & {f"{host.containers}/job-debian/.live"}


QUERIES = {
    "nginx": (
        ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"],
        "Welcome",
    ),
    "redis": (["redis-cli", "ping"], "PONG"),
    "mariadb": (["mariadb", "-uroot", "-psecret", "-h", "127.0.0.1", "-N", "-e", "SELECT 40 + 2"], "42"),
    "postgres": (["psql", "-U", "postgres", "-h", "/var/run/postgresql", "-tA", "-c", "SELECT 40 + 2"], "42"),
}
ENVIRONMENT = {"MARIADB_ROOT_PASSWORD": "secret", "POSTGRES_PASSWORD": "secret"}


@pytest.mark.parametrize("host", ["systemd"], indirect=True)
def test_what_is_suggested_makes_a_read_only_root_work(host: Host) -> None:
    for name in QUERIES:
        images.ensure(name)
        image = f"oci:/var/cache/appbox-dev/images/{name}"
        host.write_manifest({"name": name, "image": image, "version": "debian", "process": {"env": ENVIRONMENT}})
    host.appbox("apply", host.services)
    for name, (words, answer) in QUERIES.items():
        wait_for(host, name, words, answer)
        lines = host.appbox("writes", "--suggest", name).out
        path = f"{host.services}/{name}.toml"
        host.write(path, host.machine.read(path) + "\n" + lines)
        assert tomllib.loads(host.machine.read(path))["security"] == {"rootfs": "read-only"}
    host.appbox("apply", host.services)
    for name, (words, answer) in QUERIES.items():
        wait_for(host, name, words, answer)
        assert host.run(["appbox", "exec", name, "touch", "/new"], check=False).code == 1
        assert writes(host, name) == {}


VOLUMES = f"""
grep -E ' (/data|/t|/shared|/shared/in|/ro|/ro/sub|/data/deep/conf) ' /proc/mounts >/data/new
for place in /t /shared /ro /ro/sub; do
    touch $place/mine-$1 2>/dev/null && echo "$place" "$(stat -c '%a %u:%g' $place)"
done >>/data/new
df -k /t | tail -n 1 | awk '{{print $2}}' >>/data/new
mv /data/new /data/seen
{STAY}
"""


def test_volumes_of_every_kind(host: Host) -> None:
    top = f"{host.home}/srv" if host.ordinary else "/srv"
    host.run(["mkdir", "-p", f"{top}/ro/sub"])
    host.machine.run(["mount", "-t", "tmpfs", "tmpfs", f"{top}/ro/sub"])
    volumes = {
        "in": {"path": "/shared/in"},
        "shared": {"path": "/shared", "source": f"{top}/shared", "owner": "0:0"},
        "data": {"path": "/data"},
        "t": {"path": "/t", "tmpfs": True, "size": "2M", "mode": "1770", "owner": "0:5"},
        "ro": {"path": "/ro", "source": f"{top}/ro", "read_only": True},
    }
    for name in ("one", "two"):
        more = {"volumes": volumes, "config": {"/data/deep/conf": {"text": ""}}}
        host.write_manifest(script_manifest(VOLUMES, name, name=name, security={"userns": "host"}, **more))
    host.appbox("apply", host.services)
    for name in ("one", "two"):
        host.machine.wait_until(lambda name=name: host.has_data(name, "seen"), 20, name)  # type: ignore[misc]
        lines = host.data(name, "seen").splitlines()
        assert lines[-3:] == ["/t 1770 0:5", "/shared 755 0:0", "2048"]
        places = ["/data", "/data/deep/conf", "/ro", "/ro/sub", "/shared", "/shared/in", "/t"]
        assert [line.split()[1] for line in lines[:-3]] == places
    assert sorted(p.name for p in host.machine.path(f"{top}/shared").iterdir()) == ["in", "mine-one", "mine-two"]
    assert "nothing to do" in host.appbox("apply", host.services).out
