"""The ordinary user who runs appbox: home, directories of the XDG rules, and the ids that are the user's.

XDG Base Directory Specification: relative paths in its variables are ignored; XDG_RUNTIME_DIR belongs to the user, has
the mode 0700, and goes with the machine's end. Where the login did not make one, as on Alpine without elogind, the
usual place is looked at, and then one is made in /dev/shm, which is memory too.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from appbox.errors import AppboxError, HostLacks, UsageError
from appbox.host import process, subids
from appbox.host.subids import User
from appbox.owner import Owner, extents
from appbox.subids import apart
from appbox.units.model import PATH

_PATIENCE: Final = 10.0
"""Seconds within which systemd has to have made a directory."""
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - it is looked at who made the directory there


def named(name: str) -> Owner:
    """Return a user for whom root works, whose services are run by units of the system.

    Raises UsageError for a name that the host does not know and for root, and whatever `find` does.
    """
    user = subids.user(int(name) if name.isascii() and name.isdigit() and len(name) < 10 else name)
    if user.uid == 0:
        raise UsageError("root is no ordinary user", where=f"--user {name}", hint="leave --user out")
    if not user.name:
        raise UsageError("this host has no such user", where=f"--user {name}")
    make_runtime(user)
    return replace(find({"XDG_RUNTIME_DIR": f"/run/user/{user.uid}"}, user.uid), by_root=True)


def make_runtime(user: User) -> None:
    """Make /run/user/UID as a login would: the user's own, 0700, in memory. Root alone may write to its parent."""
    path = f"/run/user/{user.uid}"
    if os.path.isdir("/run/systemd/system"):
        _hold_runtime(user.uid, path)
        return
    if not runtime_fault(path, user.uid):
        return
    os.makedirs("/run/user", 0o755, exist_ok=True)
    try:
        os.mkdir(path, 0o700)
        os.chown(path, user.uid, user.gid)
    except FileExistsError:
        pass  # `find` says what is wrong with it


def _hold_runtime(uid: int, path: str) -> None:
    """Have systemd make it, and keep it while this process lives: it removes one that nobody needs."""
    unit = f"user-runtime-dir@{uid}.service"
    wanted = [f"--property={key}={unit}" for key in ("Requires", "After")]
    run = process.need("systemd-run", "systemd runs on this host")
    process.keep([run, "--scope", "--quiet", "--collect", *wanted, "cat"])
    deadline = time.monotonic() + _PATIENCE
    while runtime_fault(path, uid) and time.monotonic() < deadline:
        time.sleep(0.01)


def find(environ: Mapping[str, str], uid: int | None = None) -> Owner:
    """Return the owner of this process. Raises HostLacks or AppboxError for a user for whom nothing can be kept."""
    user = subids.user(os.getuid() if uid is None else uid)
    home = environ.get("HOME", "") or user.home
    if not home.startswith("/") or not os.path.isdir(home):
        raise HostLacks(
            f"{user} has no home directory",
            where=home,
            why="the user has no password entry" if not user.name else "",
            hint="set HOME to a directory of the user's; services and their data are kept below it",
        )
    found = subids.of(user)
    mapped = bool(found.uids and found.gids)
    own = Owner(
        name=user.name,
        uid=user.uid,
        gid=user.gid,
        home=home,
        data=_place(environ, "XDG_DATA_HOME", f"{home}/.local/share"),
        config=_place(environ, "XDG_CONFIG_HOME", f"{home}/.config"),
        cache=_place(environ, "XDG_CACHE_HOME", f"{home}/.cache"),
        runtime=runtime(environ, user.uid),
        uids=extents(user.uid, apart(found.uids) if mapped else ()),
        gids=extents(user.gid, apart(found.gids) if mapped else ()),
    )
    for place in (own.data, own.config, own.runtime):
        if not PATH.fullmatch(place):
            raise AppboxError(
                "cannot be written into a unit or script",
                where=place,
                why="only letters, digits and ._- are carried there as they are",
                hint="set XDG_DATA_HOME, XDG_CONFIG_HOME or XDG_RUNTIME_DIR to a path of these",
            )
    return own


def _place(environ: Mapping[str, str], variable: str, usual: str) -> str:
    found = environ.get(variable, "")
    return os.path.normpath(found if found.startswith("/") else usual)


def runtime(environ: Mapping[str, str], uid: int) -> str:
    """Return the directory for what lives as long as the machine runs, made if need be.

    Raises HostLacks when the one that is named is another's or open to others.
    """
    named = environ.get("XDG_RUNTIME_DIR", "")
    if named.startswith("/"):
        fault = runtime_fault(named, uid)
        if fault:
            raise HostLacks(f"XDG_RUNTIME_DIR {fault}", where=named, hint="appbox doctor says what to do")
        return os.path.normpath(named)
    usual = f"/run/user/{uid}"
    if not runtime_fault(usual, uid):
        return usual
    made = in_memory(uid)
    try:
        os.mkdir(made, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise HostLacks(
            "there is no XDG_RUNTIME_DIR, and none can be made",
            where=made,
            why=error.strerror or "",
            hint="appbox doctor says what to do",
        ) from error
    fault = runtime_fault(made, uid)
    if fault:
        raise HostLacks(f"the directory {fault}", where=made, hint="appbox doctor says what to do")
    return made


def in_memory(uid: int) -> str:
    """Return the directory that is made where no login has made one."""
    return f"{SHARED_MEMORY}/appbox-{uid}"


def runtime_fault(path: str, uid: int) -> str:
    """Return why a directory cannot be a user's XDG_RUNTIME_DIR, "" if it can."""
    try:
        info = os.lstat(path)
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    if not stat.S_ISDIR(info.st_mode):
        return "is no directory"
    if info.st_uid != uid:
        return f"belongs to the user id {info.st_uid}"
    if stat.S_IMODE(info.st_mode) & 0o077:
        return f"is open to others: its mode is {stat.S_IMODE(info.st_mode):04o}"
    return ""
