"""The data of an installed service while it is exported: nobody changes it between two readings.

That of a stopped service is read where it is. One that runs is held still while its data is cloned, and the clone is
read: for a moment where the file system shares blocks, for the time of a copy elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from appbox import holding
from appbox.errors import AppboxError
from appbox.host import runc, syscalls
from appbox.host.facts import IdRange, InitKind
from appbox.host.inside import remove_tree
from appbox.host.ranges import ALL
from appbox.progress import copying
from appbox.session import Options
from appbox.store import clone, files, paths
from appbox.store.data_archive import DataReader
from appbox.store.installed import Installed
from appbox.store.root import Root


@contextmanager
def opened(
    options: Options | None, root: Root, init: InitKind, installed: Installed, *, live: bool
) -> Iterator[tuple[DataReader | None, str]]:
    """Give a reader of a service's data, None when it has none, and in words how it was held still, "" for not at all.

    `live`: a running service runs on meanwhile; `options` None: nothing is shown.
    """
    if installed.carry not in {"", installed.directory}:
        hint = "apply its manifest first"
        raise AppboxError("has data that an interrupted run left elsewhere", where=installed.name, hint=hint)
    with ExitStack() as stack:
        containers = stack.enter_context(root.directory(paths.CONTAINERS))
        try:
            fd = stack.enter_context(files.directory(f"{installed.directory}/{paths.DATA}", containers))
        except FileNotFoundError:
            yield None, ""
            return
        if not any(not name.startswith(".") for name in os.listdir(fd)):
            yield None, ""
            return
        said = ""
        if root.live and runc.running(installed.name) is not None:
            name = f".export@{installed.name}{files.TEMPORARY}"  # what a kill leaves is swept like all of that name
            remove_tree(containers, name)
            stack.callback(remove_tree, containers, name)
            said = _clone(options, root, init, installed.name, fd, (containers, name), live=live)
            fd = stack.enter_context(files.directory(name, containers))
        yield DataReader(fd, IdRange(installed.base, installed.size if installed.base else ALL)), said


def _clone(  # noqa: PLR0917
    options: Options | None, root: Root, init: InitKind, name: str, fd: int, target: tuple[int, str], *, live: bool
) -> str:
    """Clone the data of a running service and return how that was done, in words."""
    how = clone.can(fd, target[0])
    way: holding.Way = "no" if live else "stop" if how == "copy" or not runc.can_pause(name) else "pause"
    syscalls.syncfs(fd)  # what is written by now need not be written while the service waits
    shown = copying(options, "data") if options else nullcontext()
    with shown as told, holding.held(root, init, name, way) as held:
        clone.clone(fd, *target, how, clone.Making(live=live, progress=told, read=held.release))
    if way != "no":
        return f"was {'paused' if way == 'pause' else 'stopped'} for {held.seconds:.2f} s"
    return "was writing meanwhile: its data is no single point in time" if how == "copy" else ""
