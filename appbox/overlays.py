"""Overlays: what `hosts/<hostname>.toml` beside the manifests says otherwise for one host. Pure.

    [vars]                        # joins the variables of every service of the directory
    maxmemory = "2gb"
    [services.valkey.resources]   # any key of a service but its name
    memory = "4G"

Tables are merged, key by key; everything else replaces what the manifest has. Where a table takes exactly one of some
keys, the overlay's one replaces the manifest's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appbox import fields, toml_source
from appbox.document import Overlay
from appbox.errors import ManifestError, Problem
from appbox.fields import BadValueError, kind
from appbox.toml_source import Path, SourceError

FOLDER: Final = "hosts"
"""The directory of the overlays, beside the manifests."""

ALTERNATIVES: Final[Mapping[str, tuple[str, ...]]] = {
    "config": ("text", "file", "template", "directory"),
    "secrets": ("file", "command", "age"),
    "health": ("exec", "tcp", "http"),
    "build": ("packages", "containerfile"),
}
"""Tables that take exactly one of some keys; those of config and secrets are one level further down."""

_KNOWN: Final = ("services", "vars")


def host_of(file: str) -> str:
    """Return the host that an overlay's file is for: its name without .toml, in lower case."""
    return file.rpartition("/")[2].removesuffix(".toml").lower()


def matches(file: str, hostname: str) -> bool:
    """Return whether an overlay is for a host. Names of hosts do not tell cases apart (RFC 4343)."""
    return host_of(file) == hostname.lower()


def parse(text: str, *, file: str) -> Overlay:
    """Return the overlay that `text` holds; ManifestError with every problem of its outline, each with line and key.

    The keys of a service are looked at when the overlay is merged with its manifest.
    """
    try:
        data = toml_source.load(text)
        lines = toml_source.positions(text)
    except SourceError as error:
        place = toml_source.dotted(error.path)
        raise ManifestError([Problem(file, error.line, place, error.message, error.hint)]) from None
    if found := list(_outline(data)):
        raise ManifestError(
            [Problem(file, toml_source.line_of(lines, p), toml_source.dotted(p), what, hint) for p, what, hint in found]
        )
    return Overlay(file, text, data)


def _outline(data: Mapping[str, Any]) -> list[tuple[Path, str, str]]:
    found: list[tuple[Path, str, str]] = []
    for key, value in data.items():
        if key not in _KNOWN:
            found.append(((key,), "unknown key", "an overlay holds [vars] and [services.NAME]"))
        elif not isinstance(value, Mapping):
            found.append(((key,), f"expected a table, got {kind(value)}", f"write [{key}]"))
        elif key == "services":
            found += [problem for name, table in value.items() for problem in _service(name, table)]
    return found


def _service(name: str, table: object) -> list[tuple[Path, str, str]]:
    place = ("services", name)
    try:
        fields.name(name)
    except BadValueError as error:
        return [(place, error.message, error.hint)]
    if not isinstance(table, Mapping):
        return [(place, f"expected a table, got {kind(table)}", f"write [services.{name}]")]
    if "name" in table:
        return [((*place, "name"), "the name of a service is the same on every host", "take it out")]
    return []


def services(overlay: Overlay) -> tuple[str, ...]:
    """Return the names of the services that an overlay changes."""
    return tuple(overlay.data.get("services", {}))


def concerns(overlay: Overlay, service: str) -> bool:
    """Return whether an overlay says anything for a service."""
    return bool(overlay.data.get("vars")) or service in services(overlay)


def merge(data: Mapping[str, Any], overlay: Overlay) -> dict[str, Any]:
    """Return a manifest's data with what the overlay says otherwise; its [services.NAME.vars] win over its [vars]."""
    merged = dict(data)
    if variables := overlay.data.get("vars"):
        merged = _merged(merged, {"vars": variables})
    own = overlay.data.get("services", {}).get(data.get("name"), {})
    for table, keys in ALTERNATIVES.items():
        if isinstance(own.get(table), Mapping) and isinstance(merged.get(table), Mapping):
            merged[table] = _without_rivals(merged[table], own[table], keys, nested=table in {"config", "secrets"})
    return _merged(merged, own)


def _without_rivals(
    below: Mapping[str, Any], above: Mapping[str, Any], keys: tuple[str, ...], *, nested: bool
) -> dict[str, Any]:
    """Return `below` without those of `keys` to which `above` gives an alternative."""
    if nested:
        both = [k for k in above if isinstance(above[k], Mapping) and isinstance(below.get(k), Mapping)]
        return {**below, **{k: _without_rivals(below[k], above[k], keys, nested=False) for k in both}}
    rivals = keys if any(key in above for key in keys) else ()
    return {key: value for key, value in below.items() if key not in rivals}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two tables as one. Depth is bounded by `toml_source.DEPTH_LIMIT`."""
    found = dict(below)
    for key, value in above.items():
        there = found.get(key)
        both = isinstance(value, Mapping) and isinstance(there, Mapping)
        found[key] = _merged(there, value) if both else value  # type: ignore[arg-type]
    return found
