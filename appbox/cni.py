"""The files of a generation with which a service on a bridge starts: for CNI plugins, for iptables-restore, for names.

All of it is known before the start, because the addresses are: the script hands these files on and computes nothing.
Sources: CNI specification 0.4.0 (which the plugins of 0.7 and of 1.x take), the READMEs of the plugins `bridge`,
`static` and `portmap`, iptables-restore(8).

The plugins do what belongs to one container: its interface, addresses, routes, published ports. What belongs to the
whole network stands in rules of its own, since the plugins would leave theirs behind when a container was killed.

A bridge of an ordinary user's services connects these alone. Nothing forwards packets from it, so that it needs neither
rules nor an address of its own: published ports and the way out are pasta's (`pasta`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from appbox import owner
from appbox.addresses import PREFIX, Attachment, Network
from appbox.host.facts import Networking
from appbox.quantities import Port

DIRECTORY: Final = "cni"
_VERSION: Final = "0.4.0"
_LOOPBACK: Final = {4: "127.0.0.0/8", 6: "::1/128"}
_MULTICAST: Final = {4: "224.0.0.0/4", 6: "ff00::/8"}


def files(attachment: Attachment, ports: Iterable[Port], names: Iterable[str]) -> dict[str, bytes]:
    """Return the files by their path in the generation. `names` are what the service is called on its network."""
    network, ports = attachment.network, tuple(ports)
    found = {
        "bridge.json": _json(_bridge(attachment)),
        hosts_file(network.name): hosts(attachment, names).encode(),
    }
    if owner.current() is not None:
        return {f"{DIRECTORY}/{name}": data for name, data in found.items()}
    found["rules4"] = rules(network, network.subnet).encode()
    if network.subnet6:
        found["rules6"] = rules(network, network.subnet6).encode()
    if ports:
        found["portmap.json"] = _json(_portmap(attachment, ports))
    return {f"{DIRECTORY}/{name}": data for name, data in found.items()}


def notes(attachment: Attachment | None, host: Networking | None) -> Iterator[str]:
    """Yield what the operator should know of what a bridge does to the host."""
    if attachment is None or host is None or owner.current() is not None:
        return
    if not host.forwards:
        yield "its bridge turns net.ipv4.ip_forward on: the host then forwards packets between its networks"
    if attachment.network.subnet6 is not None and not host.forwards6:
        yield (
            "its bridge turns net.ipv6.conf.all.forwarding on: an interface that is configured by router advertisements"
            " then needs net.ipv6.conf.INTERFACE.accept_ra = 2"
        )


def hosts_file(network: str) -> str:
    """Return the name of the file that tells a network's other services of this one."""
    return f"hosts.{network}"


def hosts(attachment: Attachment, names: Iterable[str]) -> str:
    """Return the lines for /etc/hosts by which the services of a network find this one."""
    words = " ".join(dict.fromkeys(names))
    return "".join(f"{address} {words}\n" for address in attachment.all)


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()


def _base(attachment: Attachment, plugin: str) -> dict[str, Any]:
    return {"cniVersion": _VERSION, "name": attachment.network.name, "type": plugin}


def _ips(attachment: Attachment) -> list[dict[str, str]]:
    network = attachment.network
    found = [{"version": "4", "address": _within(attachment.address, network.subnet), "gateway": str(network.gateway)}]
    if network.subnet6:
        address = _within(attachment.address6, network.subnet6)
        found.append({"version": "6", "address": address, "gateway": str(network.gateway6)})
    return found


def _within(address: object, subnet: IPv4Network | IPv6Network) -> str:
    return f"{address}/{subnet.prefixlen}"


def _bridge(attachment: Attachment) -> dict[str, Any]:
    network = attachment.network
    routes = [{"dst": "0.0.0.0/0"}, *([{"dst": "::/0"}] if network.subnet6 else [])]
    addresses = [{"address": ip["address"], "gateway": ip["gateway"]} for ip in _ips(attachment)]
    leads = {
        "isGateway": True,
        "forceAddress": True,  # a subnet that was changed
        "hairpinMode": True,  # a service that calls itself by a published port
    }
    if owner.current() is not None:
        leads, routes, addresses = {}, [], [{"address": ip["address"]} for ip in _ips(attachment)]
    return {
        **_base(attachment, "bridge"),
        "bridge": network.bridge,
        **leads,
        **({"mtu": network.mtu} if network.mtu else {}),
        "runtimeConfig": {"mac": attachment.mac},
        "ipam": {"type": "static", "addresses": addresses, **({"routes": routes} if routes else {})},
    }


def _portmap(attachment: Attachment, ports: Iterable[Port]) -> dict[str, Any]:
    mappings = [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol,
            **({"hostIP": port.address} if port.address else {}),
        }
        for port in ports
    ]
    return {
        **_base(attachment, "portmap"),
        "snat": True,  # so that the host itself and the service reach published ports, too
        "runtimeConfig": {"portMappings": mappings},
        # What the plugin before it answers; with addresses that are known, nothing else of the answer counts.
        "prevResult": {"cniVersion": _VERSION, "ips": _ips(attachment)},
    }


def chain(network: Network) -> str:
    """Return the name of a network's chain, the same in every table; 28 characters are the most that there may be."""
    return f"APPBOX-{network.bridge}"


def rules(network: Network, subnet: IPv4Network | IPv6Network) -> str:
    """Return a network's rules for iptables-restore or ip6tables-restore, by table; a chain is replaced as a whole.

    What is forbidden stands in `raw` and `mangle`, which packets pass before they are accepted in `filter`, in
    whatever order networks came.
    """
    bridge, others = network.bridge, f"{PREFIX}+"
    # The plugin lets packets for 127.0.0.0/8 be routed from the bridge, for ports that are published there. What comes
    # from outside to such an address is forged (CVE-2020-8558).
    tables = {"raw": [f"! -i lo -d {_LOOPBACK[subnet.version]} -j DROP"], "mangle": [], "nat": [], "filter": []}
    if network.isolate:
        tables["mangle"] += [
            f"-i {bridge} -o {bridge} -j RETURN",
            # Published ports are for everybody, and answers for whoever asked.
            "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j RETURN",
            f"-i {bridge} -o {others} -j DROP",
            f"-i {others} -o {bridge} -j DROP",
        ]
    if network.masquerade:
        tables["nat"].append(f"-s {subnet} ! -d {_MULTICAST[subnet.version]} ! -o {bridge} -j MASQUERADE")
    # For hosts that forward nothing else, as docker and ufw leave them.
    tables["filter"] += [
        f"-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
        f"-i {bridge} -j ACCEPT",
    ]
    name = chain(network)
    lines = []
    for table, found in tables.items():
        lines += [f"*{table}", f":{name} - [0:0]", *(f"-A {name} {rule}" for rule in found), "COMMIT"]
    return "\n".join(lines) + "\n"
