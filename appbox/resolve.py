"""From manifests to locked ones: images down to their digests. Reads registries, layouts and volumes' paths.

Inert on the host: what it fetches, manifests and configurations of images, goes into the cache and nowhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appbox import owner, policy
from appbox.admission import Demands, Policies
from appbox.errors import AppboxError, Missing, Refused, Unavailable
from appbox.host import borrow, mounts, trusted
from appbox.host.facts import IdRange
from appbox.host.trusted import Place
from appbox.locked import HostSource, Locked
from appbox.oci import model, source
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.held import Held
from appbox.oci.image_config import parse_config
from appbox.oci.model import Image, Platform
from appbox.oci.reference import ImageName, RegistryImage, parse_image
from appbox.oci.settings import Settings, Timing
from appbox.oci.source import Source
from appbox.policy import Demand, Signer
from appbox.sources import Loaded
from appbox.store import files, kept_image, paths
from appbox.store.installed import Installed
from appbox.store.root import Root
from appbox.tables import Manifest

_DOCUMENT_LIMIT = 4 << 20


HURRY: Final = Timing(connect=3.0, read=10.0, tries=1)
"""How patient a plan is with a registry that it can do without."""

_AT_ONCE: Final = 8
"""Images that are looked up at a time."""


def open_image(loaded: Loaded, cache: Cache, settings: Settings | None = None) -> Source:
    """Open the source of a manifest's image; a relative path of it starts at the manifest."""
    return source.open_source(parse_image(loaded.manifest.image), cache, base_dir=loaded.folder, settings=settings)


@dataclass(frozen=True, slots=True)
class Found:
    """An image and who signed it, one for each policy that wants a signature."""

    image: Image
    signers: tuple[Signer, ...] = ()


class Images:
    """The images of one run: each reference is looked up once, and a registry that did not answer is not asked again.

    `policies` are those of the host. With `watching` it is looked up, too, whether locked tags have moved. `silent`
    maps registries to why they did not answer, `notes` services to what somebody should know about their locks.
    """

    def __init__(self, cache: Cache, platform: Platform, policies: Policies, *, watching: bool = True) -> None:
        self._watching = watching
        self._cache, self._platform, self._policies = cache, platform, policies
        self._known: dict[tuple[str, str, str | None], Found] = {}
        self._means: dict[tuple[str, str], Digest | None] = {}
        self._failed: dict[tuple[str, str, str | None], AppboxError] = {}
        self.silent: dict[str, str] = {}
        self.notes: dict[str, list[str]] = {}

    def told(self) -> dict[str, list[str]]:
        """Return the notes of the services that have any."""
        return {name: notes for name, notes in self.notes.items() if notes}

    def said(self, service: str) -> bool:
        """Return whether there is anything to be said of a service's image."""
        return bool(self.notes.get(service))

    def ask_ahead(self, wanted: Iterable[tuple[Loaded, Found | None]]) -> None:
        """Look up the images of registries side by side, each once; what fails is raised when `look_up` comes to it.

        `wanted` are manifests and their images as `look_up` has them. With 50 ms to a registry a hundred images would
        take 5 seconds one after the other.
        """
        found = {_key(one): (one, installed) for one, installed in wanted if _asks(one, installed)}
        if len(found) > 1:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # 4 ms, and most plans ask nobody

            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="image") as pool:
                list(pool.map(self._look_ahead, found.values()))
        else:
            # Also a single one: two processes that plan would both ask for it.
            list(map(self._look_ahead, found.values()))

    def _look_ahead(self, wanted: tuple[Loaded, Found | None]) -> None:
        try:
            self.look_up(*wanted)
        except AppboxError as error:
            self._failed[_key(wanted[0])] = error

    def look_up(self, loaded: Loaded, installed: Found | None) -> Found:
        """Return the image of a manifest: what is pinned, what its tag means now, or meant when it was installed.

        `installed` is the image of the version that is on the host, if the manifest names the same one. It does for a
        registry that does not answer, and where its digest is pinned, by the manifest or the lock. Raises Unavailable,
        or Refused, also for an installed image that does not satisfy what the policies demand by now.
        """
        name = parse_image(loaded.manifest.image)
        pinned = loaded.digest is not None
        demands = self._policies.demands(name, pinned=pinned, base_dir=loaded.folder, more=own_demands(loaded))
        self.notes[loaded.manifest.name] = [*self._moved(loaded, name), *([loaded.note] if loaded.note else [])]
        if installed is not None and isinstance(name, RegistryImage) and (pinned or name.registry in self.silent):
            return self._again(loaded, installed.image, installed.signers, demands)
        key = _key(loaded)
        if (known := self._known.get(key)) is not None:
            return self._again(loaded, known.image, known.signers + _signers_then(installed, known.image), demands)
        try:
            if key in self._failed:
                raise self._failed[key]
            self._known[key] = self._ask(loaded, installed, demands)
        except Unavailable as error:
            if installed is None or not isinstance(name, RegistryImage):
                raise
            self.silent[name.registry] = error.why or error.what
            return self._again(loaded, installed.image, installed.signers, demands)
        return self._known[key]

    def _ask(self, loaded: Loaded, installed: Found | None, demands: Demands) -> Found:
        digest = Digest.parse(loaded.digest) if loaded.digest else None
        held = Held(self._cache)
        with self._open(loaded, held, hurry=installed is not None) as opened:
            image = _resolved(loaded, opened, digest, self._platform)
            signers = demands.recorded(_signers_then(installed, image), _digests(image))
            if signers is None:
                signers = demands.verify(opened, image.reference, _digests(image), self._cache)
        held.keep()
        return Found(image, signers)

    def _moved(self, loaded: Loaded, name: ImageName) -> Iterator[str]:
        """Say when a locked tag means another image by now; what does not answer is not waited for again."""
        if not _watched(loaded) or loaded.pin is None or not isinstance(name, RegistryImage) or not self._watching:
            return
        if name.registry in self.silent:
            return
        key = (str(name), loaded.manifest.version)
        if key not in self._means:
            try:
                with self._open(loaded, self._cache, hurry=True) as opened:
                    self._means[key] = means(opened, loaded.manifest.version)
            except Missing:
                self._means[key] = None
            except Unavailable as error:
                self.silent[name.registry] = error.why or error.what
                return
            except AppboxError:
                self._means[key] = None  # what is pinned may not need that registry at all
        now = self._means[key]
        if now is not None and str(now) != loaded.pin.digest:
            yield (
                f"{name}:{key[1]} has moved: {short(loaded.pin.digest)} → {short(now)}; what is locked is used, and "
                f"appbox lock --update {loaded.manifest.name} takes the new one"
            )

    def _again(self, loaded: Loaded, image: Image, before: tuple[Signer, ...], demands: Demands) -> Found:
        """Return an image that was looked up before, with who signed it: these policies may demand more than those."""
        signers = demands.recorded(before, _digests(image))
        if signers is None:
            with self._open(loaded, self._cache, hurry=demands.name.partition("/")[0] in self.silent) as opened:
                signers = demands.verify(opened, image.reference, _digests(image), self._cache)
        return Found(image, signers)

    def _open(self, loaded: Loaded, cache: Cache, *, hurry: bool) -> Source:
        return open_image(loaded, cache, Settings(timing=HURRY) if hurry else None)


def _key(loaded: Loaded) -> tuple[str, str, str | None]:
    """Return what two manifests of the same image have in common."""
    name = parse_image(loaded.manifest.image)
    place = str(name) if isinstance(name, RegistryImage) else os.path.join(loaded.folder, str(name))
    return place, loaded.manifest.version, loaded.digest


def _asks(loaded: Loaded, installed: Found | None) -> bool:
    """Return whether a registry is asked for the image of a manifest."""
    known = installed is not None and loaded.digest is not None and not _watched(loaded)
    return not known and isinstance(parse_image(loaded.manifest.image), RegistryImage)


def _watched(loaded: Loaded) -> bool:
    """Return whether somebody should hear that the tag, which the lock has a digest of, means another image by now."""
    return loaded.pin is not None and not loaded.strict and not loaded.pin.offline


def _signers_then(installed: Found | None, image: Image) -> tuple[Signer, ...]:
    """Return who was found to have signed `image` when it was installed; () when another image was."""
    return installed.signers if installed is not None and installed.image.digest == image.digest else ()


def _digests(image: Image) -> tuple[Digest, ...]:
    """Return the digests of which one must be signed, the index's first: that is what cosign signs by default."""
    return tuple(digest for digest in (image.index_digest, image.digest) if digest is not None)


def means(opened: Source, tag: str) -> Digest | None:
    """Return what a tag of a registry means now; None when the registry does not say it in a HEAD."""
    from appbox.oci.pull import RegistrySource  # noqa: PLC0415  # httpx costs 70 ms

    return opened.said(tag) if isinstance(opened, RegistrySource) else None


def short(digest: Digest | str) -> str:
    """Return the beginning of a digest, enough to tell it from others."""
    return f"{str(digest)[:19]}…"


def _resolved(loaded: Loaded, opened: Source, digest: Digest | None, platform: Platform) -> Image:
    try:
        return opened.resolve(loaded.manifest.version, digest, platform)
    except Refused as error:
        if loaded.pin is None or loaded.manifest.digest or error.hint:
            raise
        hint = f"if that is meant to be so, appbox lock --update {loaded.manifest.name}"
        raise Refused(error.what, where=error.where, why=error.why, hint=hint) from error


def own_demands(loaded: Loaded) -> tuple[Demand, ...]:
    """Return what a manifest itself demands of its image."""
    table = loaded.manifest.policy
    own = Demand(loaded.document.file, table.registries, loaded.keys, table.signed_as or "", table.require_digest)
    return (own,) if table.model_fields_set else ()


def resolve(  # noqa: PLR0917
    loaded: Loaded,
    images: Images,
    root: Root,
    current: Installed | None,
    service: IdRange,
    given: Mapping[str, IdRange],
) -> Locked:
    """Return the manifest with its image and the paths of its volumes looked up.

    `current` is what is installed in the version's directory; `service` is the range of ids that the service has,
    `given` are those of all services.
    """
    installed = installed_image(loaded, root, current)
    found = images.look_up(loaded, installed)
    return Locked(
        manifest=loaded.manifest,
        document=loaded.document,
        image=found.image,
        configs=loaded.configs,
        sources=host_sources(loaded.manifest, root, service, given),
        signers=found.signers,
        borrowed=borrow.look_up(root, loaded.manifest, found.image.platform.architecture),
        encrypted=loaded.encrypted,
        kept=current is None or installed is not None or _is_kept(root, current, found.image),
    )


def _is_kept(root: Root, current: Installed, image: Image) -> bool:
    """Return whether a version has the documents of its image, which another one has not either."""
    if current.digest != str(image.digest):
        return True  # it is made anew, with them
    try:
        with root.directory(f"{paths.CONTAINERS}/{current.directory}") as bundle:
            return kept_image.same(bundle, image.manifest_bytes, image.config_bytes)
    except OSError:
        return False


def installed_image(loaded: Loaded, root: Root, current: Installed | None) -> Found | None:
    """Return the image of the installed version, if the manifest still names the same one."""
    name = parse_image(loaded.manifest.image)
    if current is None or not isinstance(name, RegistryImage):
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
    image = Image(
        reference=str(current.meta["image"]["reference"]),
        digest=digest,
        index_digest=Digest.parse(index) if index else None,
        platform=Platform.parse(str(current.meta["image"]["platform"])),
        manifest=manifest,
        config=config,
        manifest_bytes=manifest_bytes,
        config_bytes=config_bytes,
    )
    return Found(image, policy.signers_of(current.meta["image"]))


def _same_image(loaded: Loaded, name: RegistryImage, meta: Mapping[str, object]) -> bool:
    before = meta.get("manifest")
    image = meta.get("image")
    if not isinstance(before, dict) or not isinstance(image, dict):
        return False
    wanted = loaded.digest
    return (
        before.get("version") == loaded.manifest.version
        and str(before.get("image", "")) != ""
        and parse_image(str(before["image"])) == name
        and (wanted is None or wanted in {image.get("digest"), image.get("index")})
    )


def host_sources(
    manifest: Manifest, root: Root, service: IdRange, given: Mapping[str, IdRange]
) -> dict[str, HostSource | None]:
    """Return what is now at the paths of the host that a manifest's volumes name.

    `service` is its range of ids, `given` are those of all services by name.
    """
    paths_named = [volume.source for volume in manifest.volumes.values() if volume.source]
    others = [ids for name, ids in given.items() if name != manifest.name] if paths_named else []
    return {path: _host_source(root, path, service, others) for path in paths_named}


def _host_source(root: Root, path: str, service: IdRange, others: Sequence[IdRange]) -> HostSource | None:
    """Return what is at a volume's path on the host now, None when there is nothing; Refused for an unsafe path."""
    with trusted.walk(root.fd, path, service) as place:
        if place.found is None:
            if owner.current() is not None and not os.access(".", os.W_OK | os.X_OK, dir_fd=place.parent):
                raise Refused("is missing, and only root can make it", where=path, hint="take a place of your own")
            return None
        info = place.found
        directory = stat.S_ISDIR(info.st_mode)
        if owner.current() is not None:
            return _own_source(place, info)
        # An empty directory that another service has stays that one's.
        held = any(ids.base <= info.st_uid < ids.end for ids in others)
        empty = directory and not held and not set(_entries(place)) - {"lost+found"}
        theirs = not empty and not service.base <= info.st_uid < service.end
        kind = mounts.file_system(info.st_dev) if theirs and service.base else ""
        return HostSource(directory, empty, info.st_uid, info.st_gid, kind)


def _own_source(place: Place, info: os.stat_result) -> HostSource:
    """Return what an ordinary user's services find at a path of the host. What is another's counts as not empty."""
    own = place.whose.uid == info.st_uid
    if own:
        whose = f"{f'{info.st_uid}:{info.st_gid}' if info.st_uid else 'root'} of the service"
    else:
        whose = "root of the host" if place.whose.outside == 0 else f"the user id {place.whose.outside}"
    directory = stat.S_ISDIR(info.st_mode)
    empty = own and directory and not set(_entries(place)) - {"lost+found"}
    return HostSource(directory, empty, info.st_uid, info.st_gid, own=own, whose=whose)


def _entries(place: Place) -> list[str]:
    with files.directory(place.name, place.parent) as fd:
        return os.listdir(fd)
