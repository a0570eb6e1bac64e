"""Files for an init system and the links that enable them, as values, and how they say whose they are.

Apart from `model`, since looking at what is installed needs no more than this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
"""A service: also the name of its unit, its container and its cgroup."""
_MARKER: Final = re.compile(r"# Made by appbox for the service (\S+); appbox apply writes it anew\.", re.ASCII)


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file for an init system: absolute path, text, permission bits."""

    path: str
    text: str
    mode: int


@dataclass(frozen=True, slots=True)
class Link:
    """A symlink that lets the init system start something at boot: absolute path, and what it points to."""

    path: str
    target: str


def marker(name: str) -> str:
    """Return the line that says whose file this is; it comes first, or right after `#!`."""
    if not NAME.fullmatch(name):
        raise ValueError(f"not a name that a unit can carry: {name!r}")
    return f"# Made by appbox for the service {name}; appbox apply writes it anew."


def owner(text: str) -> str | None:
    """Return the service that appbox made this unit, init script or run script for; None if it is not appbox's."""
    lines = text[:1024].split("\n", 2)
    if lines[0].startswith("#!"):
        lines = lines[1:]
    found = _MARKER.fullmatch(lines[0]) if lines else None
    return found[1] if found and NAME.fullmatch(found[1]) else None
