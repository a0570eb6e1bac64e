"""What a killed run has left half done is finished or undone by the next command that changes anything, and said.

How that is done for one service is in `finishing`, which is loaded only when there is something to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from appbox.errors import AppboxError, printable
from appbox.host.inside import remove_tree
from appbox.session import Options
from appbox.store import bundle, elsewhere, files, id_map, journal, lock, paths
from appbox.store.journal import Entry
from appbox.store.root import Root


@contextmanager
def writing(options: Options, root: Root, *, wait: float | None, own: Collection[str] = ()) -> Iterator[None]:
    """Hold the writer's lock of a root, with nothing left of killed runs but for the services that are `own`.

    Those are about to be planned anew, which finishes them. `wait` is as in `store.lock.exclusive`.
    """
    with lock.exclusive(root, wait, lambda holder: _waiting(options, holder)):
        id_map.record(root)
        for sentence in (*_let_go(root), *recover(options, root, own)):
            if options.verbosity >= 0:  # with --json, too: standard output stays one document
                sys.stderr.write(f"{sentence}\n")
        yield


def _let_go(root: Root) -> list[str]:
    """Let services go on that killed commands were holding still; there are none below another root."""
    if not root.live:
        return []
    from appbox import holding  # noqa: PLC0415  # with all that starts and stops services

    return holding.recover(root)


def _waiting(options: Options, holder: lock.Holder) -> None:
    if options.verbosity >= 0:
        sys.stderr.write(printable(f"waiting for {holder}\n"))


def recover(options: Options, root: Root, own: Collection[str] = ()) -> list[str]:
    """Finish or undo what killed runs were doing; return what was done, as sentences."""
    said = []
    for entry in journal.load(root):
        from appbox import finishing  # noqa: PLC0415 - half of appbox, and there is rarely an entry

        if entry.service in own:
            finishing.sweep(root, entry)
            said.append(f"{entry.service}: an interrupted change is taken up again")
            continue
        try:
            elsewhere.refuse(root, finishing.init_of(options, root), entry.service)
            finishing.sweep(root, entry)
            said.append(finishing.one(options, root, entry))
        except (AppboxError, OSError) as error:
            # Other services are not to wait for it; it is tried again by the next command.
            said.append(f"{entry.service}: an interrupted change could be neither finished nor undone: {error}")
            continue
        finishing.wake(root, finishing.init_of(options, root), entry)
        _sweep_versions(root, entry)
        journal.remove(root, entry.service)
    # Versions are deleted without a note in the journal, and may be half gone.
    if root.is_directory(paths.CONTAINERS):
        with root.directory(paths.CONTAINERS) as containers:
            bundle.clean(containers)
    for place in (paths.STATE, f"{paths.STATE}/failed"):
        _sweep_names(root, place)
    return said


def _sweep_versions(root: Root, entry: Entry) -> None:
    """Remove what was about to get a name in the versions that a run was killed between: links, volumes."""
    for directory in {entry.origin.directory, entry.target.directory} - {""}:
        for place in (directory, f"{directory}/{paths.DATA}"):
            _sweep_names(root, f"{paths.CONTAINERS}/{place}")


def _sweep_names(root: Root, place: str) -> None:
    """Remove what killed runs were writing, or a file system has brought back after a power loss, as btrfs may."""
    if not root.is_directory(place):
        return
    with root.directory(place) as fd:
        for name in [one for one in os.listdir(fd) if one.startswith(".") and one.endswith(files.TEMPORARY)]:
            remove_tree(fd, name)
