"""How a service finds other hosts by name: its /etc/hosts, /etc/hostname and /etc/resolv.conf. Pure.

Where they come from, by the mode of the network:

| mode | /etc/hosts | /etc/resolv.conf |
| --- | --- | --- |
| host | ours, then the host's, at each start | the host's as it is, at each start |
| none | ours | empty |
| pasta | ours | the host's resolvers that can be reached, at each start |
| bridge | ours, then the services of the network | the same |
| service:NAME | NAME's | NAME's |

With `network.dns` the resolvers are the given ones and nothing else. What a start makes for others to see is in the
run directory, what is its own in `.live`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from appbox.locked import Locked, Shared
from appbox.store import paths

RESOLV_CONF: Final = "/etc/resolv.conf"
HOSTS: Final = "/etc/hosts"
HOSTNAME: Final = "/etc/hostname"

OWN_NETWORK: Final = frozenset({"bridge", "pasta"})
"""The kinds of network that lead outside, but are not the host's."""

_LOCAL: Final = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


def kind(mode: str) -> str:
    """Return the kind of network that a mode means: host, none, bridge, pasta or service."""
    return mode.partition(":")[0]


def default_hostname(name: str) -> str:
    """Return the host name of the service `name`, as far as its name can be one."""
    return name.replace("_", "-").rstrip(".-")[:63].rstrip(".-")


def hostname(locked: Locked) -> str:
    """Return the host name inside the container: the manifest's, or that of whose network it shares, or the name."""
    if locked.manifest.network.mode.startswith("service:"):
        return shared(locked).hostname
    return locked.manifest.network.hostname or default_hostname(locked.manifest.name)


def shared(locked: Locked) -> Shared:
    """Return whose network the service shares; where nothing is known of it, what is likely."""
    if locked.shared is not None:
        return locked.shared
    name = locked.manifest.network.mode.removeprefix("service:")
    return Shared(name, "bridge", default_hostname(name))


def files(locked: Locked) -> Iterator[tuple[str, str]]:
    """Yield path in the generation and text of the files that are known beforehand.

    Some programs exit when their own host name resolves to nothing, so it always does; on a bridge to the address
    there, which is among the lines that the start adds.
    """
    network, name = locked.manifest.network, hostname(locked)
    own = "" if kind(network.mode) == "bridge" else f"127.0.1.1 {name}\n"
    more = "".join(f"{address} {other}\n" for other, address in network.hosts.items())
    yield "etc/hosts", _LOCAL + own + more
    yield "etc/hostname", f"{name}\n"
    if network.dns:
        yield "etc/resolv.conf", "".join(f"nameserver {address}\n" for address in network.dns)


def resolver(locked: Locked) -> Literal["", "host", "outside", "own"]:
    """Return which resolv.conf a start makes, as the run script wants to know it."""
    network = locked.manifest.network
    if kind(network.mode) in OWN_NETWORK:
        return "own" if network.dns else "outside"
    return "host" if network.mode == "host" and not network.dns else ""


def hosts(locked: Locked) -> Literal["", "host", "bridge", "own"]:
    """Return which /etc/hosts a start makes, as the run script wants to know it."""
    found: dict[str, Literal["host", "bridge", "own"]] = {"host": "host", "bridge": "bridge", "pasta": "own"}
    return found.get(kind(locked.manifest.network.mode), "")


def sources(locked: Locked, bundle: str) -> dict[str, str]:
    """Return what is mounted over the files of names, by their paths in the container."""
    network = locked.manifest.network
    generation = f"{bundle}/{paths.CURRENT}"
    return {
        HOSTNAME: f"{generation}/etc/hostname",
        **(_of_other(shared(locked), bundle) if kind(network.mode) == "service" else _own(locked, bundle)),
    }


def _own(locked: Locked, bundle: str) -> dict[str, str]:
    name, network = locked.manifest.name, locked.manifest.network
    if kind(network.mode) in OWN_NETWORK:
        return {HOSTS: f"{paths.RUN}/{name}/hosts", RESOLV_CONF: f"{paths.RUN}/{name}/resolv.conf"}
    live, generation = f"{bundle}/{paths.LIVE}", f"{bundle}/{paths.CURRENT}"
    return {
        HOSTS: f"{live}/hosts" if network.mode == "host" else f"{generation}/etc/hosts",
        RESOLV_CONF: f"{generation}/etc/resolv.conf" if network.dns else f"{live}/resolv.conf",
    }


def _of_other(other: Shared, bundle: str) -> dict[str, str]:
    """The other one's own files, so that what changes in them is seen by both."""
    if other.kind in OWN_NETWORK:
        return {HOSTS: f"{paths.RUN}/{other.name}/hosts", RESOLV_CONF: f"{paths.RUN}/{other.name}/resolv.conf"}
    return {
        HOSTS: f"{paths.CONTAINERS}/{other.name}/{paths.CURRENT}/etc/hosts",
        RESOLV_CONF: f"{bundle}/{paths.LIVE}/resolv.conf",
    }
