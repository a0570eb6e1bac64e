"""`appbox image …`: images without services."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appbox import image_limits, owner
from appbox.errors import AppboxError, Locked, UsageError, printable
from appbox.host.inside import remove_tree
from appbox.layers import unpack_image
from appbox.oci import source as sources
from appbox.oci.cache import Cache
from appbox.oci.held import Held
from appbox.oci.ids import IdMap
from appbox.oci.limits import Limits
from appbox.oci.model import Image, Platform
from appbox.oci.reference import ImageRef, parse_transport
from appbox.progress import progress
from appbox.session import Options, cache_path, require_root_user, wanted_platform
from appbox.store import files, paths
from appbox.store.root import Root

if TYPE_CHECKING:
    from appbox.admission import Demands

_MAP_LIMIT = 2**32 - 1
"""The id -1 means "leave it" to chown(2)."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An image as the command line names it, and what policies demand of it."""

    reference: ImageRef
    platform: Platform
    demands: Demands | None
    limits: Limits


def unpack(
    options: Options, text: str, directory: str, *, id_map: str, platform: str, policy: str | None = None
) -> None:
    """Unpack an image to a new directory, by one rename; nothing is left of a refused one."""
    require_root_user("appbox image unpack")
    idmap = _parse_map(id_map)
    place = os.path.abspath(directory)
    parent, name = os.path.realpath(os.path.dirname(place)), os.path.basename(place)
    if not name:
        raise UsageError("the root of the system cannot be unpacked to", where=directory)
    reference = parse_transport(text)
    with options.open_root() as root:
        demands = _demands(root, policy, reference)
        cache, limits = Cache(cache_path(root)), image_limits.load(root)
    wanted = _Wanted(reference, wanted_platform(platform), demands, limits)
    with files.directory(parent) as folder:
        _refuse_occupied(folder, name, directory)
        temporary = f".{name}{files.TEMPORARY}"
        with _staged(folder, temporary, directory) as fd:
            image = _unpack_to(options, cache, wanted, idmap, fd)
            _publish(folder, temporary, name, directory)
    data = {"directory": directory, "reference": image.reference, "digest": str(image.digest)}
    options.result(data, "" if options.verbosity < 0 else printable(f"{directory}: {image.reference} {image.digest}\n"))


def _demands(root: Root, policy: str | None, reference: ImageRef) -> Demands | None:
    """Return what policies demand of the image; None on a host without any, which then need not load their modules."""
    if policy is None and not root.exists(os.path.dirname(paths.POLICY)):
        return None
    from appbox import admission  # noqa: PLC0415

    return admission.load(root, policy).demands(reference.image, pinned=reference.digest is not None)


def _unpack_to(options: Options, cache: Cache, wanted: _Wanted, idmap: IdMap, fd: int) -> Image:
    held, reference = Held(cache), wanted.reference
    with sources.open_source(reference, held) as source:
        image = source.resolve(reference.tag, reference.digest, wanted.platform)
        if wanted.demands is not None:
            wanted.demands.verify(source, image.reference, (image.index_digest, image.digest), cache)
        held.keep()
        with progress(options) as shown:
            unpack_image(source, image, fd, idmap, progress=shown, limits=wanted.limits)
    return image


@contextlib.contextmanager
def _staged(folder: int, temporary: str, directory: str) -> Iterator[int]:
    """Make the temporary directory, locked, and remove it in the end if it still is there.

    What a killed run left is removed first. Raises `Locked` while another one unpacks to the same place: without that
    one of the two would publish what the other has only begun.
    """
    if files.exists(temporary, folder):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), files.directory(temporary, folder) as fd:
            _lock(fd, directory)
            remove_tree(folder, temporary)
        remove_tree(folder, temporary)  # what is no directory
    os.mkdir(temporary, 0o700, dir_fd=folder)
    with files.directory(temporary, folder) as fd:
        _lock(fd, directory)
        if not _is(fd, temporary, folder):
            raise _locked(directory)
        try:
            yield fd
        finally:
            if _is(fd, temporary, folder):
                remove_tree(folder, temporary)


def _lock(fd: int, directory: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _locked(directory) from error


def _locked(directory: str) -> Locked:
    return Locked("another appbox unpacks to this directory", where=directory, hint="wait for it")


def _is(fd: int, name: str, folder: int) -> bool:
    """Tell whether the open directory has the name."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(name, dir_fd=folder))
    except FileNotFoundError:
        return False


def _publish(folder: int, temporary: str, name: str, directory: str) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _mounted(directory) from error
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _occupied(directory) from error  # since it was looked at
        raise
    os.fsync(folder)


def _refuse_occupied(folder: int, name: str, directory: str) -> None:
    """Refuse to write over anything; an empty directory is taken as a new one."""
    if not files.exists(name, folder):
        return
    try:
        with files.directory(name, folder) as fd:
            if not os.listdir(fd):
                if os.fstat(fd).st_dev != os.fstat(folder).st_dev:
                    raise _mounted(directory)
                return
    except OSError:
        pass
    raise _occupied(directory)


def _occupied(directory: str) -> AppboxError:
    return AppboxError("is there already", where=directory, hint="name a new directory")


def _mounted(directory: str) -> AppboxError:
    why = "a file system is mounted there, and an image appears by one rename"
    return AppboxError("cannot be replaced", where=directory, why=why, hint="name a new directory below it")


def _parse_map(text: str) -> IdMap:
    if not text:
        own = owner.current()
        return IdMap(0, 65536 if own is None else min(own.count, 65536))
    parts = text.split(":")
    numbers = [int(p) for p in parts if p.isascii() and p.isdigit() and len(p) <= 10]
    if len(numbers) != 2 or len(parts) != 2 or numbers[1] < 1 or sum(numbers) > _MAP_LIMIT:
        raise UsageError(f"{text!r} is no range of ids", where="--map", hint="write BASE:SIZE, as in 200000:65536")
    return IdMap(numbers[0], numbers[1])
