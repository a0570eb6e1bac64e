"""What the administrator says about registries, in registries.conf (containers-registries.conf(5)).

Acted on: prefix, location, insecure, blocked. Mirrors are passed over: without them the same image comes from the
registry itself. Not here: credentials, and TLS certificates.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from appbox.errors import Unavailable, UsageError
from appbox.oci.addresses import is_loopback
from appbox.oci.reference import RegistryImage, parse_image, split_host
from appbox.oci.settings import Settings

_SIZE_LIMIT = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[registry]] table. `prefix` is host[:port][/path…] or *.domain; `location`, if any, takes its place."""

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False

    def covers(self, name: str) -> bool:
        """Tell whether the rule is about the repository or registry `name`."""
        if self.prefix.startswith("*."):
            host = name.partition("/")[0]
            return host.partition(":")[0].endswith(self.prefix[1:]) or host.endswith(self.prefix[1:])
        return name == self.prefix or name.startswith(f"{self.prefix}/")


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules; of those that cover a name the one with the longest prefix counts."""

    rules: tuple[Rule, ...] = ()

    def find(self, name: str) -> Rule | None:
        """Return the rule for a repository or registry."""
        covering = [rule for rule in self.rules if rule.covers(name)]
        return max(covering, key=lambda rule: len(rule.prefix)) if covering else None

    def insecure(self, name: str) -> bool:
        """Tell whether TLS may be left out or unverified for a repository or registry because somebody said so."""
        rule = self.find(name)
        return rule is not None and rule.insecure

    def plain_http(self, name: str) -> bool:
        """Tell whether plain HTTP may be spoken: insecure by configuration, or on this machine's loopback."""
        host, _ = split_host(name.partition("/")[0])
        return is_loopback(host) or self.insecure(name)

    def place(self, image: RegistryImage) -> RegistryImage:
        """Return where an image is really looked for; raise `Unavailable` when its registry is blocked."""
        rule = self.find(str(image))
        if rule is None:
            return image
        if rule.blocked:
            why = f"{rule.prefix} is blocked in registries.conf"
            raise Unavailable("the registry is blocked", where=str(image), why=why)
        if not rule.location or rule.location == rule.prefix or rule.prefix.startswith("*."):
            return image
        moved = f"{rule.location}{str(image)[len(rule.prefix) :]}"
        try:
            place = parse_image(moved)
        except UsageError as error:
            why = f"{rule.prefix} has a bad location in registries.conf: {error}"
            raise Unavailable("the registry cannot be found", where=str(image), why=why) from error
        return place if isinstance(place, RegistryImage) else image


def load(settings: Settings) -> Rules:
    """Read registries.conf and its drop-ins; a later rule for the same prefix takes the place of an earlier one."""
    rules = {rule.prefix: rule for path in _files(settings) for rule in parse(_read(path), path)}
    return Rules(tuple(rules.values()))


def parse(data: bytes, where: str) -> list[Rule]:
    """Return the rules in one file; raise `Unavailable` for what is not TOML or has a wrong type."""
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Unavailable("is not valid TOML", where=where, why=str(error)) from error
    # The older format has lists of hosts only.
    old = document.get("registries", {})
    insecure, blocked = (_hosts(old, key, where) for key in ("insecure", "block"))
    tables = document.get("registry", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Unavailable("registry must be a list of tables", where=where, hint="write [[registry]]")
    first = [Rule(host, insecure=host in insecure, blocked=host in blocked) for host in sorted(insecure | blocked)]
    return first + [_rule(table, where) for table in tables]


def _rule(table: Mapping[str, Any], where: str) -> Rule:
    location, prefix = table.get("location", ""), table.get("prefix", "")
    insecure, blocked = table.get("insecure", False), table.get("blocked", False)
    if not (isinstance(location, str) and isinstance(prefix, str) and (location or prefix)):
        raise Unavailable("a [[registry]] needs a prefix or a location", where=where)
    if not (isinstance(insecure, bool) and isinstance(blocked, bool)):
        raise Unavailable("insecure and blocked must be true or false", where=where, why=f"at {prefix or location}")
    return Rule((prefix or location).rstrip("/"), location.rstrip("/"), insecure, blocked)


def _hosts(old: object, key: str, where: str) -> set[str]:
    table = old.get(key, {}) if isinstance(old, dict) else {}
    hosts = table.get("registries", []) if isinstance(table, dict) else []
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise Unavailable(f"registries.{key}.registries must be a list of hosts", where=where)
    return set(hosts)


def _files(settings: Settings) -> Iterable[str]:
    """Yield the files in the order in which they are read: the main one, then drop-ins of the host and of the user."""
    user, host = f"{settings.config_home()}/containers", f"{settings.etc}/containers"
    main = settings.environ.get("CONTAINERS_REGISTRIES_CONF") or f"{user}/registries.conf"
    yield main if os.path.isfile(main) else f"{host}/registries.conf"
    for folder in (f"{host}/registries.conf.d", f"{user}/registries.conf.d"):
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        yield from (f"{folder}/{name}" for name in names if name.endswith(".conf"))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_SIZE_LIMIT)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Unavailable("cannot be read", where=path, why=error.strerror or str(error)) from error
