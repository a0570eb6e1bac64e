"""The users of a host and the subordinate ids that each has: /etc/passwd, /etc/subuid, /etc/subgid. It only reads.

Where /etc/nsswitch.conf has sub-ids come from elsewhere (`subid: sss`), shadow's getsubids(1) is asked instead.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass
from typing import Final

from appbox import subids
from appbox.errors import UsageError
from appbox.host import process
from appbox.host.facts import IdRange
from appbox.store import files
from appbox.subids import Table

_LIMIT: Final = 4 << 20
_SWITCH: Final = re.compile(r"^\s*subid:\s*([a-z]+)", re.MULTILINE)
_ANSWER: Final = re.compile(r"^[0-9]+: \S+ ([0-9]{1,10}) ([0-9]{1,10})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class User:
    """A user of the host; `name` and `home` are empty for a number without a password entry."""

    name: str
    uid: int
    gid: int
    home: str

    def __str__(self) -> str:
        return self.name or f"user {self.uid}"


@dataclass(frozen=True, slots=True)
class SubIds:
    """A user and the ranges of user and group ids that are his, in the order of their files."""

    user: User
    uids: tuple[IdRange, ...] = ()
    gids: tuple[IdRange, ...] = ()


def user(who: str | int) -> User:
    """Return a user by name or number; UsageError for a name that the host does not know."""
    try:
        found = pwd.getpwuid(who) if isinstance(who, int) else pwd.getpwnam(who)
    except KeyError:
        if isinstance(who, int):
            gid = os.getegid() if who == os.geteuid() else who
            return User("", who, gid, "")
        raise UsageError(
            "this host has no such user", where=who, hint="getent passwd lists those that there are"
        ) from None
    return User(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir)


def of(who: User | str | int) -> SubIds:
    """Return the ranges of a user; none for one whom nobody gave any. Raises as `user` does."""
    found = who if isinstance(who, User) else user(who)
    if (asked := _from_elsewhere(found)) is not None:
        return asked
    uids, gids = (subids.parse(_text(file), found.name, found.uid) for file in subids.FILES)
    return SubIds(found, uids, gids)


def tables() -> tuple[Table, Table]:
    """Return what /etc/subuid and /etc/subgid say, their faults included; a file that is missing says nothing."""
    uids, gids = (subids.table(_text(file), file) for file in subids.FILES)
    return uids, gids


def source() -> str:
    """Return where sub-ids come from: "files", or what /etc/nsswitch.conf names (nsswitch.conf(5), `subid`)."""
    found = _SWITCH.search(_text("/etc/nsswitch.conf"))
    return found[1] if found else "files"


def _from_elsewhere(found: User) -> SubIds | None:
    """Return what getsubids says, None when the files count."""
    program = process.find("getsubids")
    if source() == "files" or program is None or not found.name:
        return None
    uids, gids = (_ask([program, *option, found.name]) for option in ([], ["-g"]))
    return SubIds(found, uids, gids)


def _ask(words: list[str]) -> tuple[IdRange, ...]:
    found = (IdRange(int(base), int(size)) for base, size in _ANSWER.findall(process.run(words, timeout=20).out))
    return tuple(one for one in found if one.size)


def _text(path: str) -> str:
    """Return what a file of /etc says, which may be a symlink of the administrator's; nothing when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    return files.read_descriptor(fd, _LIMIT, where=path).decode("utf-8", "replace")
