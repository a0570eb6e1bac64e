"""How a service does by its health check, as its run script has written it down. It only reads."""

from __future__ import annotations

from typing import Final

from appbox.health_line import State, parse
from appbox.store import paths

_LIMIT: Final = 512
"""Bytes read of each file; the run script writes no more."""


def load(name: str) -> State | None:
    """Return the state of a service on the running host; None for one without a health check, or that never ran."""
    line = _read(f"{paths.RUN}/{name}/health")
    return parse(line, _read(f"{paths.RUN}/{name}/health.said")) if line else None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except OSError:
        return b""
