"""What an ordinary user's services have otherwise than root's, and what they cannot have, which is said beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ground import roots
from tests.init.host import Host, script_manifest

SHOW = """\
{ cat /run/secrets/own /run/secrets/roots /run/secrets/asked /etc/app.conf; stat -c '%u:%g' /own; } >/data/new
mv /data/new /data/seen
exec sleep 1000
"""
REFUSED: dict[str, tuple[int, dict[str, Any], str]] = {
    "a secret of another user": (8, {"secrets": {"x": {"file": "/srv/bobs"}}}, "belongs to the user id 1234"),
    "a secret that all may write": (8, {"secrets": {"x": {"file": "/srv/open"}}}, "written by others than you"),
    "a way that another can change": (
        6,
        {"volumes": {"v": {"path": "/v", "source": "/srv/bob/in"}}},
        "/srv/bob: cannot be on the way to a volume",
    ),
    "a place of root's": (6, {"volumes": {"v": {"path": "/v", "source": "/srv/new"}}}, "only root can make it"),
    "files as another's": (
        3,
        {"volumes": {"v": {"path": "/v", "source": f"/home/{roots.USER}/full", "owner": "33:33"}}},
        "chown -R 33:33 /home/alice/full",
    ),
    "a low port": (
        8,
        {"network": {"mode": "pasta", "ports": ["80:80"]}},
        "echo net.ipv4.ip_unprivileged_port_start=80 > /etc/sysctl.d/50-appbox.conf",
    ),
    "ids of the host": (8, {"security": {"userns": {"base": 900_000, "size": 65_536}}}, "the user's ids"),
    "a device of root's": (8, {"security": {"devices": ["/dev/secret"]}}, "you may not open /dev/secret"),
    "more open files than allowed": (8, {"resources": {"nofile": 9_000_000}}, "resources.nofile"),
}


def script(name: str = "job", **tables: Any) -> dict[str, Any]:
    found = script_manifest(SHOW, name=name, network={"mode": "none"})
    found["process"]["stop_timeout"] = 1
    return {**found, **tables}


@pytest.mark.parametrize("host", ["systemd-user", "openrc-user"], indirect=True)
def test_a_user_has_what_is_the_users_or_roots_and_nothing_of_others(host: Host) -> None:
    host.write(f"{host.home}/own", "mine\n", 0o600)
    host.write(f"{host.home}/full/file", "x")
    host.machine.write("/etc/given", "given\n", 0o644)
    host.machine.write("/srv/open", "all\n", 0o666)
    host.machine.write("/srv/bobs", "bobs\n", 0o644)
    host.machine.write("/srv/bob/in/file", "bobs\n", 0o644)
    host.machine.run(["chown", "1234", "/srv/bobs", "/srv/bob"])
    host.machine.run(["mknod", "-m", "0600", "/dev/secret", "c", "1", "3"])
    for what, (code, tables, words) in REFUSED.items() if host.systemd else ():
        path = host.write_manifest(script("never", **tables))
        found = host.appbox("plan", path, code=code).err
        assert words in found, (what, found)
    assert not host.machine.exists(f"{host.containers}/never")

    limited = host.write_manifest(script("never", resources={"memory": "64M"}))
    assert "no limit can be set: " in host.appbox("plan", limited, code=8).err

    secrets = {"own": {"file": f"{host.home}/own"}, "roots": {"file": "/etc/given"}, "asked": {"command": ["id", "-u"]}}
    config = {"/etc/app.conf": {"text": "one\n", "on_change": "none"}}
    volumes = {"data": {"path": "/data"}, "own": {"path": "/own", "source": f"{host.home}/made", "owner": "33:34"}}
    asked = script(secrets=secrets, config=config, volumes=volumes, security={"userns": "host"})
    said = host.apply(asked).out
    assert "only root can let a running container see new files" in said
    assert f'userns = "host" changes nothing: root in the service is {roots.USER}' in said
    host.machine.wait_until(lambda: host.has_data("job", "seen"), 20, "what it sees")
    assert host.data("job", "seen").split() == ["mine", "given", "0", "one", "33:34"]
    # The running container cannot be shown another file: it starts again.
    host.apply({**asked, "config": {"/etc/app.conf": {"text": "two\n", "on_change": "none"}}})
    host.machine.wait_until(lambda: "two" in host.data("job", "seen"), 20, "the new file")
    host.machine.run(["chmod", "0666", f"{host.home}/own"])
    host.control("restart", "job", check=False)
    host.machine.wait_until(
        lambda: "the file of secret own may be written by others" in host.appbox("logs", "job").out, 20, "the refusal"
    )
    host.appbox("remove", "job", "--purge", "--yes")
    assert host.machine.exists(f"{host.home}/made")


@pytest.mark.parametrize("host", ["systemd-user"], indirect=True)
def test_without_an_overlay_each_start_has_a_copy(host: Host) -> None:
    # An overlay over two others is one too many for the kernel (FILESYSTEM_MAX_STACK_DEPTH).
    for number, lower in enumerate(("/var/tmp/home", host.home)):
        folder = f"/mnt/{number}"
        host.machine.run(["mkdir", "-p", folder, "/var/tmp/home"])
        host.machine.run(["mount", "-t", "tmpfs", "tmpfs", folder])
        host.machine.run(["mkdir", f"{folder}/upper", f"{folder}/work"])
        host.machine.run(["chown", roots.USER, f"{folder}/upper"])
        options = f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work"
        host.machine.run(["mount", "-t", "overlay", "-o", options, "overlay", host.home])
    change = "cat /etc/mark >/data/mark 2>/dev/null; echo changed >/etc/mark; exec sleep 1000"
    asked = {**script_manifest(change), "network": {"mode": "none"}}
    asked["process"]["stop_timeout"] = 1
    host.apply(asked)
    assert "each start copies all files of the image" in host.appbox("apply", f"{host.services}/job.toml").out + (
        host.appbox("plan", host.write_manifest({**asked, "description": "x"})).out
    )
    host.control("restart", "job")
    host.machine.wait_until(lambda: host.is_active("job"), 10, "its second start")
    assert not host.has_data("job", "mark")
    assert "as they were unpacked" in host.appbox("verify", "job").out
    asked["security"] = {"rootfs": "persistent"}
    found = host.appbox("plan", host.write_manifest(asked), code=8).err
    assert "there is no overlay" in found
    host.appbox("remove", "job", "--purge", "--yes")
    assert not host.machine.exists(f"{host.containers}/job-debian")


@pytest.mark.parametrize("host", ["systemd-user"], indirect=True)
def test_on_an_older_kernel_what_is_written_goes_to_the_disk(host: Host) -> None:
    host.machine.write("/usr/local/bin/uname", "#!/bin/sh\necho 6.1.0-40-amd64\n", 0o755)
    change = (
        "cat /etc/mark >/data/mark 2>/dev/null; rm -r /home; mkdir /home && echo x >/etc/mark && echo x >/data/done"
    )
    asked = {**script_manifest(f"{change}; exec sleep 1000"), "network": {"mode": "none"}}
    asked["process"]["stop_timeout"] = 1
    host.apply(asked)
    host.machine.wait_until(lambda: host.has_data("job", "done"), 10, "its first start")
    assert host.machine.exists(f"{host.containers}/job/.copy/upper/etc/mark")
    host.control("restart", "job")
    host.machine.wait_until(lambda: host.is_active("job"), 10, "its second start")
    assert not host.has_data("job", "mark")
    host.appbox("remove", "job", "--purge", "--yes")
    assert not host.machine.exists(f"{host.containers}/job-debian")


@pytest.mark.parametrize("host", ["openrc-user"], indirect=True)
def test_slirp4netns_takes_the_place_of_pasta(host: Host) -> None:
    host.machine.run(["chmod", "0666", "/dev/net/tun"])
    host.machine.run(["sh", "-c", 'mv "$(command -v pasta)" /root/'])
    asked = script_manifest(
        "ip addr show eth0 >/data/new; cat /etc/resolv.conf >>/data/new; mv /data/new /data/seen; exec sleep 1000",
        network={"mode": "pasta", "ports": ["8080:80"]},
    )
    asked["process"]["stop_timeout"] = 1
    found = host.appbox("plan", host.write_manifest(asked), code=8).err
    assert "slirp4netns publishes no ports" in found
    del asked["network"]["ports"]
    assert "slirp4netns connects it" in host.apply(asked).out
    host.machine.wait_until(lambda: host.has_data("job", "seen"), 20, "its interface")
    assert "inet 10.0.2.100/24" in host.data("job", "seen")

    def helpers() -> list[int]:
        return [p.pid for p in host.machine.processes() if p.name.startswith("slirp4netns")]

    (first,) = helpers()
    host.machine.kill(first)
    host.machine.wait_until(lambda: helpers() not in ([], [first]), 20, "another one")
    assert "slirp4netns has ended, and the service with it" in host.appbox("logs", "job").out
    host.appbox("remove", "job", "--purge", "--yes")
    assert not helpers()
