"""TOML written for people: keys and values, each on one line. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
# What a terminal or an editor could take for something else is written as its number, and so is half a character.
_SPECIAL = re.compile('[\\x00-\\x1f\\x7f-\\x9f"\\\\\u2028\u2029\u202a-\u202e\u2066-\u2069]')


def value(found: Any) -> str:
    """Return a string, number, truth value, list or table as TOML 1.0 on one line; TypeError for anything else."""
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int | float):
        return str(found)
    if isinstance(found, str):
        return f'"{_SPECIAL.sub(_escape, found)}"'
    if isinstance(found, list | tuple):
        return f"[{', '.join(map(value, found))}]"
    if isinstance(found, Mapping):
        return f"{{ {', '.join(f'{key(k)} = {value(v)}' for k, v in found.items())} }}" if found else "{}"
    raise TypeError(f"no TOML: {type(found).__name__}")


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    return _ESCAPES.get(char) or f"\\u{ord(char):04X}"


def key(name: str) -> str:
    """Return a key, quoted if it has to be."""
    return name if _BARE.fullmatch(name) else value(name)
