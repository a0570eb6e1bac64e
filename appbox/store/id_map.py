"""The ids with which an ordinary user's services were made, kept in `ids` of the user's state.

What is on disk belongs to ids of the host. With other lines in /etc/subuid and /etc/subgid the same file would have
another owner in the container, and what is written next would belong to ids that the rest is not of.
"""

from __future__ import annotations

import os
import re
from typing import Final

from appbox import owner
from appbox.errors import HostLacks
from appbox.owner import Extent, Owner
from appbox.store import files, paths
from appbox.store.root import Root

_LIMIT: Final = 64 << 10
_LINE: Final = re.compile(r"(uid|gid) ([0-9]{1,10}) ([0-9]{1,10}) ([0-9]{1,10})", re.ASCII)
_FILES: Final = {"uid": "/etc/subuid", "gid": "/etc/subgid"}


def refuse_changed(root: Root) -> None:
    """Raise HostLacks when the ids that the services of an ordinary user were made with are not the user's any more.

    More ids than then do no harm, as long as all of those are the same.
    """
    own = owner.current()
    if own is None or not _anything(root):
        return
    for kind, made in _read(root):
        now = own.uids if kind == "uid" else own.gids
        if not any(_within(made, one) for one in now):
            was = f"{made.outside} to {made.outside + made.size - 1}" if made.size > 1 else str(made.outside)
            raise HostLacks(
                f"has no longer the ids with which the services of {own.name or own.uid} were made",
                where=_FILES[kind],
                why=f"their files belong to the {kind}s {was}",
                hint="restore the line; a service that is exported with it can be imported with another one",
            )


def record(root: Root) -> None:
    """Write down the ids that services are made with from now on; nothing is written when they stand there."""
    own = owner.current()
    if own is None:
        return
    text = _text(own).encode()
    if root.read(_path(), _LIMIT) == text:
        return
    root.make(paths.STATE)
    with root.directory(paths.STATE) as state:
        files.replace("ids", text, mode=0o644, dir_fd=state)


def _path() -> str:
    return f"{paths.STATE}/ids"


def _text(own: Owner) -> str:
    kinds = (("uid", own.uids), ("gid", own.gids))
    return "".join(f"{kind} {one}\n" for kind, ids in kinds for one in ids)


def _read(root: Root) -> list[tuple[str, Extent]]:
    """Return what was written down; a line that cannot be read says nothing."""
    lines = (root.read(_path(), _LIMIT) or b"").decode("utf-8", "replace").splitlines()
    found = (match for match in map(_LINE.fullmatch, lines) if match)
    return [(match[1], Extent(int(match[2]), int(match[3]), int(match[4]))) for match in found]


def _within(made: Extent, now: Extent) -> bool:
    """Return whether all ids of an extent are the same in another one."""
    first = now.inside <= made.inside and made.inside + made.size <= now.inside + now.size
    return first and made.outside - made.inside == now.outside - now.inside


def _anything(root: Root) -> bool:
    """Return whether there is any service, or what is left of one."""
    if not root.is_directory(paths.CONTAINERS):
        return False
    with root.directory(paths.CONTAINERS) as containers:
        return bool(os.listdir(containers))
