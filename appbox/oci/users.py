"""Whom a process runs as, looked up in an image's own passwd and group files. They come as bytes; nothing is opened.

The rules are those that images are written for (docker's and containerd's): a number is always a number, also where a
user of that name exists; a user without a group gets the group and the memberships that the files give; an explicit
group replaces both; a number that the files do not know is taken as it is, with group 0.
Lines are hostile: malformed ones are skipped (never read as uid 0), and a file over `MAX_BYTES` is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from appbox.errors import Refused

MAX_BYTES: Final = 4 * 1024 * 1024
"""Bytes that a passwd or group file may have."""

_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_LARGEST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class User:
    """Numeric ids inside the container; `groups` are the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int


def lookup(user: str, passwd: bytes | None, group: bytes | None) -> User:
    """Return the ids of `user`: empty (root), `name`, `uid`, `name:group` or any mixture with numbers.

    None stands for a file that the image does not have. Whether the ids lie in the service's range, the caller says.
    Raises `Refused` for a name that the files do not know, an id that is none, or a file that is too large.
    """
    name, _, group_name = user.partition(":")
    account = _account(name, passwd)
    uid, gid = (account.uid, account.gid) if account else (_unlisted("user", name, "/etc/passwd"), 0)
    if group_name:
        return User(uid, group_id(group_name, group))
    member_of = (g.gid for g in _groups(group) if account and account.name in g.members)
    return User(uid, gid, tuple(dict.fromkeys(member_of)))


def named(user: str) -> bool:
    """Return whether `user` has a part that only the image's own files can turn into a number."""
    name, _, group_name = user.partition(":")
    return any(part and not _NUMBER.fullmatch(part) for part in (name, group_name)) or not (name and group_name)


def accounts(passwd: bytes | None) -> dict[str, tuple[int, int]]:
    """Return uid and gid of every name that a passwd file lists; of a name that is there twice, the first."""
    return {one.name: (one.uid, one.gid) for one in reversed(list(_accounts(passwd)))}


def groups(group: bytes | None) -> dict[str, int]:
    """Return the gid of every name that a group file lists; of a name that is there twice, the first."""
    return {one.name: one.gid for one in reversed(list(_groups(group)))}


def _account(name: str, passwd: bytes | None) -> _Account | None:
    """The first account of that name or number; root's for an empty name."""
    number = _number(name or "0")
    matches = (a for a in _accounts(passwd) if (a.name == name if number is None else a.uid == number))
    return next(matches, None)


def group_id(name: str, group: bytes | None) -> int:
    """Return the id of a group by name or number; raises `Refused` as `lookup`."""
    number = _number(name)
    if number is not None:
        return number
    matches = (g.gid for g in _groups(group) if g.name == name)
    found = next(matches, None)
    return _unlisted("group", name, "/etc/group") if found is None else found


def _unlisted(kind: str, name: str, file: str) -> int:
    number = _number(name or "0")
    if number is None:
        why = f"{file} of the image does not list it"
        raise Refused(f"no such {kind}", where=name, why=why, hint="use a number or another name")
    return number


def _number(text: str) -> int | None:
    if not _NUMBER.fullmatch(text):
        return None
    if int(text) > _LARGEST:
        raise Refused("not a user or group id", where=text, why=f"the largest is {_LARGEST}")
    return int(text)


def _accounts(data: bytes | None) -> Iterator[_Account]:
    for fields in _lines(data, "passwd"):
        if len(fields) >= 4 and _is_id(fields[2]) and _is_id(fields[3]):
            yield _Account(fields[0], int(fields[2]), int(fields[3]))


def _groups(data: bytes | None) -> Iterator[_Group]:
    for fields in _lines(data, "group"):
        if len(fields) >= 3 and _is_id(fields[2]):
            members = fields[3].split(",") if len(fields) > 3 else []
            yield _Group(fields[0], int(fields[2]), tuple(m.strip() for m in members if m.strip()))


def _lines(data: bytes | None, file: str) -> Iterator[list[str]]:
    """Yield the fields of every line of passwd(5) or group(5) that names something."""
    if data is not None and len(data) > MAX_BYTES:
        raise Refused("the file is too large", where=f"/etc/{file}", why=f"{len(data)} bytes, and {MAX_BYTES} are read")
    # Only \n ends a line there: str.splitlines would also break at characters that may stand inside a name.
    for line in (data or b"").split(b"\n"):
        fields = line.decode("utf-8", "surrogateescape").strip(" \t\r").split(":")
        if fields[0] and not fields[0].startswith("#"):
            yield fields


def _is_id(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and int(text) <= _LARGEST
