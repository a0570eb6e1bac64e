"""Looks at an ordinary user: password entry, sub-ids, runtime directory, linger, delegation. It only reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Final

from appbox.doctor.probe_host import text
from appbox.doctor.seen import Helper, Login, RuntimeDirectory
from appbox.host import mounts, openrc, ordinary, process, subids
from appbox.host.facts import InitKind
from appbox.oci import file_capabilities

_LINGER: Final = "/var/lib/systemd/linger"
_CAPABILITY: Final = "security.capability"
_USERS: Final = "/etc/passwd"
_ALL: Final = frozenset(("cpu", "cpuset", "io", "memory", "pids"))


def login(who: str | int, init: InitKind, environ: Mapping[str, str] | None) -> Login:
    """Return what there is to say of a user; `environ` is the user's own, None when somebody else asks.

    UsageError for a name that the host does not know.
    """
    user = subids.user(who)
    own = environ or {}
    home = own.get("HOME", "") or user.home
    ids = subids.of(user)
    there, owner = _owner(home)
    return Login(
        name=user.name,
        uid=user.uid,
        gid=user.gid,
        home=home,
        home_exists=there,
        home_owner=owner,
        uids=ids.uids,
        gids=ids.gids,
        tables=subids.tables(),
        source=subids.source(),
        names=_names(),
        uidmap=_helper("newuidmap", "setuid"),
        gidmap=_helper("newgidmap", "setgid"),
        runtime=_runtime(own.get("XDG_RUNTIME_DIR", ""), user.uid, own=environ is not None),
        linger=_linger(user.name, init) if user.name else None,
        settings=os.path.lexists(f"/etc/conf.d/user.{user.name}"),
        delegated=_delegated(user.uid) if init == "systemd" else None,
        promised=_promised(user.uid) if init == "systemd" else None,
    )


def data_home(found: Login, environ: Mapping[str, str] | None) -> str:
    """Return where the user's bundles go (XDG Base Directory Specification), "" for one who has no home."""
    named = (environ or {}).get("XDG_DATA_HOME", "")
    if not found.home and not named.startswith("/"):
        return ""
    return f"{named if named.startswith('/') else found.home.rstrip('/') + '/.local/share'}/appbox/containers"


def _linger(name: str, init: InitKind) -> bool | None:
    if init == "openrc":
        return openrc.starts_at_boot(name)
    return os.path.exists(f"{_LINGER}/{name}") if init == "systemd" else None


def _owner(path: str) -> tuple[bool, int]:
    try:
        info = os.stat(path)
    except OSError:
        return False, 0
    return stat.S_ISDIR(info.st_mode), info.st_uid


def _names() -> dict[str, int]:
    """Return the numbers of the host's own users; those of a directory service have nothing to do with its ranges."""
    rows = (line.split(":") for line in text(_USERS).splitlines())
    return {row[0]: int(row[2]) for row in rows if len(row) > 2 and row[2].isascii() and row[2].isdigit()}


def _helper(name: str, capability: str) -> Helper:
    path = process.find(name)
    if path is None:
        return Helper()
    info = os.stat(path)
    try:
        words = file_capabilities.words(os.getxattr(path, _CAPABILITY))
    except OSError:
        words = ""
    nosuid = bool(os.statvfs(path).f_flag & os.ST_NOSUID)
    return Helper(path, bool(info.st_mode & stat.S_ISUID), f"cap_{capability}" in words, info.st_uid, nosuid)


def _runtime(named: str, uid: int, *, own: bool) -> RuntimeDirectory:
    """Look at what `ordinary.runtime` would take for the user, or, unless `own`, for root who works for the user."""
    said = named.startswith("/")
    path = named if said else f"/run/user/{uid}"
    fault = ordinary.runtime_fault(path, uid)
    made = ordinary.in_memory(uid)
    instead = made if not said and (fault if own else not os.path.lexists(path)) else ""
    wrong = ordinary.runtime_fault(made, uid) if instead and os.path.lexists(made) else ""
    try:
        info = os.lstat(path)
    except OSError:
        return RuntimeDirectory(path, said, instead=instead, instead_fault=wrong)
    kind = mounts.file_system(info.st_dev)
    return RuntimeDirectory(path, said, True, fault, kind, instead, wrong)


def _delegated(uid: int) -> frozenset[str] | None:
    """Return the controllers that a user's systemd has, None when it does not run."""
    path = f"/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"
    return frozenset(text(path).split()) if os.path.exists(path) else None


def _promised(uid: int) -> frozenset[str] | None:
    """Return the controllers that a user's systemd gets when it is started."""
    systemctl = process.find("systemctl")
    if systemctl is None:
        return None
    done = process.run(
        [systemctl, "show", "--property=Delegate,DelegateControllers", f"user@{uid}.service"], timeout=20
    )
    said = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
    if done.code or "Delegate" not in said:
        return None
    named = frozenset(said.get("DelegateControllers", "").split())
    return (named or _ALL) if said["Delegate"] == "yes" else frozenset()
