"""A manifest with everything that it names looked up: image, configuration files. A value; `resolve` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from appbox.addresses import Attachment
from appbox.configuration import ConfigSource
from appbox.devices import Found
from appbox.document import Document
from appbox.errors import ManifestError
from appbox.manifest import Manifest
from appbox.oci.model import Image
from appbox.policy import Signer
from appbox.toml_source import Path


@dataclass(frozen=True, slots=True)
class HostSource:
    """What is at a volume's path on the host; ids are the host's.

    `empty`: a directory without any entry, and no other service's.
    `file_system` is the kind of what it lies on, where that matters: for somebody's files. An ordinary user's services
    have ids of the container: `own` says that it belongs to the user or one of these, and `whose` says in words whose.
    """

    directory: bool
    empty: bool
    uid: int
    gid: int
    file_system: str = ""
    own: bool = True
    whose: str = ""


@dataclass(frozen=True, slots=True)
class Borrowed:
    """What a service has of its host: what is at the paths of its devices, an init, the bytes of a time zone.

    `reaper` is empty and `zone` None when the manifest does not ask for one, or the host has none.
    """

    devices: tuple[Found, ...] = ()
    reaper: str = ""
    zone: bytes | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """A service whose network another one has, too: its `kind` of network (see `hostnames.kind`) and its host name."""

    name: str
    kind: str
    hostname: str


class Asking(Protocol):
    """What of a manifest its demands on the host depend on: no image is needed to know them."""

    @property
    def manifest(self) -> Manifest: ...
    @property
    def attachment(self) -> Attachment | None: ...
    @property
    def borrowed(self) -> Borrowed: ...


@dataclass(frozen=True, slots=True)
class Locked:
    """`document` is the manifest's own text, for findings.

    `configs` maps paths in the container to their sources; `sources` maps host paths of volumes to what is there now
    (None: nothing), with host ids. `signers` are who signed the image, one for each policy that wants a signature.
    `attachment` is the service's place in the network of its bridge. `encrypted` are the secrets for age by name.
    """

    manifest: Manifest
    document: Document
    image: Image
    configs: Mapping[str, ConfigSource]
    sources: Mapping[str, HostSource | None]
    signers: tuple[Signer, ...] = ()
    attachment: Attachment | None = None
    borrowed: Borrowed = Borrowed()
    shared: Shared | None = None
    encrypted: Mapping[str, bytes] = field(default_factory=dict)
    kept: bool = True
    """Whether the version on the host, if there is one, has the documents of its image."""

    def refuse(self, key: Path, message: str, hint: str = "") -> ManifestError:
        """Return the error that one key of this manifest cannot be as it is."""
        return ManifestError([self.document.problem(key, message, hint)])
