"""How pasta(1) is asked to connect a service: the ports that it publishes, and its resolver. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from appbox import hostnames, owner
from appbox.addresses import by_pasta
from appbox.host.facts import Facts
from appbox.locked import Locked
from appbox.quantities import Port
from appbox.units.model import Pasta

RESOLVER: Final = "169.254.1.1"
"""Where pasta answers for the host's own resolver: a link-local address that no interface has."""

SLIRP_RESOLVER: Final = "10.0.2.3"
"""The same of slirp4netns(1), which has no other."""


def options(locked: Locked) -> Pasta | None:
    """Return what the run script tells pasta, None for a service that has another kind of network."""
    network = locked.manifest.network
    if not _connects(locked):
        return None
    return Pasta(
        tcp=tuple(_forward(port) for port in network.ports if port.protocol == "tcp"),
        udp=tuple(_forward(port) for port in network.ports if port.protocol == "udp"),
        resolver=RESOLVER if hostnames.resolver(locked) == "outside" else "",
        interface="eth1" if locked.attachment else "eth0",  # the first is the bridge's, as it is for root's
    )


def through(found: Pasta | None, facts: Facts) -> Pasta | None:
    """Return the same for slirp4netns on a host that has it alone; it resolves at an address of its own."""
    if found is None or facts.abilities is None or not facts.abilities.slirp:
        return found
    return Pasta(resolver=SLIRP_RESOLVER if found.resolver else "", slirp=True, interface=found.interface)


def _connects(locked: Locked) -> bool:
    return by_pasta(locked.manifest.network.mode, user=owner.current() is not None)


def _forward(port: Port) -> str:
    # Without an address pasta takes all of both families.
    address = "" if port.address == "" else f"{port.address}/"
    return f"{address}{port.host_port}:{port.container_port}"


def notes(locked: Locked, facts: Facts) -> Iterator[str]:
    """Yield what the operator should know of what pasta does otherwise than hoped for."""
    if not _connects(locked):
        return
    if facts.abilities is not None and facts.abilities.slirp:
        yield "slirp4netns connects it, which is slower and knows no IPv6: pasta is not installed"
    for port in locked.manifest.network.ports:
        if port.protocol == "udp" and port.host_port != port.container_port:
            yield (
                f"UDP port {port.host_port} of the host goes to port {port.container_port}: pasta of before July 2024 "
                "loses the answers to clients on the host itself; take the same number for both"
            )
