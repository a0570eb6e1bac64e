"""What kind of place a network address is. Pure: text in, values out.

A registry names further URLs (a token realm, a redirect). It must not be able to point a client that runs as root
inside of a network at what only that network can reach, such as a cloud's metadata service (CWE-918).
"""

from __future__ import annotations

import ipaddress
from typing import Final

PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK = "public", "private", "link-local", "loopback"
EVERYWHERE: Final = frozenset({PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK})
# Prefixes of an IPv4 address in the last 32 bits: compatible (RFC 4291), translated (RFC 2765), NAT64 (RFC 6052).
_CARRIERS: Final = tuple(ipaddress.IPv6Network(f"{prefix}/96") for prefix in ("::", "::ffff:0:0:0", "64:ff9b::"))
# Of a network's own, which Python calls global: its own NAT64 (RFC 8215), where the IPv4 address is anywhere in it.
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")


def kind(address: str) -> str:
    """Return public, private, link-local or loopback for an IP address; an address inside of another one counts."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    # Linux connects 0.0.0.0 and :: to the host itself.
    if ip.is_loopback or ip.is_unspecified:
        return LOOPBACK
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and any(ip in carrier for carrier in _CARRIERS):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return kind(str(inner))
        if ip in _LOCAL_NAT64 or ip.is_site_local:
            return PRIVATE
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
