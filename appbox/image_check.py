"""`appbox check --image`: manifests held against the configurations of their images. No layer is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appbox import admission, container, preflight, resolve, sources
from appbox.locked import Locked
from appbox.oci.cache import Cache
from appbox.session import Options, cache_path, wanted_platform
from appbox.sources import Loaded


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest that goes with its image; `notes` say what will fail or surprise, and what to write instead."""

    name: str
    version: str
    file: str
    reference: str
    digest: str
    notes: tuple[str, ...]


def check(options: Options, arguments: Sequence[str]) -> list[Checked]:
    """Look every image up and hold its manifest against it.

    Raises ManifestError, Unavailable for an image that cannot be had, or Refused for one that claims impossible things.
    """
    with options.open_root(services=False) as root:
        images = resolve.Images(Cache(cache_path(root)), wanted_platform(""), admission.load(root), watching=False)
        return [_check(one, images) for one in sources.load(arguments)]


def _check(loaded: Loaded, images: resolve.Images) -> Checked:
    image = images.look_up(loaded, None).image
    locked = Locked(loaded.manifest, loaded.document, image, loaded.configs, {})
    container.args(locked)
    container.workdir(locked)
    container.stop_signal(locked)
    mapped = container.is_mapped(loaded.manifest)
    notes = (
        *preflight.unmapped_volumes(locked),
        *container.notes(locked, mapped=mapped),
        *preflight.notes(locked),
    )
    return Checked(
        loaded.manifest.name, loaded.manifest.version, loaded.document.file, image.reference, str(image.digest), notes
    )
