"""Services on bridges: their addresses, names and ports, with each init."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ground import images
from tests.init.host import Host, redis_manifest, script_manifest
from tests.init.test_share import connect, pasta
from tests.init.worlds import RUNTIME_DIRECTORY, WORLDS

ECHO = """\
my $socket = IO::Socket::INET->new(LocalPort => 5300, Proto => "udp") or die;
my $text; while (1) { $socket->send($text) if defined $socket->recv($text, 99); }
"""
NETWORKS = '[appbox]\nsubnet = "10.89.7.0/24"\nsubnet6 = "fd00:89:7::/64"\n'


def redis(name: str, mode: str, *ports: str, **tables: Any) -> dict[str, Any]:
    """Return a manifest of a redis that everybody may ask, in a network of its own."""
    process = {"args": ["redis-server", "--protected-mode", "no"]}
    network = {"mode": mode, **({"ports": list(ports)} if ports else {})}
    return redis_manifest(name, process=process, network=network, **tables)


def ask(host: Host, service: str, *words: str) -> str:
    """Return what redis answers to a client in the container of `service`."""
    command = ["appbox", "exec", service, "timeout", "2", "redis-cli", *words, "ping"]
    return host.run(command, check=False).out.strip()


def wait_for(host: Host, service: str, *words: str) -> None:
    host.machine.wait_until(lambda: ask(host, service, *words) == "PONG", 20, f"{service} to reach {words}")


def rules(host: Host) -> list[str]:
    """Return the rules of the host's firewall that are not the empty ones of the CNI plugin."""
    saved = "".join(host.machine.run([f"{name}-save"], check=False).out for name in ("iptables", "ip6tables"))
    return [line for line in saved.splitlines() if "APPBOX" in line or "10.89" in line or "CNI-DN" in line]


def test_services_on_bridges_find_each_other_and_are_reached(host: Host) -> None:
    images.ensure("nginx")
    host.machine.write("/etc/appbox/networks.toml", NETWORKS)
    web = {"name": "web", "image": "oci:/var/cache/appbox-dev/images/nginx", "version": "debian"}
    host.write_manifest({**web, "network": {"mode": "bridge", "ports": ["8080:80", "127.0.0.1:8081:80"]}})
    host.write_manifest(redis("cache", "bridge", "7000:6379"))
    host.write_manifest(redis("apart", "bridge:apart"))
    planned = host.appbox("plan", "/root/services").out
    assert "give it 10.89.7.2 and fd00:89:7::2 in the network appbox (10.89.7.0/24)" in planned
    assert "net.ipv4.ip_forward" in planned
    host.appbox("apply", "/root/services")
    assert "nothing to do" in host.appbox("apply", "/root/services").out
    # Names, one of a service that came later.
    wait_for(host, "cache", "-h", "cache")
    host.apply(redis("late", "bridge"))
    wait_for(host, "cache", "-h", "late")
    wait_for(host, "late", "-h", "cache")
    assert "nothing to do" in host.appbox("apply", "/root/services").out
    # Another namespace: through published ports of both kinds of addresses, and not to what is only local.
    host.machine.run(["ip", "netns", "add", "client"])
    host.machine.run(["ip", "link", "add", "out", "type", "veth", "peer", "name", "eth0", "netns", "client"])
    for where, device, number in (([], "out", 1), (["-n", "client"], "eth0", 2)):
        host.machine.run(["ip", *where, "addr", "add", f"192.0.2.{number}/24", "dev", device])
        host.machine.run(["ip", *where, "addr", "add", f"2001:db8::{number}/64", "dev", device, "nodad"])
        host.machine.run(["ip", *where, "link", "set", device, "up"])
    client = ["ip", "netns", "exec", "client", "timeout", "3", "busybox", "wget", "-q", "-O", "-"]

    def shown(url: str, *, outside: bool = True) -> bool:
        words = [*client, url] if outside else [*client[4:], url]
        return "Welcome to nginx" in host.machine.run(words, check=False).out

    host.machine.wait_until(lambda: shown("http://192.0.2.1:8080/"), 20, "nginx, from outside")
    assert shown("http://[2001:db8::1]:8080/")
    assert shown("http://127.0.0.1:8081/", outside=False)
    assert not shown("http://192.0.2.1:8081/")
    # Bridges are apart, but for what is published.
    places = {one["name"]: one for one in json.loads(host.appbox("--json", "status").out)}
    assert ask(host, "apart", "-h", places["cache"]["addresses"][0]) == ""
    assert ask(host, "apart", "-h", "192.0.2.1", "-p", "7000") == "PONG"
    assert places["web"]["ports"] == ["8080:80/tcp", "127.0.0.1:8081:80/tcp"]
    # kill -9 of the server: everything is as before.
    old = [p.pid for p in host.machine.processes() if p.name == "redis-server" and "cache" in p.cgroup]
    host.machine.kill(old[0])
    host.machine.wait_until(lambda: ask(host, "cache", "-h", "localhost") == "PONG", 20, "another server")
    wait_for(host, "late", "-h", "cache")
    # What goes takes everything of its own along, and its name.
    host.appbox("remove", "cache", "--purge")
    assert places["cache"]["addresses"][0] not in "\n".join(rules(host))
    assert "cache" not in host.machine.read("/run/appbox/late/hosts")
    assert "cache" not in host.machine.read("/var/lib/appbox/addresses.toml")
    # Everything comes back after a power cut.
    host.machine.reboot(hard=True)
    wait_for(host, "late", "-h", "late")
    host.machine.wait_until(lambda: shown("http://127.0.0.1:8081/", outside=False), 20, "nginx after the power cut")
    for name in ("web", "late", "apart"):
        host.control("stop", name)
    host.machine.wait_until(lambda: not rules(host), 5, f"the end of {rules(host)}")
    links = json.loads(host.machine.run(["ip", "-json", "link"]).out)
    assert not [link["ifname"] for link in links if link["ifname"].startswith(("ab-", "veth"))]


def test_ports_that_somebody_has_and_hosts_that_lack_something_are_refused(host: Host) -> None:
    host.write_manifest(redis("one", "bridge", "127.0.0.1:7000:6379"))
    path = host.write_manifest(redis("two", "bridge", "7000:6379"))
    error = host.appbox("plan", "/root/services", code=3).err
    assert f"{path}:" in error
    assert "network.ports[0]: port 7000/tcp of the host is taken by the service one" in error
    host.apply(redis("one", "bridge", "127.0.0.1:7000:6379"), "--no-start")
    assert "taken by the service one" in host.appbox("plan", path, code=3).err
    server = host.machine.start(["busybox", "nc", "-l", "-p", "7001"])
    error = host.appbox("plan", host.write_manifest(redis("two", "bridge", "7001:6379")), code=3).err
    assert "port 7001/tcp of the host is taken by busybox (process " in error
    host.machine.kill(int(error.partition("(process ")[2].partition(")")[0]))
    server.communicate()
    host.machine.run(["mv", "/usr/lib/cni", "/usr/lib/cni.away"])
    error = host.appbox("apply", path, code=8).err
    assert "network.mode: this host has no CNI plugin bridge and no static and no portmap" in error
    assert not host.machine.exists("/opt/containers/two")


def echoes(host: Host) -> bool:
    """Tell whether the service that answers to UDP does, from the host."""
    script = "exec 3<>/dev/udp/127.0.0.1/5300; echo hello >&3; timeout 2 head -c 6 <&3"
    return host.machine.run(["bash", "-c", script], check=False).out == "hello\n"


def runtime_of_apart(host: Host) -> list[int]:
    """Return the process of the first service's runtime."""
    return [p.pid for p in host.machine.processes() if p.name == host.runtime and p.words[-1] == "apart"]


def running(host: Host, numbers: list[int]) -> bool:
    """Tell whether any of those processes is there."""
    return any(process.pid in numbers for process in host.machine.processes())


def namespaces(host: Host) -> set[str]:
    """Return the namespaces of networks and users in which processes of the machine are."""
    found = host.machine.run(["sh", "-c", "readlink /proc/[0-9]*/ns/net /proc/[0-9]*/ns/user"], check=False)
    return set(found.out.split())


@pytest.mark.parametrize("host", [name for name, world in WORLDS.items() if world.ordinary], indirect=True)
def test_bridges_of_an_ordinary_user(host: Host) -> None:
    connect(host)
    before = namespaces(host), host.machine.run(["ip", "-o", "link"]).out
    host.write(f"{host.places.config}/networks.toml", NETWORKS)
    host.write_manifest(redis("cache", "bridge", "127.0.0.1:7000:6379"))
    ports = {"ports": ["127.0.0.1:5300:5300/udp"]}
    process = {"entrypoint": ["perl", "-MIO::Socket::INET", "-e", ECHO], "stop_timeout": 1}
    host.write_manifest({**redis("echo", "bridge"), "process": process, "network": {"mode": "bridge", **ports}})
    apart = script_manifest("exec httpd -f -p 6379", name="apart", network={"mode": "bridge:apart"})
    apart["process"]["stop_timeout"] = 1
    host.write_manifest(apart)
    assert "give it 10.89.7.2 and fd00:89:7::2 in the network appbox" in host.appbox("apply", host.services).out
    assert "nothing to do" in host.appbox("apply", host.services).out

    def whole() -> bool:
        return host.redis("ping", port=7000) == "PONG" and echoes(host) and ask(host, "echo", "-h", "cache") == "PONG"

    host.machine.wait_until(whole, 20, "all of them")
    place = {one["name"]: one["addresses"] for one in json.loads(host.appbox("--json", "status").out)}["cache"]
    assert ask(host, "echo", "-h", place[1]) == "PONG", "IPv6"
    connects = "nc -w 2 apart 6379 </dev/null && { nc -w 2 " + place[0] + " 6379 </dev/null || echo kept apart; }"
    assert host.appbox("exec", "apart", "sh", "-c", connects).out.endswith("kept apart\n")
    assert host.machine.run(["ip", "-o", "link"]).out == before[1], "nothing of it is on the host"
    # Whatever ends, the others stay connected, and it comes back to them: also the one that made the namespaces.
    for which in (lambda _: host.machine.find("redis-server")[:1], pasta, runtime_of_apart):
        old = which(host)
        host.machine.run(["kill", "-9", *map(str, old)])
        host.machine.wait_until(lambda: not running(host, old) and whole(), 30, f"others than {old}")  # noqa: B023
    host.appbox("remove", "apart", "--purge", "--yes")
    for name in ("cache", "echo"):
        host.control("stop", name)
    host.machine.wait_until(lambda: namespaces(host) == before[0], 5, "the end of all namespaces")
    assert not [trace for name in ("cache", "echo", "apart") for trace in host.traces(name)]
    assert not host.machine.run(["ls", f"{RUNTIME_DIRECTORY}/netns"]).out
    host.reboot(hard=True)
    connect(host)
    host.machine.wait_until(whole, 30, "all of them after the power cut")
