"""Whether the root file system of an installed version is still what was unpacked. It only reads.

A look at the times tells in milliseconds whether anything was touched since rootfs.mtree was written, which is the last
thing that is done to a rootfs. Nobody can set a ctime (inode(7)); a restored backup has new ones, though, and a change
that was made while the clock was wrong has an old one. So what was touched is only asked about: `verify` compares it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from appbox.errors import AppboxError
from appbox.oci import limits
from appbox.plan_values import Observed
from appbox.sources import Loaded
from appbox.store import files, paths
from appbox.store.installed import Installed
from appbox.store.root import Root

if TYPE_CHECKING:
    from appbox.drift import Subject  # which knows the whole host

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose root file systems are looked at: those of `named` services quickly, with `full` every file of all."""

    named: frozenset[str] = frozenset()
    full: bool = False

    def covers(self, name: str) -> bool:
        """Return whether this service's is looked at."""
        return self.full or name in self.named


NOWHERE: Final = Scope()


def scope(arguments: Sequence[str], loaded: Sequence[Loaded], *, full: bool) -> Scope:
    """Return the scope of a run: the manifests that were named themselves, and not found in a directory."""
    named = {os.path.realpath(argument) for argument in arguments if not os.path.isdir(argument)}
    names = (one.manifest.name for one in loaded if os.path.realpath(one.document.file) in named)
    return Scope(frozenset(names), full)


def with_rootfs(root: Root, observed: Observed, name: str, scope: Scope) -> Observed:
    """Return what was observed of a service, with what is wrong with the root file system of its version."""
    target = observed.target
    if target is None or target.problem or not scope.covers(name):
        return observed
    found = problem(root, target, full=scope.full)
    if not found:
        return observed
    marked = replace(target, problem=found)
    same = observed.current is not None and observed.current.directory == target.directory
    return replace(observed, target=marked, current=marked if same else observed.current)


def words(root: Root, subject: Subject, *, full: bool) -> tuple[str, ...]:
    """Return what is wrong with the root file system of a service's current version, () for nothing."""
    installed = Installed(subject.name, "", subject.directory, subject.generation, subject.meta)
    found = problem(root, installed, full=full)
    return (found.replace("has a changed root file system", "rootfs changed"),) if found else ()


def problem(root: Root, installed: Installed, *, full: bool) -> str:
    """Return what is wrong with the root file system of a version, in words that follow its name; "" for nothing.

    `full`: every file is compared, also when nothing was touched.
    """
    if not installed.meta.get("rootfs_mtree"):
        return ""  # it was unpacked by an appbox that wrote none
    with root.directory(paths.CONTAINERS) as containers, files.directory(installed.directory, containers) as bundle:
        if not full and not is_touched(bundle):
            return ""
    from appbox import verify  # noqa: PLC0415  # reading layers and manifests of trees; most were not touched

    verdict = verify.judge(root, installed)
    if verdict.problem:
        return f"cannot be compared with its image ({verdict.problem})"
    if not verdict.differences:
        return ""
    # A file that comes or goes changes the time of its directory, too.
    telling = [one for one in verdict.differences if one.change != "time"] or verdict.differences
    changed = list(dict.fromkeys(one.path for one in telling))
    entries = f"{len(changed)} entries, as {changed[0]}" if len(changed) > 1 else changed[0]
    return f"has a changed root file system: {entries}"


def is_touched(bundle: int) -> bool:
    """Return whether anything of an open version directory's rootfs is newer than its rootfs.mtree.

    So is whatever cannot be looked at, or is on another file system, and a manifest that was itself touched.
    """
    try:
        written = os.lstat(paths.MTREE, dir_fd=bundle).st_ctime_ns
        # The image's own documents were written after it.
        if written > os.lstat(f"{paths.IMAGE}/config.json", dir_fd=bundle).st_ctime_ns:
            return True
        with files.directory(paths.ROOTFS, bundle) as rootfs:
            top = os.fstat(rootfs)
            return top.st_ctime_ns > written or _is_newer(rootfs, written, top.st_dev)
    except PermissionError:
        raise
    except (OSError, AppboxError):
        return True


def _is_newer(top: int, written: int, device: int) -> bool:
    """Return whether anything below an open directory is newer. The walk never leaves it, and follows no symlink."""
    levels = [(top, _folders(top, written, device))]
    try:
        while levels:
            here, folders = levels[-1]
            if folders is None or len(levels) > limits.DEPTH:
                return True
            if folders:
                child = os.open(folders.pop(), _FOLDER, dir_fd=here)
                levels.append((child, None))
                levels[-1] = (child, _folders(child, written, device))
                continue
            levels.pop()
            if levels:
                os.close(here)
        return False
    finally:
        for one, _ in levels[1:]:
            os.close(one)


def _folders(fd: int, written: int, device: int) -> list[str] | None:
    """Return the directories in an open one, None when anything in it is newer or on another file system."""
    found = []
    with os.scandir(fd) as entries:
        for entry in entries:
            info = entry.stat(follow_symlinks=False)
            if info.st_ctime_ns > written:
                return None
            if stat.S_ISDIR(info.st_mode):
                if info.st_dev != device:
                    return None
                found.append(entry.name)
    return found
