"""What the host's network already has: routes, and sockets that wait for others. It only reads."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from appbox import ports
from appbox.host.facts import Networking
from appbox.ports import Protocol, Socket

PLUGINS: Final = ("bridge", "static", "portmap")
PROGRAMS: Final = ("iptables", "ip6tables", "flock")
PLUGIN_PLACES: Final = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
"""Where plugins are: as their own project, Debian, and Alpine and Fedora install them. The run script looks there."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the run script finds programs."""
_SOCKETS: Final[tuple[tuple[str, Protocol], ...]] = (("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp"))


@dataclass(frozen=True, slots=True)
class Route:
    """A network that the host reaches through an interface."""

    subnet: IPv4Network
    interface: str


def routes() -> list[Route]:
    """Return the IPv4 routes of the host's main table, without the default one and those to single addresses."""
    found = []
    for line in _lines("/proc/net/route")[1:]:
        words = line.split()
        if len(words) > 7 and words[7] not in {"00000000", "FFFFFFFF"}:
            number, mask = (int.from_bytes(bytes.fromhex(word), "little") for word in (words[1], words[7]))
            with contextlib.suppress(ValueError):
                found.append(Route(IPv4Network((number, mask.bit_count())), words[0]))
    return found


def listening() -> list[Socket]:
    """Return every socket of the host that takes what comes to its port."""
    found: list[Socket] = []
    for name, protocol in _SOCKETS:
        found += ports.sockets(_lines(f"/proc/net/{name}")[1:], protocol)
    return found


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except FileNotFoundError:  # a kernel without IPv6
        return []


def abilities() -> Networking:
    """Return what the host has of what a bridge needs."""
    return Networking(
        plugins=frozenset(
            name for name in PLUGINS if any(os.access(f"{place}/{name}", os.X_OK) for place in PLUGIN_PLACES)
        ),
        programs=frozenset(name for name in PROGRAMS if shutil.which(name, path=_PATH)),
        ipv6=os.path.exists("/proc/net/if_inet6"),
        forwards=_is_on("/proc/sys/net/ipv4/ip_forward"),
        forwards6=_is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
    )


def _is_on(path: str) -> bool:
    return _lines(path) == ["1"]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a socket; `cgroups` are its paths in the hierarchies."""

    pid: int
    name: str
    cgroups: tuple[str, ...]

    def is_of(self, service: str) -> bool:
        """Return whether the process was started by the unit of `service`."""
        units = {service, f"{service}.service", f"openrc.{service}"}
        return any(part in units for path in self.cgroups for part in path.split("/"))


def holders(sockets: Iterable[Socket]) -> dict[int, Holder]:
    """Return a process that has each of `sockets`, by inode. The kernel's are not in it, nor those of other PID
    namespaces. All are looked for in one walk through /proc, whose length is the host's number of open files.
    """
    wanted = {f"socket:[{socket.inode}]": socket.inode for socket in sockets}
    found: dict[int, Holder] = {}
    for pid in filter(str.isdigit, os.listdir("/proc") if wanted else ()):
        with contextlib.suppress(OSError):
            if inodes := {wanted[target] for target in _descriptors(pid) if target in wanted} - found.keys():
                one = _process(pid)
                found |= dict.fromkeys(inodes, one)
        if len(found) == len(wanted):
            break
    return found


def _process(pid: str) -> Holder:
    cgroups = tuple(line.split(":", 2)[2] for line in _lines(f"/proc/{pid}/cgroup"))
    return Holder(int(pid), "".join(_lines(f"/proc/{pid}/comm")), cgroups)


def _descriptors(pid: str) -> Iterator[str]:
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/fd/{number}")
