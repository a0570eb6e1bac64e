"""Services of one bridge of which one has the other's name for a host name. Pure.

/etc/hosts of everybody there would have the name twice, and whoever asks for it reach either of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from appbox.addresses import network_of
from appbox.document import Document
from appbox.errors import Problem
from appbox.hostnames import default_hostname
from appbox.manifest import Manifest
from appbox.toml_source import Path

Called = tuple[str, Iterable[str]]
"""A service's name, and everything that it is called on its network."""


def problems(
    planned: Sequence[tuple[Manifest, Document]], installed: Mapping[str, Iterable[Called]]
) -> Iterator[Problem]:
    """Yield a problem for each of the `planned` services that is called like another one, or another one like it.

    `installed` are the services of each network; those that are planned, too, do not count.
    """
    mine = [(manifest, document, network_of(manifest.network.mode)) for manifest, document in planned]
    names = {(network, manifest.name) for manifest, _, network in mine if network}
    theirs, called = _installed(installed, {manifest.name for manifest, _ in planned})
    for manifest, document, network in mine:
        if not network:
            continue
        hostname = manifest.network.hostname or default_hostname(manifest.name)
        if hostname != manifest.name and ((network, hostname) in names or (network, hostname) in theirs):
            key: Path = ("network", "hostname") if manifest.network.hostname else ("name",)
            message = f"the host name {hostname} is the name of another service on the network {network}"
            yield document.problem(key, message, "take another one, or others would reach either of them by it")
        if other := called.get((network, manifest.name)):
            message = f"{manifest.name} is the host name of the service {other} on the network {network}"
            yield document.problem(("name",), message, f"give {other} another network.hostname first")


def _installed(
    installed: Mapping[str, Iterable[Called]], planned: set[str]
) -> tuple[set[tuple[str, str]], dict[tuple[str, str], str]]:
    """Return the names of installed services by network, and which of them is called something else, too."""
    names: set[tuple[str, str]] = set()
    called: dict[tuple[str, str], str] = {}
    for network, services in installed.items():
        for service, words in services:
            if service not in planned:
                names.add((network, service))
                called.update({(network, word): service for word in words if word != service})
    return names, called
