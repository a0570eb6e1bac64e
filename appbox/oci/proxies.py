"""Which proxy a URL goes through, by the usual environment variables. Pure: the environment is handed in.

http_proxy, https_proxy, all_proxy and no_proxy in either case, the lower one first, as curl has them; no_proxy entries
may be a host, a domain with or without its leading dot, host:port, an address, a network, or `*`. A registry on
loopback is never asked through a proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from appbox.oci.addresses import is_loopback


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> str | None:
    """Return the proxy's URL for a request to `host` (IPv6 without brackets), or None."""
    if is_loopback(host) or _excluded(host, port, _get(environ, "no_proxy")):
        return None
    proxy = _get(environ, f"{scheme}_proxy") or _get(environ, "all_proxy")
    if not proxy:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _get(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _excluded(host: str, port: int, no_proxy: str) -> bool:
    return any(_matches(host.lower(), port, entry.strip().lower()) for entry in no_proxy.split(",") if entry.strip())


def _matches(host: str, port: int, entry: str) -> bool:
    if entry == "*":
        return True
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isascii() and digits.isdigit() and (":" not in name or name.endswith("]")):
        return int(digits[:6]) == port and _matches(host, port, name.strip("[]"))
    entry = entry.strip("[]")
    domain = entry.removeprefix("*").removeprefix(".")
    return host == domain or host.endswith(f".{domain}") or _in_network(host, entry)


def _in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
