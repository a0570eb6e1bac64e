"""The addresses that services were given in bridge networks, kept in `/var/lib/appbox/addresses.toml`."""

from __future__ import annotations

import re
import tomllib
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from appbox import networks_file
from appbox.addresses import Network, Place, Record
from appbox.errors import AppboxError
from appbox.store import files, paths, state
from appbox.store.root import Root

_LIMIT = 4 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PATH = f"{paths.STATE}/{paths.ADDRESSES}"


def declared(root: Root) -> dict[str, Network]:
    """Return the networks that this host declares; ManifestError for a file that is wrong."""
    data = root.read(paths.NETWORKS, networks_file.SIZE_LIMIT)
    return {} if data is None else networks_file.parse(data, paths.NETWORKS)


def load(root: Root) -> Record:
    """Return what was given away. A file that was lost is made up for by what the bundles say.

    Raises AppboxError when the file cannot be trusted: two services would answer to one address.
    """
    data = root.read(_PATH, _LIMIT)
    if data is None:
        return _of_bundles(root)
    try:
        table = tomllib.loads(data.decode("utf-8"))
        networks = {name: IPv4Network(subnet) for name, subnet in table.get("networks", {}).items()}
        places = {name: _place(one) for name, one in table.get("addresses", {}).items()}
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise _broken(str(error)) from error
    if not all(_NAME.fullmatch(name) for name in (*networks, *places)):
        raise _broken("a name is not that of a service or a network")
    if len({place.address for place in places.values()}) != len(places):
        raise _broken("two services have the same address")
    return Record(networks, places)


def recorded(root: Root) -> bool:
    """Return whether there is a file of addresses, and `load` does not make up for it."""
    return root.exists(_PATH)


def save(root: Root, record: Record) -> None:
    """Write the addresses durably."""
    lines = ["# The subnet of each network, and the address of each service on a bridge.", "[networks]"]
    lines += [f'"{name}" = "{subnet}"' for name, subnet in sorted(record.networks.items())]
    lines += ["[addresses]"]
    lines += [
        f'"{name}" = {{ network = "{place.network}", address = "{place.address}" }}'
        for name, place in sorted(record.places.items())
    ]
    root.make(paths.STATE)
    with root.directory(paths.STATE) as fd:
        files.replace(paths.ADDRESSES, ("\n".join(lines) + "\n").encode(), mode=0o644, dir_fd=fd)


def _place(table: Any) -> Place:
    if not _NAME.fullmatch(table["network"]):
        raise ValueError(f"{table['network']!r} is not the name of a network")
    return Place(table["network"], IPv4Address(table["address"]))


def _of_bundles(root: Root) -> Record:
    """Return the addresses that the installed versions were made with."""
    record = Record()
    for name in state.names(root):
        installed = state.load(root, name)
        table = installed.meta.get("network") if installed else None
        try:
            place = _place(table)
            subnet = IPv4Network(str(table["subnet"]) if isinstance(table, dict) else "")
        except (ValueError, TypeError, KeyError):
            continue
        if all(other.address != place.address for other in record.places.values()):
            record = Record({**record.networks, place.network: subnet}, {**record.places, name: place})
    return record


def _broken(why: str) -> AppboxError:
    hint = "repair it, or delete it: each bundle.toml names the address of its service"
    return AppboxError("cannot be used", where=_PATH, why=why, hint=hint)
