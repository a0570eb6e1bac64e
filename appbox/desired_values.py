"""A service as it should be, as values: what `desired` makes of a manifest, and `remembered` of a stored generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from appbox.addresses import Attachment
from appbox.live import LiveMount, OnChange
from appbox.oci.model import Descriptor
from appbox.policy import Signer
from appbox.store import paths
from appbox.units.files import Link, UnitFile
from appbox.volumes import VolumeSpec

UNKNOWN: Final = "known after unpack"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a generation: path relative to it, owner in host ids.

    When it changes, a running service must be restarted (`restarts`), or only told to reload (`reloads`), or neither.
    """

    path: str
    data: bytes
    mode: int
    owner: tuple[int, int] = (0, 0)
    restarts: bool = True
    reloads: bool = False

    @property
    def on_change(self) -> OnChange:
        """What a running service does when it changes."""
        return "restart" if self.restarts else "reload" if self.reloads else "none"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """How a service goes from one version to another, as its manifest has it.

    `format` names what its data is written in, "" when nobody says. `before`, `after` and `migrate` are commands in its
    containers, each for at most `hook_timeout` seconds. `keep` versions stay. `keep_data`: a rollback takes the present
    data along.
    """

    data: Literal["auto", "snapshot", "copy", "move", "share"] = "auto"
    keep: int = 2
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    migrate: tuple[str, ...] = ()
    format: str = ""
    keep_data: bool = False
    hook_timeout: int = 600


@dataclass(frozen=True, slots=True)
class Desired:
    """A service as it should be. `base` and `size` are its range of host ids; without a user namespace `base` is 0.

    `units` are the files of the init system, the service's own first, none without one; `link` is what lets it start at
    boot when `enable` is true. `signers` are who signed the image, where a policy asks. `live` is where the container
    has its configuration.
    `timed`: it is a job, which runs at its times.
    `generation` is that which it was read from, 0 when it comes from a manifest; `replaced` is where its version is
    below the containers, if another image has taken its place. `upgrade` says how it gets its data. `source` is the
    manifest's path, "" for what does not come from one.
    `complete` is false before the unpacking: `files` then read `UNKNOWN` where a number has to come from the rootfs.
    """

    name: str
    version: str
    reference: str
    digest: str
    layers: tuple[Descriptor, ...]
    base: int
    size: int
    mapped: bool
    files: tuple[File, ...]
    units: tuple[UnitFile, ...]
    volumes: tuple[VolumeSpec, ...]
    link: Link | None
    enable: bool
    notes: tuple[str, ...]
    complete: bool
    timed: bool = False
    signers: tuple[Signer, ...] = ()
    live: tuple[LiveMount, ...] = ()
    attachment: Attachment | None = None
    upgrade: Upgrade = Upgrade()
    generation: int = 0
    replaced: str = ""
    source: str = ""

    @property
    def directory(self) -> str:
        """The version's directory, relative to the containers."""
        return paths.version_directory(self.name, self.version)
