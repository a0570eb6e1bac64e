"""From manifests to locked ones: images down to their digests. Reads registries, layouts and volumes' paths.

Inert on the host: what it fetches, manifests and configurations of images, goes into the cache and nowhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from appbox.errors import AppboxError
from appbox.host.facts import Facts
from appbox.locked import HostSource, Locked
from appbox.oci import model, source
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.image_config import parse_config
from appbox.oci.model import Image
from appbox.oci.reference import OciArchive, OciLayout, RegistryImage, parse_image
from appbox.oci.source import Source
from appbox.sources import Loaded
from appbox.store import files, paths
from appbox.store.installed import Installed
from appbox.store.root import Root

_DOCUMENT_LIMIT = 4 << 20


def open_image(loaded: Loaded, cache: Cache) -> Source:
    """Open the source of a manifest's image; a relative path of it starts at the manifest."""
    return source.open_source(parse_image(loaded.manifest.image), cache, base_dir=loaded.folder)


def resolve(loaded: Loaded, facts: Facts, cache: Cache, root: Root, current: Installed | None) -> Locked:
    """Return the manifest with its image looked up.

    A registry is not asked again for a version that is installed: its tag, platform and digest are those of the bundle.
    Layouts and archives are always looked at, since that costs nothing.
    """
    image = _installed_image(loaded, root, current)
    if image is None:
        with open_image(loaded, cache) as opened:
            digest = Digest.parse(loaded.manifest.digest) if loaded.manifest.digest else None
            image = opened.resolve(loaded.manifest.version, digest, facts.platform)
    sources = {v.source: _host_source(root, v.source) for v in loaded.manifest.volumes.values() if v.source}
    return Locked(loaded.manifest, loaded.document, image, loaded.configs, sources)


def _installed_image(loaded: Loaded, root: Root, current: Installed | None) -> Image | None:
    """Return the image of the installed version, if the manifest still names the same one."""
    name = parse_image(loaded.manifest.image)
    if current is None or current.problem or isinstance(name, OciLayout | OciArchive):
        return None
    if not _same_image(loaded, name, current.meta):
        return None
    try:
        with (
            root.directory(paths.CONTAINERS) as containers,
            files.directory(f"{current.directory}/{paths.IMAGE}", containers) as fd,
        ):
            manifest_bytes = files.read("manifest.json", _DOCUMENT_LIMIT, fd)
            config_bytes = files.read("config.json", _DOCUMENT_LIMIT, fd)
        digest = Digest.parse(current.digest)
        manifest = model.parse_manifest(manifest_bytes)
    except (OSError, AppboxError):
        return None
    if not digest.matches(manifest_bytes) or not manifest.config.digest.matches(config_bytes):
        return None
    index = str(current.meta["image"].get("index", ""))
    config = parse_config(config_bytes)
    return Image(
        reference=str(current.meta["image"]["reference"]),
        digest=digest,
        index_digest=Digest.parse(index) if index else None,
        platform=config.platform,
        manifest=manifest,
        config=config,
        manifest_bytes=manifest_bytes,
        config_bytes=config_bytes,
    )


def _same_image(loaded: Loaded, name: RegistryImage, meta: Mapping[str, object]) -> bool:
    before = meta.get("manifest")
    image = meta.get("image")
    if not isinstance(before, dict) or not isinstance(image, dict):
        return False
    wanted = loaded.manifest.digest
    return (
        before.get("version") == loaded.manifest.version
        and str(before.get("image", "")) != ""
        and parse_image(str(before["image"])) == name
        and (wanted is None or wanted in {image.get("digest"), image.get("index")})
    )


def _host_source(root: Root, path: str) -> HostSource | None:
    """Return what is at a volume's path on the host now, None when there is nothing."""
    try:
        fd = root.open(path, os.O_PATH)
    except FileNotFoundError as error:
        if root.exists(path):
            hint = "make the directory that it names, or remove the link"
            raise AppboxError("the volume's source is a link to nothing", where=path, hint=hint) from error
        return None
    try:
        info = os.fstat(fd)
        directory = stat.S_ISDIR(info.st_mode)
        empty = directory and not set(os.listdir(f"/proc/self/fd/{fd}")) - {"lost+found"}
        return HostSource(directory, empty, info.st_uid, info.st_gid)
    finally:
        os.close(fd)
