"""A manifest with everything that it names looked up: image, configuration files. A value; `resolve` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appbox.configuration import ConfigSource
from appbox.document import Document
from appbox.errors import ManifestError
from appbox.manifest import Manifest
from appbox.oci.model import Image
from appbox.policy import Signer
from appbox.toml_source import Path


@dataclass(frozen=True, slots=True)
class HostSource:
    """What is at a volume's path on the host; ids are the host's. `empty`: a directory without any entry."""

    directory: bool
    empty: bool
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Locked:
    """`document` is the manifest's own text, for findings.

    `configs` maps paths in the container to their sources; `sources` maps host paths of volumes to what is there now
    (None: nothing), with host ids. `signers` are who signed the image, one for each policy that wants a signature.
    """

    manifest: Manifest
    document: Document
    image: Image
    configs: Mapping[str, ConfigSource]
    sources: Mapping[str, HostSource | None]
    signers: tuple[Signer, ...] = ()

    def refuse(self, key: Path, message: str, hint: str = "") -> ManifestError:
        """Return the error that one key of this manifest cannot be as it is."""
        return ManifestError([self.document.problem(key, message, hint)])
