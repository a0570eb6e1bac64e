"""The volumes of a service: where each is, what it is mounted on, whom it belongs to. Pure.

Every VOLUME of the image gets a place that outlives the container, whether the manifest names it or not; one below a
volume of the manifest is already in such a place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from appbox.errors import Refused
from appbox.fields import BadValueError, is_below, target
from appbox.locked import Locked
from appbox.oci import users
from appbox.oci.rootfs import Node, RootfsFacts
from appbox.oci.runtime_spec import Mount
from appbox.oci.users import User
from appbox.store import paths
from appbox.toml_source import Path

_KINDS: Final = {
    "directory": "a directory",
    "file": "a file",
    "other": "a special file",
    "below a file": "a file above",
}

IMAGE_VOLUMES: Final = 100
"""VOLUMEs of one image; the runtime cannot be told of some thousands of mounts."""

_NAME: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume.

    `source` is a path of the host ("" for a tmpfs); `target` is the path in the container, symlinks resolved once the
    rootfs is known. `owner` is in container ids, None while unknown; `mode` is that of a directory to be made.
    `make`: nothing is at its place yet; `take`: at a host path is an empty directory, to get the owner and the seed.
    """

    name: str
    kind: Literal["data", "host", "tmpfs"]
    source: str
    target: str
    owner: tuple[int, int] | None
    mode: int
    seed: bool
    read_only: bool
    make: bool
    take: bool
    reason: str
    size: int | None = None

    def mount(self) -> Mount:
        """Return the mount that brings the volume into the container."""
        if self.kind == "tmpfs":
            uid, gid = self.owner or (0, 0)
            options = ["nosuid", "nodev", f"mode={self.mode:o}", f"uid={uid}", f"gid={gid}"]
            options += [f"size={self.size}"] if self.size else []
            return Mount(self.target, "tmpfs", "tmpfs", (*options, *(["ro"] if self.read_only else [])))
        # `ro` alone would leave writable what is mounted below the source on the host.
        options = ["rbind", "nosuid", "nodev", *(["rro", "ro"] if self.read_only else ["rw"])]
        return Mount(self.target, self.source, "", tuple(options))


def build(locked: Locked, bundle: str, user: User | None, rootfs: RootfsFacts | None) -> tuple[VolumeSpec, ...]:
    """Return the volumes of a service, sorted by target, so that nested ones are mounted after those around them.

    `bundle` is the version's directory; `user` is whom the process starts as. Both are None before the unpacking.
    """
    found = [*_of_manifest(locked, bundle, user, rootfs), *_of_image(locked, bundle, user, rootfs)]
    targets = [volume.target for volume in found]
    for volume in found:
        if targets.count(volume.target) > 1:
            raise locked.refuse(("volumes", volume.name, "path"), f"another volume is at {volume.target} too")
    return tuple(sorted(found, key=lambda volume: volume.target.split("/")))


def _of_manifest(locked: Locked, bundle: str, user: User | None, rootfs: RootfsFacts | None) -> Iterator[VolumeSpec]:
    for name, volume in locked.manifest.volumes.items():
        node = resolve(volume.path, rootfs)
        kind: Literal["data", "host", "tmpfs"] = "tmpfs" if volume.tmpfs else "host" if volume.source else "data"
        there = locked.sources.get(volume.source) if volume.source else None
        refuse_kind(locked, volume.path, node, "file" if there is not None and not there.directory else "directory")
        yield VolumeSpec(
            name=name,
            kind=kind,
            source="" if kind == "tmpfs" else volume.source or f"{bundle}/{paths.DATA}/{name}",
            target=node.path if node else volume.path,
            owner=_owner(locked, ("volumes", name, "owner"), volume.owner, node, user, rootfs),
            mode=_mode(volume.mode, node, kind),
            seed=kind != "tmpfs" and volume.seed == "if-empty",
            read_only=volume.read_only,
            make=kind == "data" or (kind == "host" and there is None),
            take=there is not None and there.directory and there.empty and there.own,
            reason="the manifest names it",
            size=volume.size,
        )


def _of_image(locked: Locked, bundle: str, user: User | None, rootfs: RootfsFacts | None) -> Iterator[VolumeSpec]:
    taken = dict.fromkeys(locked.manifest.volumes)
    covered = [volume.path for volume in locked.manifest.volumes.values()]
    if len(locked.image.config.volumes) > IMAGE_VOLUMES:
        raise Refused(f"the image has more than {IMAGE_VOLUMES} VOLUMEs", where=locked.image.reference)
    for path in sorted(locked.image.config.volumes):
        place = _image_path(path)
        if any(place == other or is_below(place, other) for other in covered):
            continue
        name = free_name(place, taken)
        taken[name] = None
        node = resolve(place, rootfs)
        refuse_kind(locked, place, node, "directory")
        yield VolumeSpec(
            name=name,
            kind="data",
            source=f"{bundle}/{paths.DATA}/{name}",
            target=node.path if node else place,
            owner=_image_owner(node, user, rootfs),
            mode=_mode(None, node, "data"),
            seed=True,
            read_only=False,
            make=True,
            take=False,
            reason=f"the image declares VOLUME {place}, which the manifest does not map",
        )


def _image_path(path: str) -> str:
    try:
        return target(path.rstrip("/"))
    except BadValueError as error:
        raise Refused(f"VOLUME {path!r} of the image cannot be mapped", why=str(error)) from error


def free_name(path: str, taken: Mapping[str, object]) -> str:
    """Return a name for a volume made of its path, as data/NAME in the bundle, that is none of `taken`."""
    base = _NAME.sub("-", path.lower()).strip("-")[:48] or "volume"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def resolve(path: str, rootfs: RootfsFacts | None) -> Node | None:
    """Return what a mount target leads to in the rootfs, None before the unpacking.

    Raises Refused when the image has a symlink there that leads to where the runtime's own mounts are.
    """
    found = node_at(path, rootfs)
    if found is None:
        return None
    try:
        target(found.path)
    except BadValueError as error:
        raise Refused(
            f"the image makes {path} a link to {found.path}", why=str(error), hint="choose another path"
        ) from error
    return found


def node_at(path: str, rootfs: RootfsFacts | None) -> Node | None:
    """Return what a path leads to in the rootfs, None before the unpacking."""
    return None if rootfs is None else rootfs.nodes.get(path) or Node(path, "missing")


def refuse_kind(locked: Locked, path: str, found: Node | None, wanted: Literal["directory", "file"]) -> None:
    """Raise when the image has something at a path that the runtime cannot put a directory or a file on.

    It would only fail at the start, when the version that ran before has already been stopped.
    """
    if found is None or found.kind in {wanted, "missing"} or (wanted == "file" and found.kind == "other"):
        return
    raise Refused(
        f"the image has {_KINDS[found.kind]} at {found.path}, where the service needs a {wanted}",
        where=locked.image.reference,
        hint=f"choose another path than {path}",
    )


def _owner(  # noqa: PLR0917
    locked: Locked, key: Path, owner: str, node: Node | None, user: User | None, rootfs: RootfsFacts | None
) -> tuple[int, int] | None:
    return _image_owner(node, user, rootfs) if owner == "image" else lookup(locked, key, owner, rootfs)


def _image_owner(node: Node | None, user: User | None, rootfs: RootfsFacts | None) -> tuple[int, int] | None:
    """Return whom the image has the directory belong to; whom the process starts as where it has none."""
    if rootfs is None or user is None:
        return None
    if node is not None and node.kind == "directory":
        return node.uid, node.gid
    return user.uid, user.gid


def lookup(locked: Locked, key: Path, owner: str, rootfs: RootfsFacts | None) -> tuple[int, int] | None:
    """Return the ids of `NAME`, `UID`, `NAME:GROUP`…, None while the image's own tables are not known.

    `key` is where the manifest says it; ManifestError when the image does not know the name.
    """
    if rootfs is None:
        parts = owner.split(":")
        return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(p.isdigit() for p in parts) else None
    try:
        found = users.lookup(owner, rootfs.passwd, rootfs.group)
    except Refused as error:
        raise locked.refuse(key, error.what, error.why) from error
    return found.uid, found.gid


def _mode(mode: int | None, node: Node | None, kind: str) -> int:
    if mode is not None:
        return mode
    if node is not None and node.kind == "directory":
        return node.mode & 0o1777
    return 0o1777 if kind == "tmpfs" else 0o755
