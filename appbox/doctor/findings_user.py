"""What there is to say of an ordinary user: sub-ids, home, session, delegation. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from appbox import subids
from appbox.doctor import remedies
from appbox.doctor.seen import Helper, Login, OpenRC, Seen
from appbox.doctor.values import Finding, Remedy, State
from appbox.doctor.wants import Wants
from appbox.host.facts import IdRange
from appbox.subids import Table

USER_SERVICES: Final = (0, 60)
"""The OpenRC that has services of users."""
_TMPFS: Final = frozenset({"tmpfs", "ramfs", ""})
_USUAL_PORT: Final = 80
"""The lowest port that is usually wanted: below it are mail, names and shells, which few run as a user."""
_SHOWN: Final = 5
"""Lines of a broken table that are named; the others are counted."""


def entry(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield what is to be said of the user's password entry and home."""
    login = seen.login
    if login is None:
        return
    if not login.name:
        what = f"the user id {login.uid} has no password entry, and so no name and no home"
        mend = Remedy(
            words=f"give it one: useradd --uid {login.uid} --create-home NAME, or adduser -u {login.uid} NAME"
        )
        yield wants.say("home", "missing", what, mend)
    elif not login.home_exists:
        mend = Remedy(words=f"install -d -m 0700 -o {login.uid} -g {login.gid} {login.home or '/home/' + login.name}")
        yield wants.say("home", "missing", f"the home of {login}, {login.home or 'none'}, is not there", mend)
    elif login.home_owner != login.uid:
        what = f"the home of {login}, {login.home}, belongs to the user id {login.home_owner}"
        mend = Remedy(words=f"chown {login.uid}:{login.gid} {login.home}, if it is to be his")
        yield wants.say("home", "missing", what, mend)


def ids(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield what is to be said of sub-ids: the user's ranges, those of others that overlap, lines that are none."""
    login = seen.login
    if login is None:
        return
    data = {"uids": _pairs(login.uids), "gids": _pairs(login.gids)}
    if min(subids.together(login.uids), subids.together(login.gids)) >= subids.LEAST:
        where = f"{_words(login.uids)} for users, {_words(login.gids)} for groups"
        yield wants.say("sub-ids", "ok", f"{login} has {where}", data=data)
    else:
        yield wants.say("sub-ids", "missing", _few(login), remedies.give_ids(login), data=data)
    for table, own in zip(login.tables, (login.uids, login.gids), strict=True):
        yield from _faults(wants, table)
        yield from _overlaps(wants, login, table, own)


def _few(login: Login) -> str:
    for table, own in zip(login.tables, (login.uids, login.gids), strict=True):
        where = table.file if login.source == "files" else login.source
        if not own:
            return f"{login} has no range in {where}: without one a container has one user only"
        if (count := subids.together(own)) < subids.LEAST:
            return f"{login} has {count} ids in {where}, and images need {subids.LEAST}"
    return ""


def _words(ranges: tuple[IdRange, ...]) -> str:
    return ", ".join(f"{one.base} to {one.end - 1}" for one in ranges)


def _pairs(ranges: tuple[IdRange, ...]) -> list[list[int]]:
    return [[one.base, one.size] for one in ranges]


def _faults(wants: Wants, table: Table) -> Iterator[Finding]:
    """Nobody but its administrator knows what a broken line was to be: it is never edited."""
    for fault in table.faults[:_SHOWN]:
        yield wants.say(
            "sub-ids", "weak", str(fault), Remedy(words=f"mend or delete line {fault.line} of {fault.file}")
        )
    if (more := len(table.faults) - _SHOWN) > 0:
        yield wants.say("sub-ids", "weak", f"{table.file}: {more} more lines are none of user:first id:count")


def _overlaps(wants: Wants, login: Login, table: Table, own: tuple[IdRange, ...]) -> Iterator[Finding]:
    """A range that another user has, too, is no wall between the two: what one writes, the other may change."""
    pairs = [(one, other) for one, other in subids.overlaps(table) if not _same(login, one.owner, other.owner)]
    for one, other in pairs[:_SHOWN]:
        mine = any(entry.overlaps(mine) for entry in (one, other) for mine in own)
        what = (
            f"{table.file}: line {one.line} ({one.owner}) and line {other.line} ({other.owner}) share the ids "
            f"{other.base} to {min(one.end, other.end) - 1}: each may change the other's files"
        )
        mend = Remedy(words="give one of them another range, and chown what is in use of the old one")
        yield wants.say("sub-ids", "missing" if mine else "weak", what, mend)
    for name, number in sorted(login.names.items(), key=lambda pair: pair[1]):
        if number and any(one.base <= number < one.end for one in own):
            what = f"{table.file}: the ids of {login} hold {number}, which is {name}: root in a container may become it"
            yield wants.say("sub-ids", "missing", what, Remedy(words="give him another range, above 100000"))
            return


def _same(login: Login, one: str, other: str) -> bool:
    """Return whether two owners, as they are written, are one user."""
    first, second = (str(login.names.get(owner, owner)) for owner in (one, other))
    return first == second


def helpers(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield whether newuidmap and newgidmap may do what they are for."""
    login = seen.login
    if login is None:
        return
    for subject, found in (("newuidmap", login.uidmap), ("newgidmap", login.gidmap)):
        if not found.path:
            yield wants.say(subject, "missing", f"{subject} is not installed", remedies.install(seen, "newuidmap"))
        elif found.nosuid:
            what = f"{found.path} is on a file system that is mounted nosuid, and so gets no right of root's"
            yield wants.say(subject, "missing", what, Remedy(words="mount -o remount,suid it, and in /etc/fstab"))
        elif not _may(found):
            what = f"{found.path} has neither the setuid bit of root nor the file capability that it needs"
            yield wants.say(subject, "missing", what, remedies.setuid(found.path))
        else:
            by = "by file capability" if found.capable else "setuid root"
            yield wants.say(subject, "ok", f"{found.path}, {by}")


def _may(found: Helper) -> bool:
    return found.capable or (found.setuid and found.owner == 0)


def session(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield what is to be said of the runtime directory, of linger, and of services of users."""
    login = seen.login
    if login is None:
        return
    yield _runtime(seen, wants, login)
    if seen.init == "systemd" and wants.covers("linger"):
        if login.linger:
            yield wants.say("linger", "ok", f"the systemd of {login} starts at boot")
        elif login.linger is False:
            what = f"the systemd of {login} ends with the last login, and does not start at boot"
            yield wants.say("linger", "missing", what, remedies.linger(login))
        else:
            yield wants.say("linger", "unknown", "whether systemd starts at boot for this user is not known")
    if seen.openrc is not None:
        yield from _openrc(seen, wants, login, seen.openrc)


def _openrc(seen: Seen, wants: Wants, login: Login, found: OpenRC) -> Iterator[Finding]:
    """Yield whether OpenRC has services of users, and starts this one's at boot."""
    if found.users and login.name and wants.covers("linger"):
        if login.linger:
            yield wants.say("linger", "ok", f"the services of {login} are started at boot, by user.{login}")
        else:
            what = f"nothing starts the services of {login} at boot: no runlevel has user.{login}"
            yield wants.say("linger", "missing", what, remedies.start_openrc_of(seen, login))
    if not wants.covers("user services"):
        return
    mend = Remedy(words=f"appbox --user {login.name or login.uid} as root makes init scripts that run as him")
    if found.users:
        yield wants.say("user services", "ok", f"{found} has services of users")
    elif found.version >= USER_SERVICES:
        what = f"{found} has services of users, but what starts them, openrc-user, is not installed"
        yield wants.say("user services", "weak", what, mend)
    else:
        what = f"{found} has no services of users, which came with 0.60"
        yield wants.say("user services", "weak", what, mend)


_UNSET: Final = Remedy(words="unset XDG_RUNTIME_DIR, or log in as that user instead of using su")


def _runtime(seen: Seen, wants: Wants, login: Login) -> Finding:
    found, subject = login.runtime, "runtime directory"
    mend = remedies.runtime_directory(seen, login)
    named = "XDG_RUNTIME_DIR is" if found.said else "the runtime directory is"
    if found.instead:
        lacking = f"{found.path} {found.fault}" if found.there else f"no login has made {found.path}"
        if found.instead_fault:
            away = Remedy(words=f"let root delete {found.instead}, or name a directory of your own as XDG_RUNTIME_DIR")
            return wants.say(subject, "missing", f"{lacking}, and {found.instead} {found.instead_fault}", away)
        return wants.say(subject, "weak", f"{lacking}: appbox uses {found.instead}", mend)
    if not found.there:
        usual = found.path == f"/run/user/{login.uid}" and seen.init != "none"
        return wants.say(subject, "missing", f"{named} {found.path}, which is not there", mend if usual else _UNSET)
    if found.fault:
        close = Remedy(words=f"chmod 0700 {found.path}")
        remedy = close if "open to others" in found.fault else _UNSET
        return wants.say(subject, "missing", f"{named} {found.path}, which {found.fault}", remedy)
    if found.file_system not in _TMPFS:
        what = f"{named} {found.path}, which is on {found.file_system} and outlives a reboot"
        return wants.say(subject, "weak", what, mend)
    return wants.say(subject, "ok", f"{found.path} is {login}'s alone, on tmpfs")


def delegation(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield which controllers the user's systemd may use. Under OpenRC root's script gives a service its cgroup."""
    login = seen.login
    if login is None or seen.init != "systemd" or not wants.covers("delegation"):
        return
    given = login.promised if login.delegated is None else login.delegated
    if given is None:
        yield wants.say("delegation", "unknown", f"systemd does not say what it gives to {login}")
        return
    there = seen.cgroups.controllers if seen.cgroups else frozenset()
    lacking = [name for name in remedies.CONTROLLERS if name not in given and name in there]
    listed = " ".join(sorted(given)) or "none"
    data = {"controllers": sorted(given)}
    if lacking and login.promised is not None and login.promised.issuperset(lacking):
        what = f"the systemd of {login} may use {', '.join(lacking)} from its next start on"
        yield wants.say("delegation", "weak", what, Remedy(words="log out and in again, or reboot"), data=data)
    elif lacking:
        what = f"the systemd of {login} may use the controllers {listed}, but not {', '.join(lacking)}"
        state: State = "missing" if wants.asked else "weak"
        yield wants.say("delegation", state, what, remedies.delegate(login), data=data)
    elif not given:
        what = f"the systemd of {login} may use no controller, since this host has none of them"
        yield wants.say("delegation", "weak", what, Remedy(words="see what is said of cgroups"), data=data)
    else:
        yield wants.say("delegation", "ok", f"the systemd of {login} may use the controllers {listed}", data=data)


def ports(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield from which port on a user's services may listen."""
    start = seen.kernel.port_start
    if seen.login is None or not wants.covers("ports"):
        return
    lowest = wants.lowest_port or _USUAL_PORT
    if start <= lowest:
        yield wants.say("ports", "ok", f"services of users may have ports from {start} on", data={"first": start})
    else:
        what = f"services of users cannot have ports below {start}"
        mend = remedies.sysctl("net.ipv4.ip_unprivileged_port_start", str(lowest))
        yield wants.say("ports", "missing", what, mend, data={"first": start})
