"""What is installed, as values; reading it from the disk is `store.state`'s work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

GONE: Final = "is missing"
REMOVED: Final = "has nothing but its data"

_SHAPE: Final[dict[tuple[str, ...], type]] = {
    ("name",): str,
    ("version",): str,
    ("userns",): bool,
    ("uid_base",): int,
    ("uid_size",): int,
    ("effective",): int,
    ("visible",): int,
    ("rootfs_mtree",): str,
    ("image",): dict,
    ("image", "digest"): str,
    ("image", "reference"): str,
    ("image", "platform"): str,
    ("network",): dict,
    ("manifest",): dict,
    ("manifest", "volumes"): dict,
    ("manifest", "network"): dict,
    ("manifest", "network", "ports"): list,
    ("manifest", "service"): dict,
}
"""Keys of bundle.toml that are read without a second look, where they are there, and what they are."""


def misshapen(meta: Mapping[str, Any]) -> str:
    """Return a key of bundle.toml that is missing or has a value of another kind, as after a disk went bad; "" if none.

    What only some readers need they look at themselves.
    """
    if not meta.get("name") or not meta.get("version"):
        return "name or version"
    for path, kind in _SHAPE.items():
        value: Any = meta
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and type(value) is not kind:
            return ".".join(path)
    volumes = (meta.get("manifest") or {}).get("volumes") or {}
    return "" if all(type(one) is dict for one in volumes.values()) else "manifest.volumes"


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
    moved here: the directory below the containers in which it is; this one when only the note of it is left.
    `visible` is the generation whose configuration files a running container must see at least, `visible_written` when
    it was written. `moved` is where its manifest was seen since.
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
    visible: int = 0
    visible_written: int = 0
    moved: str = ""

    @property
    def source(self) -> str:
        """Where the manifest is that it came from, as far as that was noted."""
        value = self.meta.get("source", "")
        return self.moved or (value if isinstance(value, str) else "")

    @property
    def digest(self) -> str:
        """Digest of the image manifest that the rootfs was made from."""
        image = self.meta.get("image")
        return str(image.get("digest", "")) if isinstance(image, dict) else ""

    @property
    def base(self) -> int:
        """First host id of the service's range; 0 without a user namespace."""
        value = self.meta.get("uid_base", 0)
        return value if isinstance(value, int) else 0

    @property
    def size(self) -> int:
        """How many host ids the service has from `base` on; no meaning without a user namespace."""
        value = self.meta.get("uid_size", 65536)
        return value if isinstance(value, int) else 65536

    @property
    def sources(self) -> frozenset[str]:
        """The paths of the host that are volumes of this version."""
        manifest = self.meta.get("manifest")
        volumes = manifest.get("volumes") if isinstance(manifest, dict) else None
        tables = volumes.values() if isinstance(volumes, dict) else ()
        return frozenset(str(table["source"]) for table in tables if isinstance(table, dict) and "source" in table)
