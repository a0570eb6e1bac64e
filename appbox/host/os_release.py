"""Which distribution a host is: reads its os-release(5)."""

from __future__ import annotations

from typing import Final

from appbox.distribution import OS_RELEASE, UNKNOWN, Distribution, parse
from appbox.errors import AppboxError
from appbox.store.root import Root

_LIMIT: Final = 64 << 10
"""Bytes read; those of distributions have some hundred."""


def read(root: Root) -> Distribution:
    """Return what os-release says; a link in /etc is followed inside the root.

    UNKNOWN where it cannot be read: nothing but the wording of hints depends on it.
    """
    for path in OS_RELEASE:
        try:
            data = root.read(path, _LIMIT)
        except (OSError, AppboxError):
            return UNKNOWN
        if data is not None:
            return parse(data.decode("utf-8", "replace"))
    return UNKNOWN


def hint(tool: str) -> str:
    """Return what to do so that this host has a tool, as an imperative."""
    with Root() as root:
        return read(root).hint(tool)
