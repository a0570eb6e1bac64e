"""`appbox verify`: is each service's rootfs still what was unpacked? It only reads."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Final

from appbox.errors import AppboxError, Refused, printable
from appbox.oci import mtree
from appbox.oci.audit import Audit, Difference
from appbox.store import files, paths, state
from appbox.store.installed import Installed
from appbox.store.root import Root

MEND: Final = "appbox remove and appbox apply unpack it anew; its data stays"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out for the current version of one service. `problem` says why nothing could be compared, if so."""

    name: str
    version: str
    entries: int = 0
    problem: str = ""
    differences: list[Difference] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Tell whether everything is as it was unpacked."""
        return not (self.problem or self.differences)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON data."""
        return {
            "name": self.name,
            "version": self.version,
            "ok": self.sound,
            "entries": self.entries,
            "problem": self.problem,
            "differences": [one._asdict() for one in self.differences],
        }


def every(root: Root) -> Iterator[Verdict]:
    """Yield the verdict on every installed service, sorted by name."""
    for name in state.names(root):
        try:
            found = state.load(root, name)
        except AppboxError as error:
            yield Verdict(name, "", problem=str(error))
            continue
        if found is not None:
            yield judge(root, found)


def of(root: Root, name: str) -> Verdict:
    """Return the verdict on one service; AppboxError when there is none of that name."""
    found = state.load(root, name)
    if found is None:
        raise AppboxError("is not installed", where=name, hint="appbox status lists what is")
    return judge(root, found)


def judge(root: Root, found: Installed) -> Verdict:
    """Return the verdict on a version, be it current or not."""
    name, version = found.name, found.version
    if found.problem and not found.meta:
        return Verdict(name, version, problem=f"cannot be verified: {found.problem}")
    try:
        with root.directory(paths.CONTAINERS) as containers, files.directory(found.directory, containers) as bundle:
            audit, differences = _audited(bundle, _recorded(found))
    except PermissionError:
        raise
    except (AppboxError, OSError) as error:
        why = f"{error.what}: {error.why}" if isinstance(error, AppboxError) else _in_words(error)
        return Verdict(name, version, problem=why)
    return Verdict(name, version, audit.entries, differences=differences)


def _recorded(found: Installed) -> str:
    """Return the digest that rootfs.mtree had when it was written; empty when bundle.toml does not say."""
    return str(found.meta.get("rootfs_mtree", ""))


def _audited(bundle: int, digest: str) -> tuple[Audit, list[Difference]]:
    with _open_manifest(bundle, digest) as manifest, files.directory(paths.ROOTFS, bundle) as rootfs:
        audit = Audit(rootfs, _lines(manifest))
        try:
            return audit, audit.differences()
        except Refused as error:
            raise Refused(f"{paths.MTREE} {error.what}", why=error.why) from error


def _open_manifest(bundle: int, digest: str) -> BinaryIO:
    """Open rootfs.mtree, which must have that digest if there is one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(paths.MTREE, flags, dir_fd=bundle)
    except FileNotFoundError as error:
        if digest:
            raise AppboxError(f"{paths.MTREE} is missing", why="so nothing can be compared") from error
        why = "it was unpacked by an appbox that wrote none"
        raise AppboxError(f"there is no {paths.MTREE} to compare with", why=why) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused(f"{paths.MTREE} is damaged", why="it is not a regular file")
    file = os.fdopen(fd, "rb")
    try:
        if digest and f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != digest:
            raise Refused(f"{paths.MTREE} was changed", why=f"bundle.toml has the digest {digest}")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a manifest; one that is too long is cut, and so malformed."""
    while text := file.readline(mtree.LINE):
        yield text


def _in_words(error: OSError) -> str:
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else paths.ROOTFS
    return f"{name} cannot be read: {error.strerror or error}"


def text(verdicts: list[Verdict], *, quiet: bool) -> str:
    """Return the verdicts as lines, one for each difference, with what to do about them at the end."""
    lines: list[str] = []
    for one in verdicts:
        title = f"{one.name} {one.version}"
        if one.problem:
            lines.append(f"{title}: {one.problem}")
        lines += [f"{title}: {difference.path}: {words(difference)}" for difference in one.differences]
        if one.sound and not quiet:
            lines.append(f"{title}: {one.entries} entries, all as they were unpacked")
    if not quiet:
        if any(one.differences for one in verdicts):
            lines.append(f"changed files are not trusted again by themselves: {MEND}")
        elif any(one.problem for one in verdicts):
            lines.append(f"a service that cannot be compared stays so: {MEND}")
        lines += [] if verdicts else ["nothing is installed"]
    return "".join(printable(line).replace("\n", "\\n") + "\n" for line in lines)


def words(difference: Difference) -> str:
    """Return a difference as people say it."""
    _, change, was, now = difference
    match change:
        case "added":
            return f"added ({now})"
        case "removed":
            return f"removed ({was})"
        case "xattr":
            return f"extended attribute is {now or 'gone'}, was {was or 'not there'}"
        case "mounted":
            return "something is mounted here, so what is below it was not looked at"
        case "unreadable":
            return f"cannot be looked at: {now}"
        case "links":
            return f"has {now} names, had {was}"
        case "time":
            return f"time is {_date(now)}, was {_date(was)}"
        case _:
            return f"{change} is {now}, was {was}"


def _date(time: str) -> str:
    """Return seconds since 1970, with nine decimals, as a date; as they are where no date is meant."""
    seconds, _, nanoseconds = time.partition(".")
    try:
        date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))
    except OverflowError:
        return time
    return f"{date:%Y-%m-%dT%H:%M:%S}{f'.{nanoseconds}' if int(nanoseconds) else ''}Z"
