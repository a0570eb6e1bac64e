"""Ports of the host: which of them two programs cannot both have. Pure: the text of /proc comes in, values go out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Literal

from appbox import quantities
from appbox.dependencies import table
from appbox.fields import BadValueError
from appbox.manifest import Manifest

Protocol = Literal["tcp", "udp"]

_LISTEN: Final = "0A"
_UNCONNECTED: Final = "07"
"""States of a socket in /proc/net/tcp and udp (tcp_states.h): one that waits for others, and the only one of UDP that
does not belong to one peer."""
_ANY6: Final = "::"


@dataclass(frozen=True, slots=True)
class Claim:
    """A port of the host that `owner` has or wants; `address` "" is every address of both kinds."""

    owner: str
    address: str
    port: int
    protocol: str

    def clashes(self, other: Claim) -> bool:
        """Return whether both cannot be had at once."""
        return (self.port, self.protocol) == (other.port, other.protocol) and _overlap(self.address, other.address)

    def __str__(self) -> str:
        return f"port {self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket of the host that takes what comes to its port; `inode` leads to the process that has it."""

    address: str
    port: int
    protocol: str
    inode: int

    def claim(self, owner: str) -> Claim:
        """Return the claim of `owner`, whose socket it is. One on `::` gets what is sent by IPv4, too (ipv6(7))."""
        return Claim(owner, "" if self.address == _ANY6 else self.address, self.port, self.protocol)


def _overlap(one: str, other: str) -> bool:
    if one == other or not one or not other:
        return True
    first, second = ip_address(one), ip_address(other)
    if first.version != second.version:
        return False
    return first.is_unspecified or second.is_unspecified


class Claims:
    """Claims by their ports, in the order in which they were made."""

    def __init__(self, claims: Iterable[Claim] = ()) -> None:
        self._by_port: dict[tuple[int, str], list[Claim]] = {}
        for claim in claims:
            self.add(claim)

    def add(self, claim: Claim) -> None:
        """Add one."""
        self._by_port.setdefault((claim.port, claim.protocol), []).append(claim)

    def rival(self, claim: Claim) -> Claim | None:
        """Return the first one of somebody else that clashes with `claim`; None if there is none."""
        others = self._by_port.get((claim.port, claim.protocol), ())
        return next((other for other in others if other.owner != claim.owner and claim.clashes(other)), None)


def claims(manifest: Manifest) -> list[Claim]:
    """Return the ports that a manifest publishes."""
    return [Claim(manifest.name, port.address, port.host_port, port.protocol) for port in manifest.network.ports]


def claimed(name: str, meta: Mapping[str, Any]) -> Iterator[Claim]:
    """Yield the ports that an installed service publishes, by its bundle.toml."""
    ports = table(table(meta.get("manifest")).get("network")).get("ports")
    for text in ports if isinstance(ports, list) else ():
        try:
            port = quantities.port(text)
        except BadValueError:
            continue
        yield Claim(name, port.address, port.host_port, port.protocol)


def sockets(lines: Iterable[str], protocol: Protocol) -> Iterator[Socket]:
    """Yield the sockets that wait for others, of lines of /proc/net/{tcp,tcp6,udp,udp6} without the heading."""
    waiting = _LISTEN if protocol == "tcp" else _UNCONNECTED
    for line in lines:
        words = line.split()
        if len(words) > 9 and words[3] == waiting:
            address, _, port = words[1].rpartition(":")
            yield Socket(_address(address), int(port, 16), protocol, int(words[9]))


def _address(digits: str) -> str:
    """Return the address that the kernel prints as 32-bit words in the order of bytes of the machine's numbers."""
    words = (bytes.fromhex(digits[at : at + 8]) for at in range(0, len(digits), 8))
    found = ip_address(b"".join(_native(word) for word in words))
    mapped = found.ipv4_mapped if found.version == 6 else None
    return str(mapped or found)


def _native(word: bytes) -> bytes:
    return word[::-1] if sys.byteorder == "little" else word
