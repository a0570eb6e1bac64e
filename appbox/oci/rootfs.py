"""What a root file system tells about users and paths, as values; reading it is `host.inside`'s work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["directory", "file", "other", "missing", "below a file"]

TABLE_LIMIT: Final = 1 << 20
"""Bytes read of an image's passwd and group files."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a path leads to inside a rootfs: `path` has every symlink resolved; ids are the container's."""

    path: str
    kind: Kind
    uid: int = 0
    gid: int = 0
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class RootfsFacts:
    """`passwd` and `group` are the image's own files, None when it has none; `nodes` answers for asked-for paths."""

    passwd: bytes | None
    group: bytes | None
    nodes: Mapping[str, Node] = field(default_factory=dict)
