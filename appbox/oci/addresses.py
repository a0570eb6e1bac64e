"""What kind of place a network address is. Pure: text in, values out.

A registry names further URLs (a token realm, a redirect). It must not be able to point a client that runs as root
inside of a network at what only that network can reach, such as a cloud's metadata service (CWE-918).
"""

from __future__ import annotations

import ipaddress
from typing import Final

PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK = "public", "private", "link-local", "loopback"
EVERYWHERE: Final = frozenset({PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def kind(address: str) -> str:
    """Return public, private, link-local or loopback for an IP address; an address inside of another one counts."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return kind(str(inner))
    # Linux connects 0.0.0.0 and :: to the host itself.
    if ip.is_loopback or ip.is_unspecified:
        return LOOPBACK
    if ip.is_link_local:
        return LINK_LOCAL
    return PUBLIC if ip.is_global and not ip.is_multicast else PRIVATE


def literal_kind(host: str) -> str | None:
    """Return the kind of a host that needs no look-up: an address or localhost (RFC 6761); None for other names."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return LOOPBACK
    try:
        return kind(host.strip("[]"))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine without a look-up: 127.0.0.0/8, ::1, localhost."""
    name = host.lower().strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
