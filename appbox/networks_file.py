"""The bridge networks that a host declares in `/etc/appbox/networks.toml`: text in, networks out, or every problem.

    [appbox]                      # the network of mode = "bridge"; others are named as in "bridge:backend"
    subnet = "10.89.0.0/24"
    subnet6 = "fd00:89::/64"      # no IPv6 without it
    isolate = true                # keep it apart from other bridges
    masquerade = true             # reach other networks under the host's addresses
    mtu = 1500

A network without a table here gets a free subnet of 10.89.0.0/16 and no IPv6.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from appbox import fields, quantities, toml_source
from appbox.addresses import Network
from appbox.document import Document
from appbox.errors import ManifestError, Problem
from appbox.fields import BadValueError, kind, nearest, quoted

SIZE_LIMIT: Final = 1 << 20
"""Bytes of the file."""
_MOST: Final = 29
"""The longest prefix of an IPv4 subnet: the smallest one in which services have room."""
_NOTHING: Final = IPv4Network("0.0.0.0/32")


def parse(data: bytes, file: str) -> dict[str, Network]:
    """Return the networks in the bytes of `file`; raise ManifestError with every problem, each with line and key."""
    try:
        text = data.decode("utf-8-sig")
        table = toml_source.load(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError([Problem(file, line, "", "is not UTF-8", "save it as UTF-8")]) from None
    except toml_source.SourceError as error:
        key = toml_source.dotted(error.path)
        raise ManifestError([Problem(file, error.line, key, error.message, error.hint)]) from None
    document, problems = Document(file, text), list[Problem]()
    found = {name: _network(document, name, value, problems) for name, value in table.items()}
    if not problems:
        problems += _overlaps(document, found)
    if problems:
        raise ManifestError(problems)
    return found


def _network(document: Document, name: str, table: object, problems: list[Problem]) -> Network:
    """Return one network; what is wrong with it is added to `problems`."""
    network = Network(name, _NOTHING)
    if not isinstance(table, Mapping):
        problems.append(document.problem((name,), f"expected a table, got {kind(table)}", f"write [{name}]"))
        return network
    try:
        fields.name(name)
    except BadValueError as error:
        problems.append(document.problem((name,), error.message, error.hint))
    if "subnet" not in table:
        hint = 'say which addresses it has, as in subnet = "10.89.0.0/24"'
        problems.append(document.problem((name, "subnet"), "is missing", hint))
    for key, value in table.items():
        try:
            if key not in _KEYS:
                raise BadValueError("unknown key", nearest(key, _KEYS) or f"known here: {', '.join(sorted(_KEYS))}")
            network = replace(network, **{key: _KEYS[key](value)})
        except BadValueError as error:
            problems.append(document.problem((name, key), error.message, error.hint))
    if network.subnet6 and network.subnet6.num_addresses < network.subnet.num_addresses:
        message = f"has less room than subnet ({network.subnet})"
        problems.append(document.problem((name, "subnet6"), message, "each service has an address in both; take a /64"))
    return network


def _subnet(value: object) -> IPv4Network:
    found = _address_range(value, "10.89.0.0/24")
    if not isinstance(found, IPv4Network):
        raise BadValueError(f"{quoted(str(value))} is no IPv4 subnet", "IPv6 goes into subnet6")
    if not 8 <= found.prefixlen <= _MOST:
        raise BadValueError(f"a /{found.prefixlen} is no size for a network of services", f"take /8 to /{_MOST}")
    return found


def _subnet6(value: object) -> IPv6Network:
    found = _address_range(value, "fd00:89::/64")
    if not isinstance(found, IPv6Network):
        raise BadValueError(f"{quoted(str(value))} is no IPv6 subnet", "IPv4 goes into subnet")
    if not 8 <= found.prefixlen <= 120:
        raise BadValueError(f"a /{found.prefixlen} is no size for a network of services", "take /8 to /120")
    return found


def _address_range(value: object, example: str) -> IPv4Network | IPv6Network:
    text = fields.line(value, "a subnet")
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        try:
            hint = f"write {quoted(str(ipaddress.ip_network(text, strict=False)))}"
        except ValueError:
            hint = f"write it as in {quoted(example)}"
        raise BadValueError(f"{quoted(text)} is no subnet", hint) from None
    if found.is_multicast or found.is_loopback or found.is_link_local or found.is_unspecified or "/" not in text:
        raise BadValueError(f"{quoted(text)} is no subnet for services", f"write it as in {quoted(example)}")
    return found


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadValueError(f"expected true or false, got {kind(value)}")
    return value


_KEYS: Final[dict[str, Callable[[object], Any]]] = {
    "subnet": _subnet,
    "subnet6": _subnet6,
    "isolate": _flag,
    "masquerade": _flag,
    # RFC 8200 asks for 1280 at least where there is IPv6, RFC 791 for 68.
    "mtu": lambda value: quantities.whole(value, 1280, 65535),
}


def _overlaps(document: Document, networks: Mapping[str, Network]) -> list[Problem]:
    found, seen = [], list[Network]()
    for network in networks.values():
        for other in seen:
            message = f"overlaps with the network {other.name}"
            if network.subnet.overlaps(other.subnet):
                found.append(document.problem((network.name, "subnet"), message, "take another one"))
            if network.subnet6 and other.subnet6 and network.subnet6.overlaps(other.subnet6):
                found.append(document.problem((network.name, "subnet6"), message, "take another one"))
        seen.append(network)
    return found
