"""Snapshots of services' data: `/opt/containers/.snapshots/NAME/ID/{data/,snapshot.toml}`.

Whoever changes anything here holds the lock. What a killed command left is finished or removed by `sweep`, which every
command that writes begins with; nothing that was a service's data is ever removed by it:

- `.ID.appbox-tmp/data` is a snapshot that only lacks its name;
- `.ID.appbox-tmp/new` is either what is going to be restored, which has a note of that, or what has just been exchanged
  for it: the data that was there before;
- `.gone-…` is being deleted, because that was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from appbox import toml_text
from appbox.errors import AppboxError
from appbox.host import cow, syscalls
from appbox.host.inside import remove_tree
from appbox.store import clone, files, paths, state
from appbox.store.walk import measure

SNAPSHOTS: Final = paths.SNAPSHOTS
"""Inside the containers directory."""

TABLE: Final = "snapshot.toml"
RESTORED: Final = ".restored"
"""In a data directory: which snapshot it was restored from, and which one has what was there before."""

NO_DATA: Final = "has no data of its own"

_NEW: Final = "new"
_GONE: Final = ".gone-"
_ID: Final = re.compile(r"\A[0-9]{8}T[0-9]{6}Z(-[0-9]{1,6})?\Z")
_LIMIT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot. `taken` is RFC 3339; `why` a reason in words; `how` how it was made (`clone.How`, or "rename").

    `state` says what the service did meanwhile: stopped, paused or live. `uid_base` and `uid_size` are the range whose
    ids its files have; 0 without a user namespace. Sizes are -1 as long as nobody has measured.
    """

    service: str
    id: str
    taken: str = ""
    version: str = ""
    digest: str = ""
    generation: int = 0
    data_format: str = ""
    uid_base: int = 0
    uid_size: int = 0
    why: str = ""
    note: str = ""
    how: str = ""
    state: str = "stopped"
    scheduled: bool = False
    entries: int = -1
    apparent: int = -1
    allocated: int = -1
    problem: str = ""

    def as_text(self) -> bytes:
        """Return snapshot.toml."""
        return "".join(f"{key} = {toml_text.value(found)}\n" for key, found in self.as_dict().items()).encode()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {key: getattr(self, key) for key in self.__slots__ if key != "problem" or self.problem}


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted of a new snapshot: why, and what is noted in it."""

    why: str
    note: str = ""
    how: clone.How = "copy"
    state: str = "stopped"
    scheduled: bool = False


def take(containers: int, service: str, directory: str, order: Order, making: clone.Making = clone.USUAL) -> Snapshot:
    """Take a snapshot of the data in a version's directory; it is there whole and durable, or not at all."""
    with _data(containers, directory) as source, _shelf(containers, service) as shelf:
        found = _described(containers, service, directory, _free(shelf))
        found = replace(
            found,
            why=order.why,
            note=order.note,
            how=order.how,
            state=order.state,
            scheduled=order.scheduled,
        )
        with _begun(shelf, found) as place:
            clone.clone(source, place, paths.DATA, order.how, making)
            found = _measured(place, found)
            files.replace(TABLE, found.as_text(), mode=0o600, dir_fd=place)
            _publish(shelf, found.id)
    return found


def put_aside(containers: int, service: str, directory: str, why: str) -> Snapshot:
    """Make a snapshot of the data in a version's directory by a rename; the version has none afterwards."""
    with _data(containers, directory), _shelf(containers, service) as shelf:
        found = replace(_described(containers, service, directory, _free(shelf)), why=why, how="rename")
        with _begun(shelf, found) as place, files.directory(directory, containers) as bundle:
            try:
                os.rename(paths.DATA, paths.DATA, src_dir_fd=bundle, dst_dir_fd=place)
            except OSError as error:
                where = f"{paths.CONTAINERS}/{directory}/{paths.DATA}"
                raise AppboxError("cannot be put aside", where=where, why=error.strerror or "") from error
            os.fsync(bundle)
            os.fsync(place)
            _publish(shelf, found.id)
    return found


@dataclass(frozen=True, slots=True)
class Restoring:
    """A restore that is prepared: `id` of the snapshot that the present data becomes; "" where there is none."""

    service: str
    directory: str
    origin: str
    id: str
    aside: bool


def prepare(containers: int, chosen: Snapshot, directory: str, making: clone.Making = clone.USUAL) -> Restoring:
    """Clone a snapshot's data beside the present data of a version, which is still in use."""
    service = chosen.service
    with contextlib.ExitStack() as stack:
        shelf = stack.enter_context(_shelf(containers, service))
        source = stack.enter_context(files.directory(f"{chosen.id}/{paths.DATA}", shelf))
        aside = _present(containers, directory)
        number = _free(shelf)
        found = replace(
            _described(containers, service, directory, number),
            why=f"what was there before {chosen.id} was restored",
            how="rename",
        )
        place = _begin(shelf, found)
        stack.callback(os.close, place)
        try:
            with _data(containers, directory) if aside else contextlib.nullcontext(source) as like:
                wanted = cow.is_subvolume(like)

            def finish(fd: int) -> None:
                files.remove(paths.COPIED, dir_fd=fd)
                files.replace(RESTORED, f"{number} {chosen.id}\n".encode(), mode=0o600, dir_fd=fd)

            how = clone.can(source, place)
            clone.clone(source, place, _NEW, how, replace(making, subvolume=wanted, finish=finish))
        except BaseException:
            remove_tree(shelf, _temporary(number))
            raise
        os.fsync(shelf)
    return Restoring(service, directory, chosen.id, number, aside)


def commit(containers: int, prepared: Restoring) -> None:
    """Give a stopped service what was prepared, in one step; the data that was there becomes a snapshot."""
    temporary = _temporary(prepared.id)
    with (
        _shelf(containers, prepared.service) as shelf,
        files.directory(prepared.directory, containers) as bundle,
        files.directory(temporary, shelf) as place,
    ):
        flag = syscalls.RENAME_EXCHANGE if prepared.aside else syscalls.RENAME_NOREPLACE
        try:
            syscalls.renameat2(place, _NEW, bundle, paths.DATA, flag)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EBUSY}:
                raise
            where = f"{paths.CONTAINERS}/{prepared.directory}/{paths.DATA}"
            why = "something is mounted there"
            hint = f"copy the data from {paths.CONTAINERS}/{SNAPSHOTS}/{prepared.service}/{prepared.origin} by hand"
            raise AppboxError("cannot be exchanged", where=where, why=why, hint=hint) from error
        os.fsync(bundle)
        os.fsync(place)
        if prepared.aside:
            os.rename(_NEW, paths.DATA, src_dir_fd=place, dst_dir_fd=place)
            os.fsync(place)
            _publish(shelf, prepared.id)
        else:
            remove_tree(shelf, temporary)


def discard(containers: int, prepared: Restoring) -> None:
    """Remove what was prepared and is not going to be restored."""
    with _shelf(containers, prepared.service) as shelf:
        _sweep_one(shelf, _temporary(prepared.id))


def every(containers: int, service: str | None = None) -> list[Snapshot]:
    """Return the snapshots of a service, or of all, by service and time."""
    found: list[Snapshot] = []
    with contextlib.suppress(FileNotFoundError), files.directory(SNAPSHOTS, containers) as top:
        for name in sorted(os.listdir(top)) if service is None else [service]:
            if not name.startswith(".") and "/" not in name:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError), files.directory(name, top) as shelf:
                    found += [_load(shelf, name, one) for one in _ids(shelf)]
    return found


def find(containers: int, service: str, wanted: str) -> Snapshot:
    """Return a snapshot by its id; AppboxError when there is none."""
    found = {one.id: one for one in every(containers, service)}
    if wanted not in found:
        hint = f"appbox snapshot --list {service} shows what there is"
        raise AppboxError(f"there is no snapshot {wanted}", where=service, hint=hint)
    return found[wanted]


def delete(containers: int, service: str, wanted: str) -> None:
    """Delete a snapshot for good. It loses its name first; what a kill interrupts, the next command finishes."""
    with _shelf(containers, service) as shelf:
        _doom(shelf, wanted)


def delete_all(containers: int, service: str) -> bool:
    """Delete all snapshots of a service for good; return whether there was any."""
    try:
        with files.directory(SNAPSHOTS, containers) as top:
            if not files.exists(service, top):
                return False
            _doom(top, service)
    except FileNotFoundError:
        return False
    return True


def rotate(containers: int, service: str, keep: int) -> list[str]:
    """Delete the oldest of the scheduled snapshots of a service, so that `keep` of them are left; return their ids."""
    scheduled = [one.id for one in every(containers, service) if one.scheduled and not one.problem]
    doomed = scheduled[: max(0, len(scheduled) - keep)]
    for one in doomed:
        delete(containers, service, one)
    return doomed


def sweep(containers: int) -> list[str]:
    """Finish or remove what killed commands left of snapshots; return what became of each, as sentences."""
    said: list[str] = []
    with contextlib.suppress(FileNotFoundError), files.directory(SNAPSHOTS, containers) as top:
        for service in sorted(os.listdir(top)):
            if service.startswith(_GONE):
                remove_tree(top, service)
            elif stat.S_ISDIR(os.lstat(service, dir_fd=top).st_mode):
                with files.directory(service, top) as shelf:
                    said += [
                        f"{service}: {one}" for name in sorted(os.listdir(shelf)) if (one := _sweep_one(shelf, name))
                    ]
    return said


def _sweep_one(shelf: int, name: str) -> str:
    """Finish or remove what may be a leftover; return what was done, "" for nothing."""
    if name.startswith(_GONE):
        remove_tree(shelf, name)
        return "finished deleting a snapshot"
    number = name.removeprefix(".").removesuffix(files.TEMPORARY)
    if not name.startswith(".") or not name.endswith(files.TEMPORARY):
        return ""
    with files.directory(name, shelf) as place:
        if files.exists(_NEW, place) and not _is_clone(place, number):
            os.rename(_NEW, paths.DATA, src_dir_fd=place, dst_dir_fd=place)
            os.fsync(place)
        whole = files.exists(paths.DATA, place)
        for left in [one for one in os.listdir(place) if one.endswith(files.TEMPORARY)] if whole else ():
            remove_tree(place, left)
    if whole:
        _publish(shelf, number)
        return f"finished snapshot {number}"
    remove_tree(shelf, name)
    return "removed an unfinished snapshot"


def _is_clone(place: int, number: str) -> bool:
    """Return whether what is called `new` was going to be restored: it says so by the number of that restore."""
    with files.directory(_NEW, place) as fd:
        said = files.read_if_present(RESTORED, _LIMIT, fd) or b""
    return said.split(b" ", 1)[0] == number.encode()


@contextlib.contextmanager
def _shelf(containers: int, service: str) -> Iterator[int]:
    """Open the directory of a service's snapshots, which is made; nobody but root may enter."""
    _directory(containers, SNAPSHOTS)
    with files.directory(SNAPSHOTS, containers) as top:
        _directory(top, service)
        with files.directory(service, top) as shelf:
            yield shelf


def _directory(parent: int, name: str) -> None:
    if not files.exists(name, parent):
        os.mkdir(name, 0o700, dir_fd=parent)
        os.fsync(parent)


@contextlib.contextmanager
def _data(containers: int, directory: str) -> Iterator[int]:
    """Open the data of a version's directory; AppboxError when it has none."""
    if not _present(containers, directory):
        raise AppboxError(NO_DATA, where=f"{paths.CONTAINERS}/{directory}")
    with files.directory(f"{directory}/{paths.DATA}", containers) as fd:
        yield fd


def _present(containers: int, directory: str) -> bool:
    return files.exists(f"{directory}/{paths.DATA}", containers)


def _free(shelf: int) -> str:
    """Return the id of a snapshot that is taken now."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    taken, number, found = set(os.listdir(shelf)), 2, now
    while found in taken or _temporary(found) in taken:
        found, number = f"{now}-{number}", number + 1
    return found


def _temporary(number: str) -> str:
    return f".{number}{files.TEMPORARY}"


def _begin(shelf: int, found: Snapshot) -> int:
    """Make and open the directory of a snapshot that has no name yet, with what is to be said of it."""
    name = _temporary(found.id)
    os.mkdir(name, 0o700, dir_fd=shelf)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=shelf)
    try:
        files.create(TABLE, found.as_text(), mode=0o600, dir_fd=fd)
        os.fsync(fd)
        os.fsync(shelf)
    except BaseException:
        os.close(fd)
        remove_tree(shelf, name)
        raise
    return fd


@contextlib.contextmanager
def _begun(shelf: int, found: Snapshot) -> Iterator[int]:
    place = _begin(shelf, found)
    try:
        yield place
    except BaseException:
        _sweep_one(shelf, _temporary(found.id)) if files.exists(_temporary(found.id), shelf) else None
        raise
    finally:
        os.close(place)


def _publish(shelf: int, number: str) -> None:
    syscalls.renameat2(shelf, _temporary(number), shelf, number, syscalls.RENAME_NOREPLACE)
    os.fsync(shelf)


def _doom(parent: int, name: str) -> None:
    doomed = f"{_GONE}{name}"
    remove_tree(parent, doomed)
    os.rename(name, doomed, src_dir_fd=parent, dst_dir_fd=parent)
    os.fsync(parent)
    remove_tree(parent, doomed)
    os.fsync(parent)


def _described(containers: int, service: str, directory: str, number: str) -> Snapshot:
    """Return what is to be said of the present data of a version's directory."""
    with files.directory(directory, containers) as bundle:
        meta, generation = state.meta_of(bundle), state.current_generation(bundle)
        written = files.read_if_present(f"{paths.DATA}/{paths.FORMAT}", _LIMIT, bundle)
    mapped = meta.get("userns") is True
    return Snapshot(
        service,
        number,
        taken=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        version=directory.rpartition("/")[2][len(service) + 1 :],
        digest=str(_of(meta, "image").get("digest", "")),
        generation=generation,
        data_format=written.decode("utf-8", "replace") if written is not None else wanted_format(meta),
        uid_base=_number(meta, "uid_base", 0) if mapped else 0,
        uid_size=_number(meta, "uid_size", 65536) if mapped else 0,
    )


def wanted_format(meta: Mapping[str, Any]) -> str:
    """Return the format of data that a version says to have, by its bundle.toml."""
    return str(_of(_of(meta, "manifest"), "upgrade").get("data_format", ""))


def _of(meta: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = meta.get(key)
    return found if isinstance(found, dict) else {}


def _number(meta: Mapping[str, Any], key: str, usual: int) -> int:
    found = meta.get(key, usual)
    return found if isinstance(found, int) else usual


def _measured(place: int, found: Snapshot) -> Snapshot:
    with files.directory(paths.DATA, place) as fd:
        size = measure(fd)
    if size is None:
        return found
    return replace(found, entries=size.entries, apparent=size.apparent, allocated=size.allocated)


def _ids(shelf: int) -> list[str]:
    """Return the ids of the snapshots in a service's directory, the oldest first."""
    found = [name for name in os.listdir(shelf) if _ID.match(name)]
    return sorted(found, key=lambda name: (name[:16], int(name[17:] or 1)))


def _load(shelf: int, service: str, number: str) -> Snapshot:
    """Return a snapshot; one whose snapshot.toml is lost has a problem, and what its directory tells."""
    with files.directory(number, shelf) as place:
        try:
            table = tomllib.loads(files.read(TABLE, _LIMIT, place).decode())
            known = {key: table[key] for key in Snapshot.__slots__ if key in table}
            found = replace(Snapshot(service, number), **{**known, "service": service, "id": number, "problem": ""})
            wrong = [key for key, one in known.items() if type(one) is not type(getattr(Snapshot("", ""), key))]
            problem = f"{TABLE} has a wrong {wrong[0]}" if wrong else ""
        except (OSError, ValueError, AppboxError) as error:
            problem = f"{TABLE} cannot be read ({error})"
        if problem:
            found = Snapshot(service, number, taken=_time_of(number), problem=problem)
        if found.apparent < 0:
            with contextlib.suppress(FileNotFoundError):
                found = _measured(place, found)
    return found


def _time_of(number: str) -> str:
    return datetime.strptime(number[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
