"""pasta on the real runc, in a network that the test made: ports, and that it never outlives its container."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appbox.host import runc
from appbox.oci import runtime_spec
from appbox.units import model, render

pytestmark = [pytest.mark.root, pytest.mark.runc]

BASE = 1_879_048_192
NAME = f"pasta{os.getpid()}"
UPLINK = """\
ip link set lo up
ip link add up0 type veth peer name down0
ip address add 192.0.2.2/24 dev up0
ip link set up0 up
ip link set down0 up
ip route add default via 192.0.2.1
echo ready
exec sleep 300
"""
ECHO = """\
import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", 1053))
print("ready", flush=True)
while True:
    data, peer = udp.recvfrom(100)
    udp.sendto(data.upper(), peer)
"""
ASK = """\
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(5)
udp.sendto(b"shout", ("127.0.0.1", 1053))
print(udp.recv(100).decode())
"""

TAKE = """\
import socket, time
tcp = socket.socket()
tcp.bind(("127.0.0.1", 8080))
tcp.listen()
print("ready", flush=True)
time.sleep(60)
"""


class Net:
    """A network namespace with a way out, and a service with pasta in it."""

    def __init__(self, bundles: Path) -> None:
        self.bundles, self.bundle = bundles, bundles / f"{NAME}-1.0"
        self.processes: list[subprocess.Popen[str]] = []
        self.network = self._start(["unshare", "--net", "sh", "-c", UPLINK])

    def _start(self, words: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def make(self, base: int, command: str, **pasta: tuple[str, ...]) -> None:
        rootfs, live, generation = self.bundle / "rootfs", self.bundle / ".live", self.bundle / ".current"
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            (rootfs / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "bin/busybox")
        for applet in ("sh", "nc", "sleep"):
            (rootfs / "bin" / applet).symlink_to("busybox")
        for name in ("upper", "work"):
            (live / name).mkdir(parents=True)
        (live / "resolv.conf").touch()
        (generation / "etc").mkdir(parents=True)
        (generation / "etc/hosts").write_text("127.0.0.1 localhost\n")
        for path in (rootfs, *rootfs.rglob("*"), live / "upper"):
            os.lchown(path, base, base)
        os.chown(self.bundle, 0, base)
        self.bundle.chmod(0o710)
        (self.bundles / NAME).symlink_to(self.bundle.name)
        script = model.RunScript(
            NAME, "1.0", base, "outside", "own", model.Pasta(resolver="169.254.1.1", **pasta), bundles=str(self.bundles)
        )
        (self.bundle / "run").write_text(render.run_script(script))
        (self.bundle / "run").chmod(0o755)
        container = runtime_spec.Container(
            args=("sh", "-c", command),
            env=("PATH=/bin",),
            userns=runtime_spec.IdMap(base) if base else None,
            cgroups_path=NAME,
            mounts=(runtime_spec.Mount("/etc/hosts", f"/run/appbox/{NAME}/hosts", "", ("bind", "ro")),),
            sysctl={"net.ipv4.ip_unprivileged_port_start": "0"},
            hook=f"{self.bundle}/run",
        )
        (self.bundle / "config.json").write_text(runtime_spec.dumps(runtime_spec.spec(container)))

    def inside(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", "--", *words]

    def start(self) -> subprocess.Popen[str]:
        return self._start(self.inside(str(self.bundle / "run")))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.inside(*words), capture_output=True, text=True, timeout=30, check=False)

    def container(self) -> list[str]:
        """Return the words that enter the network of the container, with the rights that it has there."""
        pid = (Path("/run/runc") / NAME / "state.json").read_text().split('"init_process_pid":')[1].split(",")[0]
        return ["nsenter", "--target", pid, "--net", "--"]

    def pasta(self) -> int:
        """Return the number of the pasta of this service, 0 when none is left."""
        text = (Path("/run/appbox") / NAME / "pasta").read_text().split()
        return int(text[0]) if text and runc.start_time(int(text[0])) else 0

    def close(self) -> None:
        for process in self.processes[1:]:
            process.kill()
            process.wait()
        if self.bundle.exists():
            self.run(str(self.bundle / "run"), "clean")
        for process in self.processes:
            process.kill()
            process.communicate()
        shutil.rmtree(Path("/run/appbox") / NAME, ignore_errors=True)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    tmp_path.chmod(0o711)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o711)  # the mapped root has to get through
    made = Net(tmp_path)
    yield made
    made.close()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


SERVE = "echo ready; while :; do echo hello | nc -l -p 80; done"


@pytest.mark.parametrize("base", [BASE, 0], ids=["userns", "host ids"])
def test_published_ports_lead_into_the_container(net: Net, base: int) -> None:
    net.make(base, SERVE, tcp=("127.0.0.1/80:80", "8080:80"), udp=("127.0.0.1/1053:1053",))
    service = net.start()
    for address in ("127.0.0.1 80", "192.0.2.2 8080"):
        wait_until(lambda a=address: net.run("busybox", "nc", "-w", "1", *a.split()).stdout == "hello\n")  # type: ignore[misc]
    net._start([*net.container(), sys.executable, "-c", ECHO])
    assert net.run(sys.executable, "-c", ASK).stdout == "SHOUT\n"
    # Its rights are those of its own user namespace at most, and it sees nothing of the host's files.
    status = Path("/proc", str(net.pasta()), "status").read_text()
    assert "\nSeccomp:\t2\n" in status
    assert os.listdir(f"/proc/{net.pasta()}/root") == []
    same = os.readlink(f"/proc/{net.pasta()}/ns/user") == os.readlink("/proc/self/ns/user")
    assert same == (base == 0)
    service.kill()
    service.wait()
    assert net.run(str(net.bundle / "run"), "clean").returncode == 0
    assert net.pasta() == 0


def test_a_service_does_not_outlive_its_pasta_nor_pasta_its_service(net: Net) -> None:
    net.make(BASE, SERVE, tcp=("127.0.0.1/80:80",))
    service, first = net.start(), net.pasta()
    os.kill(first, 9)
    assert service.wait(10) != 0
    cleaned = net.run(str(net.bundle / "run"), "clean")
    assert "pasta has ended, and the service with it" in cleaned.stderr
    # Nobody cleans up after a kill but the next start.
    service, second = net.start(), net.pasta()
    service.kill()
    service.wait()
    service, third = net.start(), net.pasta()
    assert len({first, second, third}) == 3
    assert runc.start_time(second) is None


def test_what_pasta_cannot_do_fails_the_start_in_its_words(net: Net) -> None:
    net.make(BASE, SERVE, tcp=("127.0.0.1/8080:80",))
    taken = net._start(net.inside(sys.executable, "-c", TAKE))
    failed = net.run(str(net.bundle / "run"))
    assert failed.returncode != 0
    assert f"appbox: {NAME}: pasta: Failed to bind" in failed.stderr
    taken.kill()
    net.run("ip", "route", "delete", "default")
    failed = net.run(str(net.bundle / "run"))
    assert f"appbox: {NAME}: pasta: " in failed.stderr
    assert not (Path("/run/runc") / NAME).exists()
    net.run(str(net.bundle / "run"), "clean")
    assert not list(Path("/run/user/0/netns").glob(f"appbox.{NAME}.*"))
