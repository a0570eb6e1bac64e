"""Health checks and readiness: what is asked of a service, and with which files. Pure.

The run script asks, with nothing but a shell and what the host has (`generators/run/health.sh.j2`); how it
did is in `health_line`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

from appbox.findings import Finding
from appbox.host.facts import InitKind
from appbox.quantities import DAY
from appbox.tables import Health, Manifest
from appbox.toml_source import Path
from appbox.units.model import Check, RestartLimit

COMMAND: Final = "health"
"""The name of the check's program among the commands of a generation."""
TARGET: Final = "health/target"
"""The file that says where to connect: host and port."""
REQUEST: Final = "health/request"
"""The file that is sent there."""
URL: Final = "health/url"
"""The file that names what curl asks for."""
NOTIFY_PLACE: Final = "/run/notify"
"""The directory in the container that has the socket at which a service says that it is ready."""
NOTIFY_SOCKET: Final = f"{NOTIFY_PLACE}/socket"
PROGRAMS: Final = ("bash", "busybox", "curl", "nsenter", "perl", "timeout")
"""Programs of the host, of which some checks need some."""

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?", re.ASCII)
_LONGEST_URL: Final = 4096


def check(health: Health | None) -> Check | None:
    """Return the health check as units and scripts have it; None without one."""
    if health is None:
        return None
    limit = health.restart_limit
    return Check(
        kind=_kind(health),
        interval=health.interval,
        timeout=health.timeout,
        retries=health.retries,
        start_period=health.start_period,
        action=health.on_unhealthy,
        limit=RestartLimit(limit.count, limit.seconds),
        port=health.tcp or 0,
    )


def _kind(health: Health) -> Literal["exec", "tcp", "http", "https"]:
    if health.http is None:
        return "tcp" if health.exec is None else "exec"
    return "https" if health.http.startswith("https:") else "http"


def notify(manifest: Manifest, init: InitKind) -> Literal["", "direct", "relay"]:
    """Return how a service reaches the init system to say that it is ready.

    Under an init system only one word of it is passed on. systemd would obey more (sd_notify(3)): put off the end of a
    stop for as long as it is told to, show any text in `systemctl status`, take another process for the main one.
    """
    if not manifest.service.notify:
        return ""
    return "direct" if init == "none" else "relay"


def lacks(manifest: Manifest, init: InitKind, programs: frozenset[str]) -> Iterator[tuple[Path, str, str]]:
    """Yield the keys that a host with only `programs` cannot act on, each with what it lacks and the cure."""
    health = manifest.health
    if health is not None:
        if "timeout" not in programs:
            yield ("health",), "the host has no program timeout", "install coreutils or busybox"
        if health.exec is None and manifest.network.mode != "host" and "nsenter" not in programs:
            yield ("health",), "the host has no program nsenter", "install util-linux or busybox"
        if health.tcp is not None or (health.http or "").startswith("http:"):
            if not programs & {"bash", "busybox"}:
                key = "tcp" if health.tcp is not None else "http"
                yield ("health", key), "the host has neither bash nor busybox to connect with", "install one of them"
        elif health.http is not None and "curl" not in programs:
            yield ("health", "http"), "the host has no curl, which speaks TLS", "install curl, or take exec instead"
    if notify(manifest, init) == "relay" and "perl" not in programs:
        yield ("service", "notify"), "the host has no perl to listen to the service with", "install perl"


def files(health: Health | None) -> Iterator[tuple[str, bytes]]:
    """Yield what the run script reads to ask by HTTP: paths in the generation and contents."""
    if health is None or health.http is None:
        return
    parts = urlsplit(health.http)
    if parts.scheme == "https":
        yield URL, f"{health.http}\n".encode("ascii")
        return
    yield TARGET, f"{parts.hostname} {parts.port or 80}\n".encode("ascii")
    yield REQUEST, request(parts)


def request(parts: SplitResult) -> bytes:
    """Return the HTTP request for a URL (RFC 9112, Request Line; RFC 9110, Host and Connection)."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        "User-Agent: appbox",
        "Accept: */*",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def rules(manifest: Manifest) -> Iterator[Finding]:
    """Yield a finding for each rule of [health] and of readiness that `manifest` breaks."""
    if manifest.service.notify:
        if manifest.service.schedule:
            yield Finding(("service", "notify"), "a timed job is never ready: it ends", "take it out")
        if "NOTIFY_SOCKET" in manifest.process.env:
            message = "is set by appbox, since service.notify is true"
            yield Finding(("process", "env", "NOTIFY_SOCKET"), message, "take it out", (("service", "notify"),))
    health = manifest.health
    if health is None:
        return
    if manifest.service.schedule:
        yield Finding(("health",), "a timed job ends by itself: its exit status says how it did", "take it out")
    patience = health.start_period + health.retries * health.interval + health.timeout
    if patience > DAY:
        message = f"it would take {patience} seconds to find out that the service does not start"
        yield Finding(("health", "retries"), message, "take shorter times: a day is the most")
    if health.http is not None:
        yield from _url(health.http)


def _url(url: str) -> Iterator[Finding]:
    if len(url) > _LONGEST_URL:
        yield Finding(("health", "http"), f"has {len(url)} characters", f"a URL has {_LONGEST_URL} at most")
        return
    host = urlsplit(url).hostname or ""
    if ":" in host and not _is_ipv6(host):
        yield Finding(("health", "http"), "its host is no IPv6 address", "write http://[::1]:8080/")
    elif ":" not in host and not _HOST.fullmatch(host):
        yield Finding(("health", "http"), "its host is neither a name nor an address", "write http://127.0.0.1:8080/")


def _is_ipv6(host: str) -> bool:
    try:
        return not ipaddress.IPv6Address(host).scope_id
    except ValueError:
        return False
