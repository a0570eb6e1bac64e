"""Networks of their own and shared ones: pasta, `service:NAME`, and the names that a service finds others by."""

from __future__ import annotations

import json
from typing import Any

from tests.init.host import Host, script_manifest

PAGE = "http://127.0.0.1:8080/"
SERVER = """\
echo hello >/data/index.html
exec httpd -f -p 80 -h /data
"""
CLIENT = r"""
while :; do
    printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 1 127.0.0.1 80 | grep -q hello &&
        cat /etc/hosts /etc/resolv.conf >/data/new && mv /data/new /data/names
    sleep 0.2
done
"""


def web(**tables: Any) -> dict[str, Any]:
    """Return a server without any privilege, in a network of its own that publishes its low ports."""
    ports = ["127.0.0.1:8080:80", "[::1]:8081:80", "127.0.0.1:53:53/udp"]
    network = {"mode": "pasta", "ports": ports, "hosts": {"db.example": "192.0.2.77"}}
    process = {"entrypoint": ["sh", "-c", SERVER], "user": "1000:1000", "stop_timeout": 1}
    volumes = {"data": {"path": "/data", "owner": "1000:1000"}}
    return {**script_manifest("", name="web"), "process": process, "volumes": volumes, "network": network, **tables}


def side(**tables: Any) -> dict[str, Any]:
    """Return a client in the server's network."""
    found = script_manifest(CLIENT, name="side", network={"mode": "service:web"})
    found["process"]["stop_timeout"] = 1
    return {**found, **tables}


def connect(host: Host) -> None:
    """Give the machine an interface to somewhere, as pasta wants to find one, and let users have tun and low ports."""
    host.machine.run(["chmod", "0666", "/dev/net/tun"])
    host.machine.run(["sysctl", "-q", "-w", "net.ipv4.ip_unprivileged_port_start=53"])
    for words in (
        "link add up0 type veth peer name down0",
        "address add 192.0.2.2/24 dev up0",
        "address add 2001:db8::2/64 dev up0 nodad",
        "link set up0 up",
        "link set down0 up",
        "route add default via 192.0.2.1",
        "-6 route add default via 2001:db8::1 dev up0",
    ):
        host.machine.run(["ip", *words.split()])


def page(host: Host, address: str = PAGE) -> str:
    return host.run(["curl", "-s", "-m", "2", address], check=False).out.strip()


def first(host: Host, name: str) -> int:
    """Return the number of a service's first process, 0 when it does not run."""
    found = host.oci("state", name, check=False)
    return int(json.loads(found.out)["pid"]) if found.code == 0 else 0


def network(host: Host, name: str) -> str:
    """Return the network namespace of a service, "" when it does not run. A number may come again when one is gone."""
    return host.machine.run(["readlink", f"/proc/{first(host, name)}/ns/net"], check=False).out.strip()


def share(host: Host) -> bool:
    """Tell whether both run and are in one network."""
    return bool(network(host, "web")) and network(host, "web") == network(host, "side")


def pasta(host: Host) -> list[int]:
    return [p.pid for p in host.machine.processes() if p.name.startswith(("pasta", "passt"))]


def test_pasta_and_who_shares_its_network(host: Host) -> None:
    connect(host)
    host.apply(web())
    host.machine.wait_until(lambda: page(host) == "hello", 10, "the page")
    assert page(host, "http://[::1]:8081/") == "hello"
    assert host.run(["ip", "-o", "link"]).out.count("\n") == 3, "nothing of it is on the host"
    assert "127.0.0.1:53 " in host.run(["ss", "-lnu"]).out

    host.apply(side())
    host.machine.wait_until(lambda: host.has_data("side", "names"), 10, "the page inside")
    assert share(host)
    names = host.data("side", "names")
    assert "127.0.1.1 web\n" in names
    assert "192.0.2.77 db.example\n" in names
    assert "nameserver 192.0.2.53\n" in names
    assert "has a network that side shares" in host.appbox("remove", "web", code=1).err

    # A network that is made anew is made anew for both, however it ended.
    for what in ("its server", "pasta"):
        before = first(host, "web")
        host.machine.kill((pasta(host) if what == "pasta" else host.machine.find("httpd"))[0])
        host.machine.wait_until(lambda: first(host, "web") not in {0, before}, 20, f"the end of {what}")  # noqa: B023
        host.machine.wait_until(lambda: share(host), 20, f"the same network after the end of {what}")
        host.machine.wait_until(lambda: page(host) == "hello", 10, "the page")
        assert len(pasta(host)) == 1
    assert "pasta has ended" in host.appbox("logs", "web").out

    host.control("restart", "web")
    host.machine.wait_until(lambda: share(host), 10, "the same network after a restart")
    host.control("stop", "web")
    assert not host.is_active("side")
    host.machine.wait_until(lambda: not host.traces("web") and not pasta(host), 5, "the end")
    host.control("start", "side")
    host.machine.wait_until(lambda: share(host), 10, "both")
    host.appbox("remove", "side")
    host.appbox("remove", "web")
    assert not host.traces("web")


def test_what_cannot_be_shared_is_refused_before_anything_is_touched(host: Host) -> None:
    connect(host)
    path = host.write_manifest(side())
    found = host.appbox("plan", path, code=3).err
    assert f"{path}:" in found
    assert "web is neither installed nor among the manifests" in found
    host.write_manifest(web(network={"mode": "host"}))
    found = host.appbox("check", path, host.write_manifest(web(network={"mode": "host"})), code=3).err
    assert "web has the host's network" in found
    program = host.run(["sh", "-c", "command -v pasta"]).out.strip()
    host.machine.run(["mv", program, f"{program}.gone"])
    host.machine.run(["sh", "-c", 'rm "$(command -v slirp4netns)"'])
    found = host.appbox("apply", host.write_manifest(web()), code=8).err
    assert "network.mode" in found
    assert "install the package passt" in found
    assert not host.machine.exists(host.containers)


def test_a_service_on_the_hosts_network_knows_itself_and_whom_the_host_knows(host: Host) -> None:
    host.write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.9 printer.example")
    host.write("/etc/resolv.conf", "# by hand\nnameserver 127.0.0.53\nsearch example")
    script = "cat /etc/hosts >/data/hosts; cat /etc/resolv.conf >/data/resolv; hostname >/data/name; exec sleep 1000"
    host.apply(script_manifest(script, network={"mode": "host", "hosts": {"db.example": "2001:db8::1"}}))
    host.machine.wait_until(lambda: host.has_data("job", "name"), 10, "the files")
    assert host.data("job", "hosts").splitlines()[-4:] == [
        "127.0.1.1 job",
        "2001:db8::1 db.example",
        "127.0.0.1 localhost",
        "192.0.2.9 printer.example",
    ]
    assert host.data("job", "resolv").splitlines() == ["# by hand", "nameserver 127.0.0.53", "search example"]
