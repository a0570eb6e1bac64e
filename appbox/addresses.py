"""Bridge networks and the addresses that services have in them. Pure: what is given away comes in, the answer goes out.

A service keeps its address for as long as it is on the host, so that configuration files of the generation, names and
published ports can be written before it starts. Its IPv6 address has the same place in its subnet as the IPv4 one:
10.89.0.7 and fd00:89::7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from appbox.errors import AppboxError
from appbox.store import paths

DEFAULT: Final = "appbox"
"""The network of `mode = "bridge"`."""
PREFIX: Final = "ab-"
"""What the name of every bridge begins with: rules that keep bridges apart match all others by it."""
_POOL: Final = IPv4Network("10.89.0.0/16")
"""Where subnets come from that nobody declared: not docker's 172.17.0.0/16, nor what home routers give out."""
_POOL_PREFIX: Final = 24
_INTERFACE: Final = 15
"""Characters in the name of an interface: IFNAMSIZ of netdevice(7), less its NUL."""


@dataclass(frozen=True)
class Network:
    """A bridge of this host. `isolate`: no traffic to and from other bridges; `mtu` 0 leaves it to the kernel."""

    name: str
    subnet: IPv4Network
    subnet6: IPv6Network | None = None
    isolate: bool = True
    masquerade: bool = True
    mtu: int = 0

    @property
    def bridge(self) -> str:
        """The name of its interface."""
        return bridge(self.name)

    @property
    def gateway(self) -> IPv4Address:
        """The host's own address in it."""
        return self.subnet[1]

    @property
    def gateway6(self) -> IPv6Address | None:
        """The host's own IPv6 address in it."""
        return self.subnet6[1] if self.subnet6 else None


@dataclass(frozen=True)
class Attachment:
    """A service's place in a network."""

    network: Network
    address: IPv4Address

    @cached_property
    def address6(self) -> IPv6Address | None:
        """Its IPv6 address, where the network has such a subnet."""
        subnet, subnet6 = self.network.subnet, self.network.subnet6
        return subnet6[int(self.address) - int(subnet.network_address)] if subnet6 else None

    @property
    def all(self) -> tuple[str, ...]:
        """Its addresses as text."""
        return tuple(str(one) for one in (self.address, self.address6) if one is not None)

    def as_dict(self) -> dict[str, str]:
        """Return what bundle.toml says of it."""
        data = {"network": self.network.name, "subnet": str(self.network.subnet), "address": str(self.address)}
        return {**data, **({"address6": str(self.address6)} if self.address6 else {})}

    @property
    def mac(self) -> str:
        """An Ethernet address that stays the same as long as the address does: neighbours remember it."""
        return "02:ab:" + ":".join(f"{byte:02x}" for byte in self.address.packed)


@dataclass(frozen=True, slots=True)
class Place:
    """What is written down of a service: its network and its address there."""

    network: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Record:
    """What was given away: the subnet of each network, the place of each service."""

    networks: Mapping[str, IPv4Network] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)

    def with_(self, service: str, attachment: Attachment) -> Record:
        """Return the record with a service's attachment in it."""
        network = attachment.network
        places = {**self.places, service: Place(network.name, attachment.address)}
        return Record({**self.networks, network.name: network.subnet}, places).used()

    def without(self, service: str) -> Record:
        """Return the record without a service."""
        return Record(self.networks, {name: place for name, place in self.places.items() if name != service}).used()

    def used(self) -> Record:
        """Return the record without networks in which nobody is."""
        used = {place.network for place in self.places.values()}
        return Record({name: subnet for name, subnet in self.networks.items() if name in used}, self.places)

    def holds(self, service: str, attachment: Attachment) -> bool:
        """Return whether `attachment` is written down as it is."""
        network = attachment.network
        place = Place(network.name, attachment.address)
        return self.places.get(service) == place and self.networks.get(network.name) == network.subnet


def bridge(network: str) -> str:
    """Return the name of a network's interface, which has 15 characters at most."""
    room = _INTERFACE - len(PREFIX)
    if len(network) <= room:
        return PREFIX + network
    return PREFIX + network[: room - 7].rstrip(".-_") + "-" + hashlib.sha256(network.encode()).hexdigest()[:6]


def network_of(mode: str) -> str:
    """Return the network that a `network.mode` names; "" for a mode that is no bridge."""
    kind, _, name = mode.partition(":")
    return (name or DEFAULT) if kind == "bridge" else ""


def by_pasta(mode: str, *, user: bool) -> bool:
    """Return whether pasta(1) is a service's way to others than services: so it is on the bridge of a `user`, who has
    no interface of the host to connect that with."""
    return mode == "pasta" or (user and bool(network_of(mode)))


def attach(
    service: str, name: str, declared: Mapping[str, Network], record: Record, taken: Iterable[IPv4Network]
) -> Attachment:
    """Return the place of `service` in network `name`: the one it has, or a free one.

    `declared` are the networks of this host's own file; `taken` is what the host has routes to. Raises AppboxError
    when no subnet or no address is free.
    """
    network = declared.get(name) or Network(name, record.networks.get(name) or _subnet(name, declared, record, taken))
    place = record.places.get(service)
    if place is not None and place.network == name and _usable(place.address, network):
        return Attachment(network, place.address)
    # As numbers: to make and to hash an address takes twenty times as long, and a thousand services look at a thousand.
    used = {int(one.address) for other, one in record.places.items() if other != service}
    for address in _addresses(network):
        if address not in used:
            return Attachment(network, IPv4Address(address))
    hint = f"declare a larger subnet in {paths.NETWORKS}, or remove --purge services no longer used"
    raise AppboxError(f"no free address is left in the network {name} ({network.subnet})", where=service, hint=hint)


def _addresses(network: Network) -> range:
    """Return the addresses that services may have, as numbers; the first one of the subnet is the gateway's."""
    subnet = network.subnet
    return range(int(subnet.network_address) + 2, int(subnet.broadcast_address))


def _usable(address: IPv4Address, network: Network) -> bool:
    subnet = network.subnet
    return address in subnet and address not in {subnet.network_address, subnet.broadcast_address, network.gateway}


def _subnet(name: str, declared: Mapping[str, Network], record: Record, taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return a subnet that is nobody's."""
    foreign = [*taken, *record.networks.values(), *(network.subnet for network in declared.values())]
    near = [subnet for subnet in foreign if subnet.overlaps(_POOL)]
    for subnet in _POOL.subnets(new_prefix=_POOL_PREFIX):
        if not any(subnet.overlaps(other) for other in near):
            return subnet
    hint = f'declare one in {paths.NETWORKS}: [{name}] subnet = "192.168.200.0/24"'
    raise AppboxError(f"no free subnet is left in {_POOL} for the network {name}", hint=hint)
