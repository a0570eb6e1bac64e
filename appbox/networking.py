"""Planning networks: which address each service gets, and that nobody else has the ports that it publishes. It only
reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from appbox import addresses, cni, namesakes, owner, peers
from appbox.addresses import Attachment, Network, Record
from appbox.desired_values import Desired
from appbox.errors import AppboxError, ManifestError, Problem
from appbox.host import runc
from appbox.ordering import Neighbours
from appbox.peers import Peer
from appbox.plan_values import Observed
from appbox.ports import Claim, Claims, Socket, claimed, claims
from appbox.sources import Loaded
from appbox.store import addresses as stored
from appbox.store import paths, state
from appbox.store.root import Root

if TYPE_CHECKING:
    from appbox.host import networks


class Addresses:
    """The addresses of a run's services, given out one after the other. Nothing is read before the first bridge.

    `fresh`: take no account of what the host has, as `render` does.
    """

    def __init__(self, root: Root, *, fresh: bool = False) -> None:
        self._root, self._fresh = root, fresh
        self._peers: dict[str, _Peers] = {}
        self._joined: set[str] = set()

    def attach(self, loaded: Loaded) -> Attachment | None:
        """Return the place of a service in its network, None for one without a bridge.

        Raises ManifestError when the file of networks is wrong or a port is published at an address of IPv6 that the
        network has not, AppboxError when no address is left.
        """
        manifest = loaded.manifest
        name = addresses.network_of(manifest.network.mode)
        if not name:
            return None
        taken = [route.subnet for route in self._routes]
        found = addresses.attach(manifest.name, name, self._declared, self._record, taken)
        self._refuse_foreign(found.network)
        _refuse_ipv6(loaded, found.network)
        if not self._record.holds(manifest.name, found):
            self._record = self._record.with_(manifest.name, found)
        return found

    def refuse_namesakes(self, loaded: Sequence[Loaded], gone: Collection[str] = ()) -> None:
        """Raise ManifestError for services of which one has another one's name for a host name on the same bridge.

        Services that are `gone` after the run do not count.
        """
        used = {addresses.network_of(one.manifest.network.mode) for one in loaded} - {""}
        installed = {
            name: [(peer.name, peer.names) for peer in self._known(name).every if peer.name not in gone]
            for name in used
        }
        if found := list(namesakes.problems([(one.manifest, one.document) for one in loaded], installed)):
            raise ManifestError(found)

    def observe(self, desired: Desired, observed: Observed) -> Observed:
        """Return what was observed of a service, with what is known of its network."""
        attachment = desired.attachment
        table = observed.current.meta.get("network") if observed.current else None
        before = str(table.get("network", "")) if isinstance(table, dict) else ""
        after = attachment.network.name if attachment else ""
        if not before and not after:
            return observed
        path = f"{cni.DIRECTORY}/{cni.hosts_file(after)}"
        lines = next((file.data.decode() for file in desired.files if file.path == path), "")
        new = attachment is not None and not self._stored.holds(desired.name, attachment)
        return replace(observed, new_address=new, untold=self._untold(desired.name, before, after, lines))

    def joined(self, desired: Desired) -> None:
        """Take account of a service that another process has observed, and that has its place as it should."""
        if desired.attachment is not None:
            self._joined.add(desired.attachment.network.name)

    def _untold(self, service: str, before: str, after: str, lines: str) -> tuple[str, ...]:
        """Return the networks in which running services do not know yet what will be so.

        The service leaves the network `before` and is then in `after` with `lines`; either may be "".
        """
        found = []
        for network in sorted({before, after} - {""}):
            peers_ = self._known(network)
            wanted = lines if network == after else ""
            changed = peers_.lines(service) != wanted
            if not peers_.consistent or (changed and (peers_.running(service) or network in self._joined)):
                found.append(network)
        self._joined.add(after)
        return tuple(found)

    def _known(self, network: str) -> _Peers:
        """Return the installed services of a network, which are read once: there may be a thousand."""
        if network not in self._peers:
            self._peers[network] = _Peers(peers.of(self._root, network))
        return self._peers[network]

    @property
    def problem(self) -> str:
        """Why the file of addresses cannot be used, "" when it can or no service of this run is on a bridge."""
        return stored.problem(self._root) if self._joined and not self._fresh else ""

    @cached_property
    def _declared(self) -> dict[str, Network]:
        return stored.declared(self._root)

    @cached_property
    def _stored(self) -> Record:
        return stored.written(self._root)

    @cached_property
    def _record(self) -> Record:
        return stored.load(self._root)

    @cached_property
    def _routes(self) -> list[networks.Route]:
        from appbox.host import networks  # noqa: PLC0415  # only for services on a bridge

        return networks.routes() if self._root.live and not self._fresh else []

    def _refuse_foreign(self, network: Network) -> None:
        """Refuse a subnet that the host reaches elsewhere: it could not be reached any more."""
        for route in self._routes:
            if route.subnet.overlaps(network.subnet) and not route.interface.startswith(addresses.PREFIX):
                raise AppboxError(
                    f"the subnet {network.subnet} of the network {network.name} is in use",
                    where=paths.NETWORKS,
                    why=f"the host has a route to {route.subnet} through {route.interface}",
                    hint="declare another subnet there",
                )


@dataclass
class _Peers:
    """The installed services of one network."""

    every: list[Peer]

    @cached_property
    def consistent(self) -> bool:
        """Whether each service that runs knows all that are installed."""
        return not peers.unaware(self.every)

    def lines(self, service: str) -> str:
        return self._lines.get(service, "")

    def running(self, besides: str) -> bool:
        return any(peer.running is not None and peer.name != besides for peer in self.every)

    @cached_property
    def _lines(self) -> dict[str, str]:
        return {peer.name: peer.lines for peer in self.every}


def _refuse_ipv6(loaded: Loaded, network: Network) -> None:
    problems = [
        loaded.document.problem(
            ("network", "ports", index),
            f"the network {network.name} has no IPv6",
            f"give it a subnet6 in {paths.NETWORKS}, or publish the port on an address of IPv4",
        )
        for index, port in enumerate(loaded.manifest.network.ports)
        if ":" in port.address and network.subnet6 is None
    ]
    if problems:
        raise ManifestError(problems)


def refuse_clashes(root: Root, loaded: Sequence[Loaded], neighbours: Neighbours) -> None:
    """Refuse published ports that another manifest of this run, an installed service or a program of the host has.

    Services that this run removes do not count: they go before whoever gets their ports.
    """
    wanted = [(one, index, claim) for one in loaded for index, claim in enumerate(claims(one.manifest))]
    if not wanted:
        return
    problems: list[Problem] = []
    earlier, installed = Claims(), Claims(_installed(neighbours))
    holders = _holders(root, [claim for _, _, claim in wanted], neighbours.gone) if root.live else {}
    for one, index, claim in wanted:
        rival = earlier.rival(claim) or installed.rival(claim)
        earlier.add(claim)
        who = f"the service {rival.owner}" if rival else holders.get(claim)
        if who:
            message = f"{claim} of the host is taken by {who}"
            problems.append(one.document.problem(("network", "ports", index), message, "take another port"))
    if problems:
        raise ManifestError(problems)


def _installed(neighbours: Neighbours) -> Iterator[Claim]:
    """Yield the ports that other installed services publish."""
    for name, meta in neighbours.others.items():
        yield from claimed(name, meta)


def _holders(root: Root, wanted: Sequence[Claim], gone: Collection[str]) -> dict[Claim, str]:
    """Return which ports a program of the host listens on, and in words who; what the service itself has open does not
    count, nor what one of those has that are `gone` by then. /proc is read once, however many services there are.
    """
    from appbox.host import networks  # noqa: PLC0415  # only for published ports

    sockets: dict[tuple[int, str], list[Socket]] = {}
    for socket in networks.listening():
        sockets.setdefault((socket.port, socket.protocol), []).append(socket)
    clashing = [
        (claim, socket)
        for claim in wanted
        for socket in sockets.get((claim.port, claim.protocol), ())
        if socket.claim("").clashes(claim)
    ]
    holders = networks.holders(socket for _, socket in clashing)
    found: dict[Claim, str] = {}
    for claim, socket in clashing:
        holder = holders.get(socket.inode)
        names = (claim.owner, *gone)
        if holder is None and any(_has(root, name, claim) for name in names):
            continue
        if holder is None or not any(holder.is_of(name) for name in names):
            found.setdefault(claim, f"{holder.name} (process {holder.pid})" if holder else "a program of the host")
    return found


def _has(root: Root, name: str, claim: Claim) -> bool:
    """Return whether pasta has that port for the installed service `name` of an ordinary user, as its start has noted.

    It shows its sockets to nobody but root, and it would not run if it had not got all ports of its service.
    """
    words = (root.read(f"{paths.RUN}/{name}/pasta", 64) or b"").split() if owner.current() else ()
    if len(words) != 2 or not all(map(bytes.isdigit, words)) or runc.start_time(int(words[0])) != int(words[1]):
        return False
    installed = state.load(root, name)
    return installed is not None and any(one.clashes(claim) for one in claimed(name, installed.meta))
