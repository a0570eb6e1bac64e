"""Following a path through symlinks, as the kernel would with the image as `/`. Values in, values out.

What lies at a place is asked of `look`, so that the same rules serve a rootfs on disk and the listing of an image.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from appbox.errors import Refused
from appbox.oci import limits
from appbox.oci.rootfs import Node

Kind = Literal["directory", "file", "other"]

LINKS: Final = 40
"""Symlinks followed for one path: what Linux does (MAXSYMLINKS)."""


class Found(NamedTuple):
    """What lies at a place; `link` is the target when it is a symlink."""

    kind: Kind
    uid: int
    gid: int
    mode: int
    link: bytes = b""


Look = Callable[[bytes], Found | None]
"""Tells what lies at a place (relative, without symlinks in its directories), None when there is nothing."""


class Place(NamedTuple):
    """Where a path leads: `path` without symlinks; `found` is None when there is nothing yet."""

    path: bytes
    found: Found | None


def node(path: bytes, look: Look) -> Node | None:
    """Return what `path` leads to; see `follow`."""
    place = follow(path, look)
    if place is None:
        return None
    text = "/" + os.fsdecode(place.path)
    if place.found is None:
        return Node(text, "missing")
    return Node(text, place.found.kind, place.found.uid, place.found.gid, place.found.mode)


def follow(path: bytes, look: Look) -> Place | None:
    """Follow all symlinks of `path`, the last one too; None when a file is in the way.

    Names below what is missing are taken as they are. Raises `Refused` for more than `LINKS` symlinks or a path longer
    than the kernel would take.
    """
    todo = _split(path)
    done: list[bytes] = []
    found = look(b"")
    links = 0
    while todo:
        part = todo.pop()
        if found is not None and found.kind != "directory":
            return None
        if part == b"..":
            del done[-1:]
            found = look(b"/".join(done))
            continue
        here = b"/".join((*done, part))
        after = look(here) if found is not None else None
        if after is not None and after.link:
            links += 1
            if links > LINKS or len(here) > limits.PATH:
                raise Refused("too many symlinks", where=os.fsdecode(path))
            if after.link.startswith(b"/"):
                done = []
            todo += _split(after.link)
            found = look(b"/".join(done))
            continue
        done.append(part)
        found = after
    return Place(b"/".join(done), found)


def _split(path: bytes) -> list[bytes]:
    """Return the components, the first one last, ready to be popped."""
    return [part for part in path.split(b"/") if part and part != b"."][::-1]
