"""What is installed, as values; reading it from the disk is `store.state`'s work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

GONE: Final = "is missing"
REMOVED: Final = "was removed, and its data kept"


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a generation as it is on disk; `owner` in host ids."""

    data: bytes
    mode: int
    owner: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Installed:
    """The current version of a service.

    `directory` is relative to the containers directory; `meta` is bundle.toml; `files` are the generation's, by
    path. `problem` says why the bundle cannot be used, if so. `written` is when the configuration that a running
    service must have was written (nanoseconds since 1970). `carry`: data of the previous version still has to be
    moved here: the directory below the containers in which it is.
    """

    name: str
    version: str
    directory: str
    generation: int
    meta: Mapping[str, Any]
    files: Mapping[str, Stored] = field(default_factory=dict)
    problem: str = ""
    carry: str = ""
    written: int = 0

    @property
    def digest(self) -> str:
        """Digest of the image manifest that the rootfs was made from."""
        return str(self.meta.get("image", {}).get("digest", ""))

    @property
    def base(self) -> int:
        """First host id of the service's range; 0 without a user namespace."""
        value = self.meta.get("uid_base", 0)
        return value if isinstance(value, int) else 0
