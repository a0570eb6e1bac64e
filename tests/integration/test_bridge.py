"""Bridges with the real CNI plugins, runc and iptables, in a network namespace that stands for the host."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest

from appbox import cni, peers
from appbox.addresses import Attachment, Network
from appbox.host import networks
from appbox.oci import runtime_spec
from appbox.quantities import Port
from appbox.units import model, render

pytestmark = [pytest.mark.root, pytest.mark.runc]

BASE = 1_879_048_192
OUTSIDE = "192.0.2.1"  # an address of the host on its way out
CLIENT = "192.0.2.2"

ECHO = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as server:
    server.bind((sys.argv[1], int(sys.argv[2])))
    print("ready", flush=True)
    while True:
        data, peer = server.recvfrom(100)
        server.sendto(data[::-1], peer)
"""
ASK = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as client:
    client.settimeout(2)
    client.sendto(b"abc", (sys.argv[1], int(sys.argv[2])))
    print(client.recv(100).decode())
"""


class Lab:
    """A host of its own: a network namespace with the interface `out`, behind which is another one, the client's."""

    def __init__(self, bundles: Path) -> None:
        self.bundles = bundles
        self.tag = f"{os.getpid() % 10000}"
        self.children: list[subprocess.Popen[bytes]] = []
        self.names: list[str] = []
        self.host, self.client = self.namespace(), self.namespace()
        self.inside(self.host, "ip", "link", "add", "out", "type", "veth", "peer", "name", "eth0")
        self.inside(self.host, "ip", "link", "set", "eth0", "netns", str(self.client))
        for pid, name, address in ((self.host, "out", OUTSIDE), (self.client, "eth0", CLIENT)):
            six = "2001:db8::" + address[-1]
            self.inside(pid, "sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{name}/accept_dad")
            self.inside(pid, "ip", "addr", "add", f"{address}/24", "dev", name)
            self.inside(pid, "ip", "addr", "add", f"{six}/64", "dev", name)
            self.inside(pid, "ip", "link", "set", name, "up")

    def namespace(self) -> int:
        """Return a process that holds a network namespace, with its own /sys."""
        script = """
            mount --rbind /sys/fs/cgroup "$1" && mount -t sysfs none /sys && mount --rbind "$1" /sys/fs/cgroup &&
                umount -l "$1" && ip link set lo up && echo ready && exec sleep 1000"""
        words = ["unshare", "--net", "--mount", "--propagation=slave", "sh", "-c", script, "sh", str(self.bundles)]
        child = subprocess.Popen(words, stdout=subprocess.PIPE)
        self.children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        return child.pid

    def command(self, pid: int, *words: str) -> list[str]:
        return ["nsenter", "--target", str(pid), "--net", "--mount", *words]

    def inside(self, pid: int, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            self.command(pid, *words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, done
        return done.stdout

    def service(self, name: str, attachment: Attachment, *ports: Port) -> Service:
        return Service(self, f"b{self.tag}{name}", attachment, ports)

    def network(self, name: str, third: int, **more: object) -> Network:
        subnet = IPv4Network(f"10.89.{third}.0/24")
        return Network(f"{name}{self.tag}", subnet, **more)  # type: ignore[arg-type]

    def get(self, pid: int, url: str) -> str:
        """Return what is served there, "" when nobody answers."""
        return self.inside(pid, "curl", "--silent", "--globoff", "--max-time", "1", url, check=False)

    def ask(self, pid: int, address: str, port: int) -> str:
        return self.inside(pid, sys.executable, "-c", ASK, address, str(port), check=False).strip()

    def rules(self) -> str:
        return "".join(self.inside(self.host, f"{name}-save") for name in ("iptables", "ip6tables"))

    def links(self) -> set[str]:
        return {link["ifname"] for link in json.loads(self.inside(self.host, "ip", "-json", "link"))}

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        for name in self.names:
            subprocess.run(["runc", "delete", "--force", name], capture_output=True, check=False)
            shutil.rmtree(f"/run/appbox/{name}", ignore_errors=True)
        for bridge in Path("/run/appbox/.bridges").glob(f"*{self.tag}"):
            shutil.rmtree(bridge)


class Service:
    """A bundle whose busybox serves its own name on port 80."""

    def __init__(self, lab: Lab, name: str, attachment: Attachment, ports: tuple[Port, ...]) -> None:
        self.lab, self.name, self.attachment = lab, name, attachment
        self.process: subprocess.Popen[bytes] | None = None
        lab.names.append(name)
        self.bundle = lab.bundles / f"{name}-1.0"
        rootfs = self.bundle / "rootfs"
        for directory in ("bin", "dev", "etc", "proc", "sys", "tmp", "www"):
            (rootfs / directory).mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "bin/busybox")
        for applet in ("httpd",):
            (rootfs / "bin" / applet).symlink_to("busybox")
        (rootfs / "www/index.html").write_text(name)
        (rootfs / "etc/hosts").touch()
        live = self.bundle / ".live"
        for directory in ("work", "upper"):
            (live / directory).mkdir(parents=True)
        (live / "resolv.conf").touch()
        for path in (rootfs, *rootfs.rglob("*"), live / "upper"):
            os.lchown(path, BASE, BASE)
        os.chown(self.bundle, 0, BASE)
        self.bundle.chmod(0o710)
        (lab.bundles / name).symlink_to(self.bundle.name)
        self.write(ports)

    def write(self, ports: tuple[Port, ...]) -> None:
        """Write a generation."""
        generation = self.bundle / ".generation"
        shutil.rmtree(generation, ignore_errors=True)
        (generation / "etc").mkdir(parents=True)
        (generation / "etc/hosts").write_text("127.0.0.1 localhost\n")
        for path, data in cni.files(self.attachment, ports, (self.name,)).items():
            (generation / path).parent.mkdir(exist_ok=True)
            (generation / path).write_bytes(data)
        network = self.attachment.network
        script = model.RunScript(
            self.name,
            "1.0",
            BASE,
            bridge=model.Bridge(network.name, network.bridge),
            resolver="",
            hosts="bridge",
            bundles=str(self.lab.bundles),
        )
        (self.bundle / "run").write_text(render.run_script(script))
        (self.bundle / "run").chmod(0o755)
        container = runtime_spec.Container(
            args=("httpd", "-f", "-p", "[::]:80", "-h", "/www"),
            env=("PATH=/bin",),
            hostname=self.name,
            userns=runtime_spec.IdMap(BASE),
            mounts=(runtime_spec.Mount("/etc/hosts", f"/run/appbox/{self.name}/hosts", "bind", ("bind", "ro")),),
            cgroups_path=self.name,
            hook=f"{self.bundle}/run",
        )
        (self.bundle / "config.json").write_text(runtime_spec.dumps(runtime_spec.spec(container)))
        current = self.bundle / ".current"
        current.unlink(missing_ok=True)
        current.symlink_to(".generation")

    def script(self, *words: str) -> list[str]:
        return self.lab.command(self.lab.host, str(self.lab.bundles / self.name / "run"), *words)

    def start(self) -> subprocess.Popen[bytes]:
        with (self.lab.bundles / "log").open("ab") as log:
            process = subprocess.Popen(self.script(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.lab.children.append(process)
        self.process = process
        address = str(self.attachment.address)
        wait_until(lambda: self.lab.get(self.lab.host, f"http://{address}/") == self.name, self.log)
        return process

    def log(self) -> str:
        return (self.lab.bundles / "log").read_text()

    def clean(self) -> None:
        """Clean up as the init does when what it has started is gone; before that, the script would leave it alone."""
        if self.process is not None:
            self.process.wait(10)
        subprocess.run(self.script("clean"), check=True)

    @property
    def pid(self) -> int:
        state = json.loads(subprocess.check_output(["runc", "state", self.name]))
        return int(state["pid"])

    def fetch(self, host: str) -> str:
        """Return what is served at `host`, seen from the service: a name is looked up in its own /etc/hosts."""
        pid, (name, _, port) = self.pid, host.partition(":")
        known = [line.split() for line in Path(f"/proc/{pid}/root/etc/hosts").read_text().splitlines()]
        address = next((words[0] for words in known if name in words[1:]), name)
        words = ["nsenter", "--target", str(pid), "--net", "curl", "--silent", "--max-time", "1"]
        done = subprocess.run([*words, f"http://{address}:{port or 80}/"], capture_output=True, text=True, check=False)
        return done.stdout

    @contextlib.contextmanager
    def echo(self, address: str, port: int) -> Iterator[None]:
        """Answer datagrams within the service's network."""
        words = ["nsenter", "--target", str(self.pid), "--net", sys.executable, "-c", ECHO, address, str(port)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == b"ready\n"
                yield
            finally:
                process.kill()


def wait_until(condition: Callable[[], object], why: Callable[[], str], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


@pytest.fixture
def lab() -> Iterator[Lab]:
    bundles = Path("/var/tmp", f"appbox-bridge-{os.getpid()}")
    bundles.mkdir()
    made = Lab(bundles)
    yield made
    made.close()
    shutil.rmtree(bundles)


def test_a_service_is_reached_by_address_by_name_and_by_its_ports_and_leaves_nothing(lab: Lab) -> None:
    network = lab.network("net", 0, subnet6=IPv6Network("fd00:89::/64"))
    ports = (Port("", 8080, 80, "tcp"), Port("127.0.0.1", 8081, 80, "tcp"), Port("", 5353, 53, "udp"))
    web = lab.service("web", Attachment(network, IPv4Address("10.89.0.2")), *ports)
    other = lab.service("other", Attachment(network, IPv4Address("10.89.0.3")))
    before, rules = lab.links(), lab.rules()
    web.start()
    # From the host, from outside through a published port, by both kinds of addresses.
    # The kernel looks for a second whether somebody else has the bridge's own IPv6 address.
    wait_until(lambda: lab.get(lab.host, "http://[fd00:89::2]/") == web.name, lab.rules)
    for place in (f"{OUTSIDE}:8080", "[2001:db8::1]:8080"):
        assert lab.get(lab.client, f"http://{place}/") == web.name
    for place in ("127.0.0.1:8080", "127.0.0.1:8081", f"{OUTSIDE}:8080"):
        assert lab.get(lab.host, f"http://{place}/") == web.name
    assert lab.get(lab.client, f"http://{OUTSIDE}:8081/") == ""
    with web.echo("0.0.0.0", 53):
        assert lab.ask(lab.client, OUTSIDE, 5353) == "cba"
        assert lab.ask(lab.host, "127.0.0.1", 5353) == "cba"
    with web.echo("::", 53):
        assert lab.ask(lab.client, "2001:db8::1", 5353) == "cba"
    # By name, both ways, though one came after the other: the file is rewritten in place.
    other.start()
    hosts = Path("/run/appbox", web.name, "hosts")
    lines = [(lab.bundles / s.name / f".current/cni/hosts.{network.name}").read_text() for s in (other, web)]
    hosts.write_text(peers.hosts_text("127.0.0.1 localhost\n", lines))
    assert other.fetch(web.name) == web.name
    assert web.fetch(other.name) == other.name
    assert web.fetch(web.name) == web.name
    assert sorted(hosts.read_text().splitlines()) == sorted(
        Path("/run/appbox", other.name, "hosts").read_text().splitlines()
    )
    # Outwards, with the host's address; and to itself through its published port.
    assert web.fetch(f"{OUTSIDE}:8080") == web.name
    # kill -9 of the container; its neighbour goes on.
    os.kill(web.pid, signal.SIGKILL)
    web.clean()
    assert "10.89.0.2" not in lab.rules()
    assert web.name not in lab.rules()
    assert lab.get(lab.host, "http://10.89.0.3/") == other.name
    assert not Path("/run/appbox", web.name, "cni").exists()
    os.kill(other.pid, signal.SIGKILL)
    other.clean()
    assert lab.links() == before
    assert [line for line in lab.rules().splitlines() if "APPBOX" in line or "10.89" in line] == []
    assert "APPBOX" not in rules
    assert not Path("/run/appbox/.bridges", network.bridge).exists()


def test_a_lock_that_is_never_free_is_waited_for_with_an_end(lab: Lab) -> None:
    web = lab.service("web", Attachment(lab.network("net", 4), IPv4Address("10.89.4.2")))
    web.start()
    os.kill(web.pid, signal.SIGKILL)
    assert web.process is not None
    web.process.wait(10)
    script = web.bundle / "run"
    text = script.read_text()
    assert text.count('"$tries" -lt 600') == 1
    script.write_text(text.replace('"$tries" -lt 600', '"$tries" -lt 5'))
    with Path("/run/appbox/.bridges/.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        failed = subprocess.run(web.script("clean"), capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "another service has held /run/appbox/.bridges/.lock for a minute" in failed.stderr
    web.clean()


def test_bridges_are_kept_apart_but_for_published_ports(lab: Lab) -> None:
    one, two = lab.network("one", 1), lab.network("two", 2)
    web = lab.service("web", Attachment(one, IPv4Address("10.89.1.2")), Port("", 8080, 80, "tcp"))
    app = lab.service("app", Attachment(two, IPv4Address("10.89.2.2")))
    web.start()
    app.start()
    assert app.fetch("10.89.1.2") == ""
    assert web.fetch("10.89.2.2") == ""
    assert app.fetch(f"{OUTSIDE}:8080") == web.name
    assert app.fetch("10.89.2.1:8080") == web.name


def test_open_bridges_reach_each_other(lab: Lab) -> None:
    one, two = lab.network("one", 1, isolate=False), lab.network("two", 2, isolate=False)
    web = lab.service("web", Attachment(one, IPv4Address("10.89.1.2")))
    app = lab.service("app", Attachment(two, IPv4Address("10.89.2.2")))
    web.start()
    app.start()
    assert app.fetch("10.89.1.2") == web.name


def test_a_start_undoes_what_a_killed_one_left_even_with_other_ports(lab: Lab) -> None:
    place = Attachment(lab.network("net", 3), IPv4Address("10.89.3.2"))
    web = lab.service("web", place, Port("", 8080, 80, "tcp"))
    process = web.start()
    os.kill(process.pid, signal.SIGKILL)
    os.kill(web.pid, signal.SIGKILL)
    web.write((Port("", 9090, 80, "tcp"),))
    web.start()
    assert lab.get(lab.client, f"http://{OUTSIDE}:9090/") == web.name
    assert lab.get(lab.client, f"http://{OUTSIDE}:8080/") == ""
    # After a flush of the host's firewall, one command sets everything anew.
    lab.inside(lab.host, "nft", "flush", "ruleset")
    assert lab.get(lab.client, f"http://{OUTSIDE}:9090/") == ""
    subprocess.run(web.script("network"), check=True)
    assert lab.get(lab.client, f"http://{OUTSIDE}:9090/") == web.name
    web.write(())
    os.kill(web.pid, signal.SIGKILL)
    web.clean()
    assert "9090" not in lab.rules()


def test_a_host_that_forwards_nothing_else_forwards_for_services(lab: Lab) -> None:
    place = Attachment(lab.network("net", 4), IPv4Address("10.89.4.2"))
    lab.inside(lab.host, "iptables", "-P", "FORWARD", "DROP")
    web = lab.service("web", place, Port("", 8080, 80, "tcp"))
    web.start()
    assert lab.get(lab.client, f"http://{OUTSIDE}:8080/") == web.name
    with socket_server(lab):
        assert web.fetch(f"{CLIENT}:7000") == CLIENT + " sees " + OUTSIDE


@contextlib.contextmanager
def socket_server(lab: Lab) -> Iterator[None]:
    """Serve at the client's address, port 7000, who asks."""
    script = """
import socket
with socket.create_server(("", 7000)) as server:
    print("ready", flush=True)
    while True:
        connection, peer = server.accept()
        with connection:
            text = connection.getsockname()[0] + " sees " + peer[0]
            connection.recv(1000)
            connection.sendall(f"HTTP/1.0 200 OK\\r\\nContent-Length: {len(text)}\\r\\n\\r\\n{text}".encode())
"""
    with subprocess.Popen(lab.command(lab.client, sys.executable, "-c", script), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def test_a_failing_plugin_fails_the_start_in_words(lab: Lab) -> None:
    place = Attachment(lab.network("net", 5), IPv4Address("10.89.5.2"))
    web = lab.service("web", place)
    config = web.bundle / ".current/cni/bridge.json"
    config.write_text(config.read_text().replace("10.89.5.2/24", "10.89.5.2/99"))
    done = subprocess.run(web.script(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "the CNI plugin bridge failed" in done.stderr
    web.clean()
    assert place.network.bridge not in lab.links()


def test_sockets_of_the_host_are_found_with_their_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = [one for one in networks.listening() if one.port == port and one.protocol == "tcp"]
        assert [(one.address, one.protocol) for one in found] == [("127.0.0.1", "tcp")]
        holders = networks.holders(found)
        assert {number: holder.pid for number, holder in holders.items()} == {found[0].inode: os.getpid()}
