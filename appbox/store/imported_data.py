"""Data that comes from another host: put where that of a removed service is kept, from where `apply` takes it up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from appbox.errors import AppboxError
from appbox.host import syscalls
from appbox.host.facts import IdRange
from appbox.host.inside import remove_tree
from appbox.store import data_archive, files, paths, state
from appbox.store.root import Root


@dataclass(frozen=True, slots=True)
class Place:
    """Whose data it is going to be; `ids` are those of the service on this host."""

    name: str
    version: str
    ids: IdRange
    mapped: bool

    @property
    def directory(self) -> str:
        """The version's directory below the containers."""
        return paths.version_directory(self.name, self.version)

    def identity(self, sha256: str) -> bytes:
        """Return what bundle.toml says of a version that is not installed: whose its data is, and where it is from."""
        ids = f"uid_base = {self.ids.base}\nuid_size = {self.ids.size}\nuserns = true" if self.mapped else (
            "uid_base = 0\nuserns = false"
        )  # fmt: skip
        return f'name = "{self.name}"\nversion = "{self.version}"\n{ids}\nimported = "{sha256}"\n'.encode()


def refuse(root: Root, name: str, version: str, sha256: str) -> None:
    """Raise AppboxError when a service is installed or has data, unless that is the very data to be imported."""
    hint = f"import without its data (--no-data), or appbox remove --purge {name} first"
    if name in state.names(root):
        raise AppboxError("is installed, and keeps its own data", where=name, hint=hint)
    try:
        with root.directory(paths.CONTAINERS) as containers:
            for directory, meta in state.version_directories(containers):
                ours = meta.get("name") == name
                if ours and meta.get("imported") != sha256 and _has_data(containers, directory):
                    raise AppboxError("has data already", where=f"{paths.CONTAINERS}/{directory}", hint=hint)
                if not ours and directory == paths.version_directory(name, version):
                    raise state.foreign(directory, f"it is {meta.get('name') or 'not of appbox'}")
    except FileNotFoundError:
        return


def _has_data(containers: int, directory: str) -> bool:
    try:
        with files.directory(f"{directory}/{paths.DATA}", containers) as fd:
            return bool(os.listdir(fd))
    except (FileNotFoundError, NotADirectoryError):
        return False


def publish(root: Root, place: Place, sha256: str, data_format: str, blocks: Callable[[], Iterable[bytes]]) -> bool:
    """Make a version directory that has only data, whole and durable; return whether that was still to be done."""
    root.make(paths.CONTAINERS)
    with root.directory(paths.CONTAINERS) as containers:
        if _is_there(containers, place.directory, sha256):
            return False
        staging = f".{place.directory}{files.TEMPORARY}"
        remove_tree(containers, staging)
        try:
            os.mkdir(staging, 0o700, dir_fd=containers)
            with files.directory(staging, containers) as fd:
                _fill(fd, place, sha256, data_format, blocks())
                syscalls.syncfs(fd)
            syscalls.renameat2(containers, staging, containers, place.directory, syscalls.RENAME_NOREPLACE)
            os.fsync(containers)
        except OSError as error:
            why = error.strerror or str(error)
            raise AppboxError("its data cannot be written", where=place.name, why=why) from error
        finally:
            with contextlib.suppress(OSError):
                remove_tree(containers, staging)
    return True


def _is_there(containers: int, directory: str, sha256: str) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), files.directory(directory, containers) as fd:
        return state.meta_of(fd).get("imported") == sha256
    return False


def _fill(fd: int, place: Place, sha256: str, data_format: str, blocks: Iterable[bytes]) -> None:
    files.create("bundle.toml", place.identity(sha256), mode=0o644, dir_fd=fd, durable=False)
    os.mkdir(paths.DATA, 0o700, dir_fd=fd)
    with files.directory(paths.DATA, fd) as data:
        data_archive.write(blocks, data, place.ids)
        if data_format:
            files.create(paths.FORMAT, data_format.encode(), mode=0o600, dir_fd=data, durable=False)
        os.fchmod(data, 0o711)  # the mapped root has to get through
    os.fchown(fd, 0, place.ids.base if place.mapped else 0)
    os.fchmod(fd, 0o710 if place.mapped else 0o700)
