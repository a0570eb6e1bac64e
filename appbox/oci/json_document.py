"""JSON from strangers: one strict way to read it, and readers of its fields. Values only, no effects.

Two parsers that disagree about a document are how a signed or pinned image becomes another one (CVE-2021-41190 is of
that family); so what JSON leaves open is refused here: duplicate keys, NaN, lone surrogates, anything but UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from appbox.errors import Refused

DOCUMENT_LIMIT = 4 << 20  # bytes; the distribution specification asks clients and registries to handle 4 MiB


def parse_object(data: bytes, what: str, *, limit: int = DOCUMENT_LIMIT) -> dict[str, Any]:
    """Return the JSON object in `data`; raise `Refused`, naming `what`, for anything else."""
    value = _parse(data, what, limit)
    if not isinstance(value, dict):
        raise Refused(f"{what} is not a JSON object")
    return value


def parse_list(data: bytes, what: str, *, limit: int = DOCUMENT_LIMIT) -> list[Any]:
    """Return the JSON list in `data`; raise `Refused`, naming `what`, for anything else."""
    value = _parse(data, what, limit)
    if not isinstance(value, list):
        raise Refused(f"{what} is not a JSON list")
    return value


def _parse(data: bytes, what: str, limit: int) -> Any:
    if len(data) > limit:
        raise Refused(f"{what} is larger than {limit} bytes")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate fails here
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Refused(f"{what} is not valid JSON", why=why) from error
    return value


def text(table: Mapping[str, Any], key: str, what: str, *, default: str | None = None) -> str:
    """Return the string at `key`; `default` stands in for a missing or null one, None makes it obligatory."""
    value = table.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise _wrong(what, key, "a string", value)
    if "\0" in value:
        raise Refused(f"{key} of {what} has a NUL character")
    return value


def number(table: Mapping[str, Any], key: str, what: str) -> int:
    """Return the whole number at `key`, from 0 to 2**63-1."""
    value = table.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(what, key, "a whole number", value)
    if not 0 <= value < 1 << 63:
        raise Refused(f"{key} of {what} is out of range", why=str(value)[:40])
    return value


def mapping(table: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
    """Return the object at `key`, empty when it is missing or null."""
    value = table.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(what, key, "an object", value)
    return value


def texts(table: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    """Return the list of strings at `key`, empty when it is missing or null."""
    return tuple(text({key: item}, key, what) for item in items(table, key, what, obligatory=False))


def text_map(table: Mapping[str, Any], key: str, what: str) -> dict[str, str]:
    """Return the object of strings at `key`, empty when it is missing or null."""
    found = mapping(table, key, what)
    return {name: text(found, name, f"{key} of {what}") for name in found}


def items(table: Mapping[str, Any], key: str, what: str, *, obligatory: bool = True) -> list[Any]:
    """Return the list at `key`."""
    value = table.get(key)
    if value is None and not obligatory:
        return []
    if not isinstance(value, list):
        raise _wrong(what, key, "a list", value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return table


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _wrong(what: str, key: str, wanted: str, value: object) -> Refused:
    got = "is missing" if value is None else f"is {_NAMES.get(type(value), 'something else')}"
    return Refused(f"{key} of {what} {got}", why=f"it must be {wanted}")


_NAMES: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}
