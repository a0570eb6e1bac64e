"""Where a service may write besides its volumes, and what becomes of it: `security.rootfs`. Pure.

- overlay: everywhere, into memory; the end of the service is the end of it.
- persistent: everywhere, into `upper` of the version's directory. It belongs to one image: over another one it would
  hide what is new there, so that a new version, or a new digest, begins without it.
- read-only: nowhere but in /run, /tmp and /var/tmp, which are in memory and as the image has them at each start. The
  overlay is there all the same, since the runtime makes the mount points that an image lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from appbox import volumes
from appbox.errors import Refused
from appbox.fields import is_below
from appbox.locked import Locked
from appbox.oci.rootfs import RootfsFacts
from appbox.oci.runtime_spec import Mount
from appbox.store import paths
from appbox.units.model import PATH, Scratch
from appbox.volumes import VolumeSpec

SCRATCH: Final = {"/run": "run", "/tmp": "tmp", "/var/tmp": "var-tmp"}  # noqa: S108 - names in the container
"""What can be written to although the root file system cannot, and what it is called in `.live`."""

MOUNT_POINTS: Final = "mountpoints"
"""The file of a generation that lists where the runtime mounts: the run script looks there for planted symlinks."""

_RUNTIMES_OWN: Final = ("dev/", "proc/", "sys/")


def wanted_nodes(locked: Locked) -> tuple[str, ...]:
    """Return the paths of the rootfs whose nodes `scratch` asks for."""
    return tuple(SCRATCH) if locked.manifest.security.rootfs == "read-only" else ()


def scratch(locked: Locked, found: Iterable[VolumeSpec], rootfs: RootfsFacts | None) -> tuple[Scratch, ...]:
    """Return the directories of a read-only root file system that can be written to; a volume takes the place of one.

    Raises Refused when the image has a link in the place of one that leads to where no directory can be.
    """
    if locked.manifest.security.rootfs != "read-only":
        return ()
    targets = [volume.target for volume in found]
    places: dict[str, Scratch] = {}
    for path, name in SCRATCH.items():
        node = volumes.resolve(path, rootfs)
        place = node.path if node else path
        if place in places or any(is_below(place, target) for target in targets):
            continue
        volumes.refuse_kind(locked, path, node, "directory")
        if not PATH.fullmatch(place):
            raise Refused(
                f"the image makes {path} a link to {place}",
                where=locked.image.reference,
                hint=f"put a volume at {path}",
            )
        places[place] = Scratch(name, place)
    return tuple(places.values())


def mounts(bundle: str, places: Iterable[Scratch]) -> Iterator[Mount]:
    """Yield the mounts of what `scratch` returned; `bundle` is the version's directory."""
    for place in places:
        yield Mount(place.path, f"{bundle}/{paths.LIVE}/{place.name}", "", ("rbind", "nosuid", "nodev", "rw"))


def mount_points(found: Iterable[Mount]) -> bytes:
    """Return the file that lists where a container has mounts, relative to its root; a directory ends in a slash."""
    own = sorted(mount.destination.removeprefix("/") for mount in found)
    return "".join(f"{place}\n" for place in (*_RUNTIMES_OWN, *own)).encode()


def notes(locked: Locked, bundle: str, places: tuple[Scratch, ...]) -> Iterator[str]:
    """Yield what the operator should know of where the service's writes go."""
    match locked.manifest.security.rootfs:
        case "persistent":
            yield (
                f"what it writes outside its volumes stays in {bundle}/{paths.UPPER}; another version or digest of the "
                "image begins without it"
            )
        case "read-only":
            listed = " and ".join(place.path for place in places) or "nothing"
            yield (
                f"outside its volumes it can write to {listed} only, in memory and anew at each start; "
                f"appbox writes --suggest {locked.manifest.name} tells from a start with an overlay what else it needs"
            )
