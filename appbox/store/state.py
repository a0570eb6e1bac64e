"""What is installed, read from the bundles themselves. It only reads."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from appbox.errors import AppboxError
from appbox.store import files, paths
from appbox.store.installed import GONE, REMOVED, Installed, Stored, misshapen
from appbox.store.root import Root

_FILE_LIMIT = 16 << 20
"""Bytes read of any one file of a generation; appbox never writes a larger one."""

_UNANSWERED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing about a file, which can be read the next time."""


def names(root: Root) -> list[str]:
    """Return the names of the installed services, sorted."""
    try:
        with root.directory(paths.CONTAINERS) as containers:
            entries = os.listdir(containers)
            return sorted(n for n in entries if not n.startswith(".") and is_current_link(n, containers))
    except FileNotFoundError:
        return []


def is_current_link(name: str, containers: int) -> bool:
    """Return whether `name` is a symlink to a version directory of that service beside it."""
    target = files.link_target(name, containers)
    return target is not None and "/" not in target and target.startswith(f"{name}-")


def load(root: Root, name: str) -> Installed | None:
    """Return the current version of a service, or None when it is not installed."""
    try:
        with root.directory(paths.CONTAINERS) as containers:
            if not is_current_link(name, containers):
                return None
            target = files.link_target(name, containers) or ""
            found = load_version(containers, name, target)
            return found or Installed(name, target[len(name) + 1 :], target, 0, {}, problem=GONE)
    except FileNotFoundError:
        return None


def load_version(containers: int, name: str, directory: str) -> Installed | None:
    """Return what is in a version directory of a service, or None when there is none.

    Raises AppboxError when the directory is not the service's: `a-1` with version `2` may not take `a`'s `1-2`.
    """
    try:
        with files.directory(directory, containers) as bundle:
            return _load(name, directory, bundle)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise foreign(directory, "it is not a directory") from error
        raise


def foreign(directory: str, why: str) -> AppboxError:
    """Return the error for a directory that belongs to somebody else."""
    where = f"{paths.CONTAINERS}/{directory}"
    return AppboxError("the directory is taken", where=where, why=why, hint="choose another name, or move it away")


def _load(name: str, directory: str, bundle: int) -> Installed:
    version = directory[len(name) + 1 :]
    generation = current_generation(bundle)
    carry = bundle_carry(bundle)
    if carry and files.exists(paths.DATA, bundle):
        carry = directory  # it has come, and only the note is still there
    meta: dict[str, Any] = {}
    try:
        if not generation:
            meta = read_meta(bundle)
            problem = REMOVED
        else:
            with files.directory(f"{paths.GENERATIONS}/{generation}", bundle) as fd:
                meta, problem = read_meta(fd), ""
    except (OSError, AppboxError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _UNANSWERED:
            raise
        problem = f"has a bundle.toml that cannot be read ({_in_words(error)})"
    if meta and (meta.get("name") != name or meta.get("version") != version):
        raise foreign(directory, f"it is {meta.get('name')} {meta.get('version')}")
    if not problem:
        problem = damage(bundle, meta)
    if problem:
        if not meta and not looks_like_bundle(bundle) and os.listdir(bundle):
            raise foreign(directory, "it was not made by appbox")
        return Installed(name, version, directory, generation, meta, problem=problem, carry=carry)
    with files.directory(f"{paths.GENERATIONS}/{generation}", bundle) as fd:
        stored = dict(_walk(fd, ""))
    visible = meta["visible"] if isinstance(meta.get("visible"), int) else 0
    return Installed(
        name,
        version,
        directory,
        generation,
        meta,
        stored,
        carry=carry,
        written=written(bundle, generation, meta.get("effective", generation)),
        visible=visible,
        visible_written=written(bundle, generation, visible) if visible else 0,
        moved=files.link_target(paths.SOURCE, bundle) or "",
    )


def _in_words(error: OSError | AppboxError | ValueError) -> str:
    if isinstance(error, AppboxError):
        return error.what
    return error.strerror or "unreadable" if isinstance(error, OSError) else str(error)


def _suppressed() -> contextlib.suppress:
    """Return what makes a loop end at a folder that is not there, or is none."""
    return contextlib.suppress(FileNotFoundError, NotADirectoryError)


def version_directories(containers: int, service: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every version directory, replaced ones included, with what its bundle.toml says ({} if nothing), sorted.

    With `service` only those that may be its own are read: a host may have a thousand others.
    """
    begin = f"{service}-" if service else ""
    for prefix in ("", f"{paths.REPLACED}/"):
        with _suppressed(), files.directory(prefix or ".", containers) as folder:
            for name in sorted(entry for entry in os.listdir(folder) if entry.startswith(begin)):
                if name.startswith(".") or not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
                    continue
                with files.directory(name, folder) as bundle:
                    yield f"{prefix}{name}", meta_of(bundle)


def generations(containers: int, name: str) -> list[tuple[str, list[int]]]:
    """Return the version directories of a service, replaced ones included, with the numbers of their generations.

    Both are sorted. One that was removed but for its data has none.
    """
    found = []
    for prefix in ("", f"{paths.REPLACED}/"):
        with _suppressed(), files.directory(prefix or ".", containers) as folder:
            for entry in sorted(one for one in os.listdir(folder) if one.startswith(f"{name}-")):
                if not stat.S_ISDIR(os.lstat(entry, dir_fd=folder).st_mode):
                    continue
                with files.directory(entry, folder) as bundle:
                    if meta_of(bundle).get("name") == name:
                        found.append((f"{prefix}{entry}", _numbers(bundle)))
    return found


def _numbers(bundle: int) -> list[int]:
    try:
        with files.directory(paths.GENERATIONS, bundle) as fd:
            return sorted(int(one) for one in os.listdir(fd) if one.isascii() and one.isdigit() and len(one) < 10)
    except (FileNotFoundError, NotADirectoryError):
        return []


def stored(containers: int, name: str, directory: str, generation: int) -> Installed:
    """Return one generation of a version, current or not; `directory` may be that of a replaced version.

    Raises AppboxError when it is not there, or cannot be read.
    """
    try:
        with files.directory(f"{directory}/{paths.GENERATIONS}/{generation}", containers) as fd:
            meta, found = read_meta(fd), dict(_walk(fd, ""))
    except (OSError, ValueError) as error:
        where = f"generation {generation} of {name}"
        raise AppboxError("cannot be read", where=where, why=str(error), hint="appbox history lists what is") from error
    version = str(meta["version"])
    if meta.get("name") != name:
        raise foreign(directory, f"it is {meta.get('name')} {version}")
    return Installed(name, version, paths.version_directory(name, version), generation, meta, found)


def meta_of(bundle: int) -> dict[str, Any]:
    """Return bundle.toml of an open version directory, also of a removed one; {} when it is none.

    Raises OSError when nobody can say: a version whose service is not known would be left behind by its removal, and
    its range of ids given to another one.
    """
    generation = current_generation(bundle)
    try:
        if not generation:
            return read_meta(bundle)
        with files.directory(f"{paths.GENERATIONS}/{generation}", bundle) as fd:
            return read_meta(fd)
    except OSError as error:
        if error.errno in _UNANSWERED or error.errno == errno.EIO:
            raise
        return {}
    except (AppboxError, ValueError):
        return {}


def damage(bundle: int, meta: Mapping[str, Any]) -> str:
    """Return what a version directory lacks without which it could not start, or could be got at; empty if nothing."""
    for name in paths.GENERATION_LINKS:
        if files.link_target(name, bundle) != f"{paths.CURRENT}/{name}":
            return f"has no link {name} any more"
    try:
        with files.directory(paths.ROOTFS, bundle) as rootfs:
            if not os.listdir(rootfs):
                return "has an empty rootfs"
        for name in ("upper", "work", "resolv.conf"):
            os.lstat(f"{paths.LIVE}/{name}", dir_fd=bundle)
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"lacks {os.path.basename(str(error.filename or paths.ROOTFS))}"
    info = os.fstat(bundle)
    mapped = meta.get("userns") is True
    if (info.st_uid, stat.S_IMODE(info.st_mode)) != (0, 0o710 if mapped else 0o700):
        return f"has the mode {stat.S_IMODE(info.st_mode):04o} and the owner {info.st_uid}, which are not its own"
    return ""


def looks_like_bundle(bundle: int) -> bool:
    """Return whether an open directory has the shape of a version directory, whatever bundle.toml says."""
    return files.link_target("run", bundle) == f"{paths.CURRENT}/run"


def written(bundle: int, generation: int, wanted: object) -> int:
    """Return when the generation `wanted` was written; 0 for one that is not there any more."""
    name = paths.CURRENT if wanted == generation else f"{paths.GENERATIONS}/{wanted}"
    try:
        return os.lstat(name, dir_fd=bundle).st_mtime_ns
    except FileNotFoundError:
        return 0


def bundle_carry(bundle: int) -> str:
    """Return the directory below the containers whose data is still to be moved to this bundle; empty for none."""
    target = files.link_target(paths.CARRY, bundle) or ""
    return target.removeprefix("../").removesuffix(f"/{paths.DATA}") if target.startswith("../") else ""


def bundle_writes(bundle: int) -> str:
    """Return the directory below the containers whose upper layer is still to be moved to this bundle; "" for none."""
    target = files.link_target(paths.WRITES, bundle) or ""
    return target.removeprefix("../").removesuffix(f"/{paths.UPPER}")


def has_writes(bundle: int) -> bool:
    """Return whether a bundle has an upper layer of its own that anything was written to."""
    try:
        with files.directory(paths.UPPER, bundle) as upper:
            return bool(os.listdir(upper))
    except (FileNotFoundError, NotADirectoryError):
        return False


def current_generation(bundle: int) -> int:
    """Return the number of the generation that a version directory's links lead to; 0 for none."""
    target = files.link_target(paths.CURRENT, bundle) or ""
    number = target.removeprefix(f"{paths.GENERATIONS}/")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0


def read_meta(generation: int) -> dict[str, Any]:
    """Return bundle.toml of an open generation directory; ValueError when it is none that appbox wrote."""
    try:
        meta = tomllib.loads(files.read("bundle.toml", _FILE_LIMIT, generation).decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if wrong := misshapen(meta):
        raise ValueError(f"{wrong} is not what appbox writes")
    return meta


def _walk(fd: int, prefix: str) -> list[tuple[str, Stored]]:
    """Return every file below an open directory as (relative path, file), sorted."""
    found: list[tuple[str, Stored]] = []
    for name in sorted(os.listdir(fd)):
        info = os.lstat(name, dir_fd=fd)
        path = f"{prefix}{name}"
        if stat.S_ISDIR(info.st_mode):
            with files.directory(name, fd) as child:
                found += _walk(child, f"{path}/")
        elif stat.S_ISREG(info.st_mode):
            data = files.read(name, _FILE_LIMIT, fd)
            found.append((path, Stored(data, stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid))))
        else:
            found.append((path, Stored(b"", -1, (info.st_uid, info.st_gid))))
    return found
