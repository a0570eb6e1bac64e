"""The addresses that services were given in bridge networks, kept in `/var/lib/appbox/addresses.toml`."""

from __future__ import annotations

import re
import tomllib
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from appbox import cni, networks_file
from appbox.addresses import Network, Place, Record
from appbox.errors import AppboxError
from appbox.store import files, paths, state
from appbox.store.root import Root

_LIMIT = 4 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def declared(root: Root) -> dict[str, Network]:
    """Return the networks that this host declares; ManifestError for a file that is wrong."""
    data = root.read(paths.NETWORKS, networks_file.SIZE_LIMIT)
    return {} if data is None else networks_file.parse(data, paths.NETWORKS)


def load(root: Root) -> Record:
    """Return what was given away.

    A file that is lost or cannot be used is made up for by what the bundles say, and so is one that lacks a service.
    """
    record, problem = _read(root)
    return _with_bundles(root, Record() if problem else record)


def written(root: Root) -> Record:
    """Return what the file says itself, nothing when there is none that can be used."""
    return _read(root)[0]


def problem(root: Root) -> str:
    """Return why the file cannot be used, "" when it can, or when there is none."""
    return _read(root)[1]


def recorded(root: Root) -> bool:
    """Return whether there is a file of addresses, and `load` does not make up for it."""
    return root.exists(_path())


def _read(root: Root) -> tuple[Record, str]:
    """Return what the file says, and why it cannot be used: two services would answer to one address."""
    try:
        data = root.read(_path(), _LIMIT)
        return (Record(), "") if data is None else (_parse(data), "")
    except PermissionError:
        raise
    except AppboxError as error:
        return Record(), f"cannot be used ({error.what})"
    except OSError as error:
        return Record(), f"cannot be used ({error.strerror})"
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        return Record(), f"cannot be used ({error})"


def _parse(data: bytes) -> Record:
    table = tomllib.loads(data.decode("utf-8"))
    networks = {name: IPv4Network(subnet) for name, subnet in table.get("networks", {}).items()}
    places = {name: _place(one) for name, one in table.get("addresses", {}).items()}
    if not all(_NAME.fullmatch(name) for name in (*networks, *places)):
        raise ValueError("a name is not that of a service or a network")
    if len({place.address for place in places.values()}) != len(places):
        raise ValueError("two services have the same address")
    return Record(networks, places)


def save(root: Root, record: Record, *, sound: bool = False) -> None:
    """Write the addresses durably. A file that could not be used is kept beside it, as `*.broken`.

    `sound`: the caller knows that the present one can be used.
    """
    lines = ["# The subnet of each network, and the address of each service on a bridge.", "[networks]"]
    lines += [f'"{name}" = "{subnet}"' for name, subnet in sorted(record.networks.items())]
    lines += ["[addresses]"]
    lines += [
        f'"{name}" = {{ network = "{place.network}", address = "{place.address}" }}'
        for name, place in sorted(record.places.items())
    ]
    root.make(paths.STATE)
    broken = not sound and problem(root)
    with root.directory(paths.STATE) as fd:
        if broken:
            files.set_aside(paths.ADDRESSES, dir_fd=fd)
        files.replace(paths.ADDRESSES, ("\n".join(lines) + "\n").encode(), mode=0o644, dir_fd=fd)


def _place(table: Any) -> Place:
    if not _NAME.fullmatch(table["network"]):
        raise ValueError(f"{table['network']!r} is not the name of a network")
    return Place(table["network"], IPv4Address(table["address"]))


def _with_bundles(root: Root, record: Record) -> Record:
    """Return a record with those installed services on a bridge that it lacks, as their bundles have them."""
    for name in _missing(root, record):
        installed = state.load(root, name)
        table = installed.meta.get("network") if installed else None
        try:
            place = _place(table)
            subnet = IPv4Network(str(table["subnet"]) if isinstance(table, dict) else "")
        except (ValueError, TypeError, KeyError):
            continue
        if all(other.address != place.address for other in record.places.values()):
            networks = {place.network: subnet, **record.networks}
            record = Record(networks, {**record.places, name: place})
    return record


def _missing(root: Root, record: Record) -> list[str]:
    """Return the installed services on a bridge that a record lacks: only those have files for CNI plugins."""
    if not root.is_directory(paths.CONTAINERS):
        return []
    with root.directory(paths.CONTAINERS) as containers:
        return [
            name
            for name in state.names(root)
            if name not in record.places and files.exists(f"{name}/{paths.CURRENT}/{cni.DIRECTORY}", containers)
        ]


def _path() -> str:
    return f"{paths.STATE}/{paths.ADDRESSES}"
