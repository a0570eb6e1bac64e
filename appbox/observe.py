"""Looks at what is on the host for one service. It only reads; what should change is `plan`'s to say."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Any, Final

from appbox.data_plan import data_place, upgrading, usable
from appbox.desired_values import Desired
from appbox.errors import AppboxError
from appbox.host import runc
from appbox.host.facts import InitKind
from appbox.host.inside import locate_all, read_inside
from appbox.host.runc import Running
from appbox.oci.rootfs import TABLE_LIMIT, Node, RootfsFacts
from appbox.plan_values import Observed
from appbox.store import data, elsewhere, files, paths, seen, state, unitfiles
from appbox.store.installed import GONE, Installed
from appbox.store.journal import Entry, Place
from appbox.store.root import Root

_COUNTED: Final = 20_000
"""Files of data that a plan counts at most."""
_FORMAT_LIMIT: Final = 65536

_SLACK: Final = 10_000_000
"""Nanoseconds by which a start may lie before the configuration and still count as later: file times are coarse."""


def observe(root: Root, init: InitKind, name: str, directory: str) -> Observed:
    """Return what the host has of service `name`; `directory` is that of the version it should have.

    Raises AppboxError when the unit's or the directory's name is taken by something else.
    """
    elsewhere.refuse(root, init, name)
    units, links = unitfiles.read(root, init, name), unitfiles.enabled(root, init, name)
    modes = unitfiles.modes(root, units)
    current = state.load(root, name)
    try:
        with root.directory(paths.CONTAINERS) as containers:
            refuse_foreign_link(containers, name)
            same = current is not None and current.directory == directory
            target = current if same else state.load_version(containers, name, directory)
            target = None if target is not None and target.problem == GONE else target
            usable = current is not None and current.problem != GONE
            kept, base = ("", None) if usable else _kept(containers, name, directory)
            writes = _writes(containers, directory) if target is not None else {}
            found = Observed(current=current, target=target, kept=kept, kept_base=base, **writes)
            volumes = _volumes(containers, data_place(found, directory))
    except FileNotFoundError:
        return Observed(units=units, modes=modes, links=links)
    running = runc.running(name) if root.live else None
    written = max(target.written if target else 0, unitfiles.written(root, init, name))
    return replace(
        found,
        units=units,
        modes=modes,
        links=links,
        armed=root.live and any(p.endswith(f"/{name}.timer") for p in units) and _armed(init, name),
        running=os.path.basename(running.bundle) or "unknown" if running else "",
        stale=bool(running and target and _before(running, written)),
        unseen=bool(running and target and _unseen(root, name, running, target)),
        data=volumes,
    )


def interrupted(observed: Observed, entry: Entry | None) -> Observed:
    """Return what was observed of a service with what the journal says of a run that was killed, if it was one."""
    if entry is None:
        return observed
    current = usable(observed)
    there = Place(current.directory, current.generation) if current is not None else Place()
    if there != entry.target or entry.origin == entry.target:
        return replace(observed, interrupted=entry.running)
    return replace(observed, interrupted=entry.running, begun_at=entry.origin.generation, upgraded=entry.upgrade)


def deeper(root: Root, desired: Desired, observed: Observed) -> Observed:
    """Return what only a change needs to know: other versions, formats, whether there is data in the way."""
    own = desired.replaced or desired.directory
    try:
        with root.directory(paths.CONTAINERS) as containers:
            known = [(path, numbers) for path, numbers in state.generations(containers, desired.name) if numbers]
            versions = tuple((path, numbers[-1]) for path, numbers in known)
            place = data_place(observed, desired.directory)
            current = usable(observed)
            # What is current has its own, whatever a killed run had begun to bring there.
            elsewhere = place not in {"", own} and not (current is not None and current.directory == own)
            return replace(
                observed,
                newest=max((number for _, number in versions), default=0),
                versions=versions,
                came_from=next((path for path, numbers in known if observed.begun_at in numbers), ""),
                own=elsewhere and _has_own(containers, own),
                format=_format(containers, place),
                unfinished=bool(place) and files.exists(f"{place}/{paths.DATA}/{paths.MIGRATING}", containers),
                own_format=_format(containers, own) if elsewhere else "",
                **(_to_copy(containers, place) if upgrading(desired, observed) and observed.data else {}),
            )
    except FileNotFoundError:
        return observed


def trying(root: Root, init: InitKind, name: str, observed: Observed) -> Observed:
    """Return whether a service that does not run may be started at any moment, as one that crashes again and again."""
    if not root.live or observed.running or not observed.units:
        return observed
    from appbox.host import services  # noqa: PLC0415  # only for what does not run

    return replace(observed, trying=services.of_kind(init).busy(name))


def _armed(init: InitKind, name: str) -> bool:
    from appbox.host import services  # noqa: PLC0415  # only for timed jobs

    return services.of_kind(init).armed(name)


def _has_own(containers: int, directory: str) -> bool:
    """Return whether a version has data of its own that a service has seen."""
    try:
        with files.directory(f"{directory}/{paths.DATA}", containers) as fd:
            return bool(data.names(fd)) and not files.exists(paths.COPIED, fd)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _format(containers: int, directory: str) -> str:
    """Return what the data in a version's directory is written in; "" when nobody noted it."""
    if not directory:
        return ""
    try:
        with files.directory(f"{directory}/{paths.DATA}", containers) as fd:
            return (files.read_if_present(paths.FORMAT, _FORMAT_LIMIT, fd) or b"").decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _to_copy(containers: int, directory: str) -> dict[str, Any]:
    """Return how the data in a version's directory can be copied, and how much it is."""
    from appbox.store import clone  # noqa: PLC0415  # only for upgrades
    from appbox.store.walk import measure  # noqa: PLC0415  # the same

    try:
        with files.directory(f"{directory}/{paths.DATA}", containers) as source:
            size = measure(source, _COUNTED)
            return {"cloning": clone.can(source, containers), "data_size": size.allocated if size else -1}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _before(running: Running, written: int) -> bool:
    """Return whether a container was started before something was written, nanoseconds since 1970."""
    return running.since.timestamp() * 1e9 + _SLACK < written


def _unseen(root: Root, name: str, running: Running, target: Installed) -> bool:
    """Return whether a container was started before the files that it must see, and was not given them since."""
    if not _before(running, target.visible_written):
        return False
    process = runc.process_of(name)
    return process is not None and seen.read(root, name, process) < target.visible


def _writes(containers: int, directory: str) -> dict[str, Any]:
    with files.directory(directory, containers) as bundle:
        return {"writes": state.has_writes(bundle), "writes_origin": state.bundle_writes(bundle)}


def refuse_foreign_link(containers: int, name: str) -> None:
    """Raise when something that is no link to a version has the service's name."""
    if files.exists(name, containers) and not state.is_current_link(name, containers):
        raise state.foreign(name, "it is not a link to a version of this service")


def _volumes(containers: int, holder: str) -> frozenset[str]:
    if not holder:
        return frozenset()
    try:
        with files.directory(f"{holder}/{paths.DATA}", containers) as fd:
            return data.names(fd)
    except FileNotFoundError:
        return frozenset()
    except NotADirectoryError as error:
        where = f"{paths.CONTAINERS}/{holder}/{paths.DATA}"
        raise AppboxError("is no directory", where=where, hint="put the directory of the volumes back there") from error


def _kept(containers: int, name: str, directory: str) -> tuple[str, int | None]:
    """Return which directory has the data of a service without a current version, and its first id; ("", None) if none.

    It was kept by a removal, or a first version never became current. One that is not empty counts before one that is,
    and before a copy that nobody has seen, then the one that the service had last, then that of the desired version,
    then the newest.
    """
    found: list[tuple[bool, bool, bool, int, str, int]] = []
    for entry, meta in state.version_directories(containers, name):
        if meta.get("name") != name:
            continue
        with contextlib.suppress(FileNotFoundError), files.directory(f"{entry}/{paths.DATA}", containers) as volumes:
            base = Installed(name, "", entry, 0, meta).base
            newest = os.fstat(volumes).st_mtime_ns
            there = set(os.listdir(volumes))
            rank = (bool(there) and paths.COPIED not in there, paths.LAST in there, entry == directory)
            found.append((*rank, newest, entry, base))
    return max(found)[4:] if found else ("", None)


def rootfs_facts(rootfs: int, base: int, wanted: tuple[str, ...]) -> RootfsFacts:
    """Return what an open root file system says of users and of the `wanted` paths; ids less `base`."""
    located = locate_all(rootfs, wanted, base)
    nodes = {path: node or Node(path, "below a file") for path, node in located.items()}
    return RootfsFacts(
        passwd=read_inside(rootfs, "etc/passwd", TABLE_LIMIT),
        group=read_inside(rootfs, "etc/group", TABLE_LIMIT),
        nodes=nodes,
    )


def installed_rootfs(root: Root, version: Installed, wanted: tuple[str, ...]) -> RootfsFacts | None:
    """Return the facts of an installed version's rootfs, None when it has none any more."""
    try:
        with (
            root.directory(paths.CONTAINERS) as containers,
            files.directory(version.directory, containers) as bundle,
            files.directory(paths.ROOTFS, bundle) as rootfs,
        ):
            return rootfs_facts(rootfs, version.base, wanted)
    except (FileNotFoundError, NotADirectoryError):
        return None
