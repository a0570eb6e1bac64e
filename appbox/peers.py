"""The names of services on a bridge: /etc/hosts of each knows them all, also those that come while it runs.

A service's own lines lie in its generation (`cni/hosts.NETWORK`), so that those of a network are what is installed; a
start puts them together without appbox. The file of a running service, /run/appbox/NAME/hosts, is then rewritten in
place, since it is mounted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from appbox import cni
from appbox.store import files, paths, state
from appbox.store.root import Root

HOSTS = "hosts"
_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Peer:
    """An installed service of a network: its lines for the others; `running` is what its /etc/hosts says now.

    `own` is what /etc/hosts says apart from the network; None for `running` when it does not run.
    """

    name: str
    lines: str
    own: str
    running: str | None

    @property
    def names(self) -> set[str]:
        """What it is called by the others."""
        return {word for line in self.lines.splitlines() for word in line.split()[1:]}


def hosts_text(own: str, lines: Iterable[str]) -> str:
    """Return /etc/hosts of a service: what its generation says, and the lines of each service of its network."""
    return own + "".join(lines)


def of(root: Root, network: str) -> list[Peer]:
    """Return the installed services of a network, sorted by name."""
    if not network or not root.is_directory(paths.CONTAINERS):
        return []
    with root.directory(paths.CONTAINERS) as containers:
        return list(_peers(root, containers, network))


def _peers(root: Root, containers: int, network: str) -> Iterator[Peer]:
    for name in state.names(root):
        directory = f"{files.link_target(name, containers)}/{paths.CURRENT}"
        lines = files.read_if_present(f"{directory}/{cni.DIRECTORY}/{cni.hosts_file(network)}", _LIMIT, containers)
        if lines is not None:
            own = files.read_if_present(f"{directory}/etc/hosts", _LIMIT, containers) or b""
            running = root.read(_path(name), _LIMIT) if root.live else None
            yield Peer(name, lines.decode(), own.decode(), None if running is None else running.decode())


def _path(name: str) -> str:
    return f"{paths.RUN}/{name}/{HOSTS}"


def unaware(peers: Iterable[Peer]) -> list[str]:
    """Return the names of running services that do not know what is installed in their network."""
    peers = list(peers)
    lines = {line for peer in peers for line in peer.lines.splitlines()}
    return [
        peer.name
        for peer in peers
        if peer.running is not None and set(peer.running.splitlines()) != lines.union(peer.own.splitlines())
    ]


def tell(root: Root, network: str) -> None:
    """Rewrite /etc/hosts of every running service of a network, where it does not say what is so now."""
    if not root.live:
        return  # nothing runs, and a thousand services would each read the files of all others
    peers = of(root, network)
    for name in unaware(peers):
        own = next(peer.own for peer in peers if peer.name == name)
        text = hosts_text(own, (peer.lines for peer in peers))
        with root.directory(f"{paths.RUN}/{name}") as fd:
            _overwrite(fd, text.encode())


def _overwrite(directory: int, data: bytes) -> None:
    """Write into the file that is there: it is mounted, and another one would not be seen."""
    fd = os.open(HOSTS, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)
