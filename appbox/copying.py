"""`appbox image copy`: an image from one place to another, between registries, layouts and archives."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from appbox import admission
from appbox.errors import AppboxError, UsageError, printable
from appbox.oci import copy as copies
from appbox.oci import source as sources
from appbox.oci.cache import Cache
from appbox.oci.contents import contents
from appbox.oci.conversion import as_oci
from appbox.oci.copy import Tree, Watch
from appbox.oci.destination import open_destination
from appbox.oci.digest import Digest
from appbox.oci.docker_writer import refuse_existing
from appbox.oci.held import Held
from appbox.oci.model import INDEX_TYPES, Image, parse_config, parse_manifest
from appbox.oci.reference import DockerArchive, ImageRef, OciArchive, OciLayout, RegistryImage, parse_transport
from appbox.oci.source import Source
from appbox.progress import progress
from appbox.session import Options, cache_path, wanted_platform


@dataclass(frozen=True, slots=True)
class Request:
    """What to copy, and how. `platform` "": this host's; `every`: all platforms, and whatever else an index lists."""

    source: ImageRef
    destination: ImageRef
    platform: str = ""
    every: bool = False
    preserve_digests: bool = False
    chunked: bool = False
    policy: str | None = None


def request(source: str, destination: str, **how: Any) -> Request:
    """Return what the words of the command line ask for; raise `UsageError` for what cannot be, before any work."""
    asked = Request(parse_transport(source), parse_transport(destination), **how)
    target = asked.destination.image
    if asked.every and asked.platform:
        raise UsageError("--all and --platform exclude each other", where="image copy")
    if isinstance(target, DockerArchive) and target.ref is not None and target.ref.startswith("@"):
        raise UsageError(
            "a new image is named, not numbered", where=destination, hint="write docker-archive:FILE:NAME:TAG"
        )
    if asked.chunked and not isinstance(target, RegistryImage):
        raise UsageError("--chunked is for registries", where=destination)
    if isinstance(target, DockerArchive) and asked.preserve_digests:
        why = "a docker-archive holds no manifest"
        hint = "use oci-archive:, or leave out --preserve-digests"
        raise AppboxError("the image's digest cannot be kept", where=destination, why=why, hint=hint)
    return asked


def copy(options: Options, asked: Request) -> None:
    """Copy an image and say what was copied. Nothing is left of a copy that failed."""
    if isinstance(asked.destination.image, DockerArchive):
        refuse_existing(asked.destination.image.path)
    with options.open_root(services=False) as root:
        pinned = asked.source.digest is not None
        demands = admission.load(root, asked.policy).demands(asked.source.image, pinned=pinned)
        cache = Cache(cache_path(root))
    held = Held(cache)
    with sources.open_source(asked.source, held) as source, progress(options) as shown:
        if asked.every:
            top = source.top(asked.source.tag, asked.source.digest)
            demands.verify(source, str(asked.source), (top.digest,), cache)
            tree, image = copies.tree_of(source, top), None
            held.keep()
        else:
            wanted = wanted_platform(asked.platform)
            image = source.resolve(asked.source.tag, asked.source.digest, wanted)
            demands.verify(source, image.reference, (image.index_digest, image.digest), cache)
            held.keep()
            tree = copies.tree_of_image(image)
        fetched = isinstance(asked.source.image, RegistryImage)
        sent = isinstance(asked.destination.image, RegistryImage)
        watch = Watch(near=shown if fetched else None, far=shown if sent or not fetched else None)
        try:
            data = _write(asked, source, tree, image, watch)
        except OSError as error:
            raise _in_words(error, asked) from error
    said = f"{asked.destination}: {image.reference if image else asked.source} {data['digest']}"
    if data["digest"] != data["source_digest"]:
        how = "under a tag it has a sha256 digest" if sent else "with OCI's media types"
        said += f", {how}; its own was {data['source_digest']}"
    options.result(data, "" if options.verbosity < 0 else printable(said + "\n"))


def _write(asked: Request, source: Source, tree: Tree, image: Image | None, watch: Watch) -> dict[str, Any]:
    """Do the copy, and return what is to be said of it; sizes in bytes."""
    target, original = asked.destination.image, tree.top.digest
    algorithm = _algorithm(asked, original)
    if isinstance(target, OciLayout | OciArchive) and not asked.preserve_digests:
        tree = Tree(as_oci(tree.documents), tree.blobs)
    top = tree.top
    data: dict[str, Any] = {
        "source": str(asked.source),
        "destination": str(asked.destination),
        "digest": str(Digest.of(top.data, algorithm)),
        "source_digest": str(original),
        "media_type": top.media_type,
        "manifests": len(tree.documents),
        "blobs": len(tree.blobs),
    }
    if isinstance(target, DockerArchive):
        image = image or _only_image(asked, source, tree)
        copies.copy_to_docker_archive(source, image, target.path, target.ref, watch)
        copied = list(tree.blobs)
    else:
        neighbour = asked.source.image if isinstance(asked.source.image, RegistryImage) else None
        with open_destination(asked.destination, neighbour=neighbour, chunked=asked.chunked) as destination:
            copied = copies.copy_tree(source, tree, destination, watch)
    return {**data, "copied": len(copied), "size": sum(blob.size for blob in copied)}


def _algorithm(asked: Request, digest: Digest) -> str:
    """Return by what kind of digest the destination knows the image; a registry gives tags sha256 digests only.

    Raises AppboxError when the image's own one is to be preserved and cannot be.
    """
    target = asked.destination
    if not isinstance(target.image, RegistryImage) or target.digest is not None or digest.algorithm == "sha256":
        return digest.algorithm
    if asked.preserve_digests:
        what = f"the image cannot keep its digest {digest.algorithm}:{digest.hex[:12]}… under a tag"
        hint = f"name the digest: docker://{target.image}@{digest}, or leave out --preserve-digests"
        raise AppboxError(what, where=str(target), why="registries give tags sha256 digests", hint=hint)
    return "sha256"


def _only_image(asked: Request, source: Source, tree: Tree) -> Image:
    """Return the image behind --all for a destination that holds one."""
    if tree.top.media_type in INDEX_TYPES:
        count = len(contents(tree.top.data, tree.top.media_type).entries)
        hint = "leave out --all, or use oci-archive:"
        why = f"a docker-archive holds one platform, the image has {count} entries"
        raise AppboxError("cannot hold the whole image", where=str(asked.destination), why=why, hint=hint)
    digest, platform = tree.top.digest, parse_config(source.entry(parse_manifest(tree.top.data).config)).platform
    return source.resolve(asked.source.tag, asked.source.digest or digest, platform)


def _in_words(error: OSError, asked: Request) -> AppboxError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "make room and run the same command again" if full else ""
    why = error.strerror or str(error)
    return AppboxError("the image cannot be copied", where=str(asked.destination), why=why, hint=hint)
