"""What the administrator says about registries, in registries.conf (containers-registries.conf(5)).

Acted on: prefix, location, insecure, blocked, mirrors with pull-from-mirror and mirror-by-digest-only, and
credential-helpers. Short names are not: a name without a registry is refused long before. Not here: credentials, and
TLS certificates.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from appbox.errors import Unavailable, UsageError
from appbox.oci.addresses import is_loopback
from appbox.oci.credentials import AUTH_FILES
from appbox.oci.digest import Digest
from appbox.oci.reference import RegistryImage, parse_image, split_host
from appbox.oci.settings import Settings

_SIZE_LIMIT = 1 << 20  # bytes
_PORTS = {"http": 80, "https": 443}
ALL, DIGEST_ONLY, TAG_ONLY = "all", "digest-only", "tag-only"


@dataclass(frozen=True, slots=True)
class Mirror:
    """One [[registry.mirror]] table; `pull` says for which images it is asked: all, digest-only or tag-only."""

    location: str
    insecure: bool = False
    pull: str = ALL


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[registry]] table. `prefix` is host[:port][/path…] or *.domain; `location`, if any, takes its place."""

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()

    def covers(self, name: str) -> bool:
        """Tell whether the rule is about the repository or registry `name`."""
        return self.rest(name) is not None

    def rest(self, name: str) -> str | None:
        """Return what follows the prefix in `name`; None when the rule is not about it."""
        if not self.prefix.startswith("*."):
            rest = name.removeprefix(self.prefix)
            return rest if name.startswith(self.prefix) and rest[:1] in ("", "/") else None
        host, slash, path = name.partition("/")
        domain, colon, port = host.partition(":")
        if host.endswith(self.prefix[1:]):
            return f"{slash}{path}"
        return f"{colon}{port}{slash}{path}" if domain.endswith(self.prefix[1:]) else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is really looked for; a mirror is asked for what `pull` says, the registry itself for anything."""

    image: RegistryImage
    insecure: bool = False
    mirror: bool = False
    pull: str = ALL

    def serves(self, reference: str | Digest) -> bool:
        """Tell whether it is asked for a tag, or for a digest."""
        return self.pull in (ALL, DIGEST_ONLY if isinstance(reference, Digest) else TAG_ONLY)


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules; of those that cover a name the one with the longest prefix counts."""

    rules: tuple[Rule, ...] = ()
    helpers: tuple[str, ...] = (AUTH_FILES,)

    def find(self, name: str) -> Rule | None:
        """Return the rule for a repository or registry."""
        covering = [rule for rule in self.rules if rule.covers(name)]
        # A host by its name counts more than one of a whole domain.
        return max(covering, key=lambda rule: (len(rule.prefix), rule.prefix[:1] != "*")) if covering else None

    def insecure(self, name: str) -> bool:
        """Tell whether TLS may be left out or unverified for a repository or registry because somebody said so."""
        rule = self.find(name)
        return rule is not None and rule.insecure

    def plain_http(self, name: str) -> bool:
        """Tell whether plain HTTP may be spoken: insecure by configuration, or on this machine's loopback."""
        host, _ = split_host(name.partition("/")[0])
        return is_loopback(host) or self.insecure(name)

    def place(self, image: RegistryImage) -> Place:
        """Return the registry itself, where it really is; raise `Unavailable` when it is blocked."""
        rule = self.find(str(image))
        if rule is None:
            return Place(image)
        if rule.blocked:
            raise _blocked(str(image), rule)
        moved = _moved(image, rule, rule.location) if rule.location else image
        return Place(moved, rule.insecure or self.insecure(str(moved)))

    def mirrors(self, image: RegistryImage) -> tuple[Place, ...]:
        """Return the places to ask before the registry itself, in their order."""
        rule = self.find(str(image))
        if rule is None:
            return ()
        moved = ((mirror, _moved(image, rule, mirror.location)) for mirror in rule.mirrors)
        return tuple(
            Place(there, mirror.insecure or self.insecure(str(there)), mirror=True, pull=mirror.pull)
            for mirror, there in moved
        )

    def admit(self, image: RegistryImage, reference: str | Digest) -> None:
        """Raise `Unavailable` when this one tag or digest is blocked: a prefix may be as long as that."""
        name = f"{image}{'@' if isinstance(reference, Digest) else ':'}{reference}"
        rule = next((rule for rule in self.rules if rule.prefix == name), None)
        if rule is not None and rule.blocked:
            raise _blocked(name, rule)


def spellings(scheme: str, authority: str) -> tuple[str, ...]:
    """Return the names that registries.conf may have for a host[:port]: the usual port is written out or left away."""
    _, port = split_host(authority)
    usual = _PORTS[scheme]
    if port is None:
        return authority, f"{authority}:{usual}"
    return (authority, authority.removesuffix(f":{port}")) if port == usual else (authority,)


def _blocked(name: str, rule: Rule) -> Unavailable:
    return Unavailable("the registry is blocked", where=name, why=f"{rule.prefix} is blocked in registries.conf")


def _moved(image: RegistryImage, rule: Rule, location: str) -> RegistryImage:
    """Return `image` with `location` in the place of the rule's prefix."""
    try:
        place = parse_image(f"{location}{rule.rest(str(image))}")
        if not isinstance(place, RegistryImage):
            raise UsageError(f"{location!r} is no registry", hint="write HOST[:PORT][/PATH]")
    except UsageError as error:
        why = f"{rule.prefix} has a bad location in registries.conf: {error}"
        raise Unavailable("the registry cannot be found", where=str(image), why=why) from error
    return place


def load(settings: Settings) -> Rules:
    """Read registries.conf and its drop-ins; a later rule for the same prefix takes the place of an earlier one."""
    rules: dict[str, Rule] = {}
    helpers: tuple[str, ...] = ()
    for path in _files(settings):
        document = _document(_read(path, obligatory=path == _asked_for(settings)), path)
        rules |= {rule.prefix: rule for rule in _rules(document, path)}
        helpers = _helpers(document, path) or helpers
    return Rules(tuple(rules.values()), helpers or (AUTH_FILES,))


def parse(data: bytes, where: str) -> list[Rule]:
    """Return the rules in one file; raise `Unavailable` for what is not TOML or has a wrong type."""
    return _rules(_document(data, where), where)


def _document(data: bytes, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Unavailable("is not valid TOML", where=where, why=str(error)) from error


def _rules(document: Mapping[str, Any], where: str) -> list[Rule]:
    # The older format has lists of hosts only.
    old = document.get("registries", {})
    insecure, blocked = (_hosts(old, key, where) for key in ("insecure", "block"))
    first = [Rule(host, insecure=host in insecure, blocked=host in blocked) for host in sorted(insecure | blocked)]
    return first + [_rule(table, where) for table in _tables(document, "registry", where)]


def _tables(parent: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    tables = parent.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        name = "registry" if key == "registry" else f"registry.{key}"
        raise Unavailable(f"{name} must be a list of tables", where=where, hint=f"write [[{name}]]")
    return tables


def _rule(table: Mapping[str, Any], where: str) -> Rule:
    location, prefix = table.get("location", ""), table.get("prefix", "")
    if not (isinstance(location, str) and isinstance(prefix, str) and (location or prefix)):
        raise Unavailable("a [[registry]] needs a prefix or a location", where=where)
    prefix, location = (prefix or location).rstrip("/"), location.rstrip("/")
    insecure, blocked, by_digest = (
        _flag(table, key, prefix, where) for key in ("insecure", "blocked", "mirror-by-digest-only")
    )
    mirrors = tuple(_mirror(mirror, prefix, by_digest, where) for mirror in _tables(table, "mirror", where))
    return Rule(prefix, "" if location == prefix else location, insecure, blocked, mirrors)


def _mirror(table: Mapping[str, Any], prefix: str, by_digest: bool, where: str) -> Mirror:
    location, pull = table.get("location", ""), table.get("pull-from-mirror", "")
    if not isinstance(location, str) or not location:
        raise Unavailable("a [[registry.mirror]] needs a location", where=where, why=f"at {prefix}")
    if pull not in ("", ALL, DIGEST_ONLY, TAG_ONLY):
        why = f"at the mirror {location} of {prefix}"
        raise Unavailable("pull-from-mirror must be all, digest-only or tag-only", where=where, why=why)
    if pull and by_digest:
        why = f"at the mirror {location} of {prefix}"
        hint = "keep one of them"
        raise Unavailable("pull-from-mirror contradicts mirror-by-digest-only", where=where, why=why, hint=hint)
    insecure = _flag(table, "insecure", location, where)
    return Mirror(location.rstrip("/"), insecure, pull or (DIGEST_ONLY if by_digest else ALL))


def _flag(table: Mapping[str, Any], key: str, name: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise Unavailable(f"{key} must be true or false", where=where, why=f"at {name}")
    return value


def _helpers(document: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = document.get("credential-helpers", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise Unavailable("credential-helpers must be a list of names", where=where)
    return tuple(names)


def _hosts(old: object, key: str, where: str) -> set[str]:
    table = old.get(key, {}) if isinstance(old, dict) else {}
    hosts = table.get("registries", []) if isinstance(table, dict) else []
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise Unavailable(f"registries.{key}.registries must be a list of hosts", where=where)
    return set(hosts)


def _files(settings: Settings) -> Iterable[str]:
    """Yield the files in the order in which they are read: the main one, then drop-ins of the host and of the user."""
    user, host = f"{settings.config_home()}/containers", f"{settings.etc}/containers"
    own = f"{user}/registries.conf"
    yield _asked_for(settings) or (own if os.path.isfile(own) else f"{host}/registries.conf")
    for folder in (f"{host}/registries.conf.d", f"{user}/registries.conf.d"):
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        yield from (f"{folder}/{name}" for name in names if name.endswith(".conf"))


def _asked_for(settings: Settings) -> str:
    return settings.environ.get("CONTAINERS_REGISTRIES_CONF", "")


def _read(path: str, *, obligatory: bool) -> bytes:
    try:
        with open(path, "rb") as stream:
            data = stream.read(_SIZE_LIMIT + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not obligatory:
            return b""
        raise Unavailable("cannot be read", where=path, why=error.strerror or str(error)) from error
    if len(data) > _SIZE_LIMIT:  # what is blocked behind it would be let through
        raise Unavailable(f"is larger than {_SIZE_LIMIT} bytes", where=path)
    return data
