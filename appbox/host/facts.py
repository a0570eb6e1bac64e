"""What is known of a host, as values. Gathering them is `host.gather`'s work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from appbox.oci.model import Platform

InitKind = Literal["systemd", "openrc", "none"]


@dataclass(frozen=True, slots=True)
class IdRange:
    """`size` consecutive user or group ids of the host, from `base` on."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first id after the range."""
        return self.base + self.size

    def overlaps(self, other: IdRange) -> bool:
        """Return whether both ranges share an id."""
        return self.base < other.end and other.base < self.end


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a live host can do, as far as the manifests at hand depend on it; `host.abilities` finds it out.

    Nothing is known of a root that does not run: None in `Facts`, and nothing is refused then.
    """


@dataclass(frozen=True, slots=True)
class Facts:
    """A host as the pure modules see it.

    `live` is false below `--root DIR`, where nothing is started. `taken` are the id ranges of /etc/subuid,
    /etc/subgid and of users; `ranges` maps services to the base of the range they were given.
    `memory` is in bytes.
    """

    hostname: str
    platform: Platform
    init: InitKind
    live: bool
    cpus: int = 1
    memory: int = 1 << 30
    taken: tuple[IdRange, ...] = ()
    ranges: Mapping[str, int] = field(default_factory=dict)
    abilities: Abilities | None = None

    def for_templates(self) -> dict[str, str | int]:
        """Return what a template sees as `facts`."""
        return {
            "hostname": self.hostname,
            "architecture": self.platform.architecture,
            "init": self.init,
            "cpus": self.cpus,
            "memory": self.memory,
        }


EXAMPLE: Final = Facts(
    hostname="example", platform=Platform("linux", "amd64"), init="systemd", live=False, cpus=2, memory=4 << 30
)
"""A made-up host: `check` renders templates with it, because it may not look at the real one."""
