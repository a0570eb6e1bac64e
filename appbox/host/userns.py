"""The user namespace in which appbox works for an ordinary user: its root there is the user, its ids are the user's.

Files of containers have many owners, and only a root may give files away; in a user namespace of its own every user is
one (user_namespaces(7)). newuidmap(1) and newgidmap(1), which are privileged, map the subordinate ids into it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterable
from functools import partial
from typing import Final, NoReturn

from appbox.errors import HostLacks
from appbox.host import cgroups, process, starter, syscalls
from appbox.owner import Extent, Owner

_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def enter(owner: Owner) -> None:
    """Go on as root of a new user namespace of `owner`; returns at once when that was done before.

    A second process does; this one waits outside, starts programs, and ends as that one does. HostLacks when the host
    lets nobody make user namespaces, or not with these ids.
    """
    if process.outside() is not None:
        return
    _flush()
    ours, theirs = socket.socketpair()
    made, unmade = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        theirs.close()
        os.close(unmade)
        _stay(owner, child, ours, made)
    ours.close()
    os.close(made)
    if owner.by_root:
        _drop_privileges(owner)
    syscalls.end_with_parent()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    except OSError as error:
        raise HostLacks(
            "the kernel lets you make no user namespace", why=error.strerror or "", hint="appbox doctor says why"
        ) from error
    os.write(unmade, b"+")
    os.close(unmade)
    answer = theirs.recv(4096).decode("utf-8", "replace")
    if answer != "+":
        what, _, why = answer.partition("\n")
        raise HostLacks(what or "the user namespace could not be made", why=why, hint="appbox doctor says what to do")
    process.use_outside(starter.Outside(theirs))


def _drop_privileges(owner: Owner) -> None:
    """Be the user, with the user's groups, and nothing of root's: not even a directory that only root can reach.

    In a session of its own: a process may put words into its session's terminal as if they were typed, and what root's
    shell reads there it executes (ioctl_tty(2), TIOCSTI).
    """
    here = os.path.realpath(".") if os.path.exists(".") else "/"
    os.chdir("/")
    os.setsid()
    process.become_user(_identity(owner))
    _refuse_unreadable(owner)
    with contextlib.suppress(OSError):
        os.chdir(here)
    syscalls.be_traceable()  # or newuidmap would take this process for somebody else's
    for name in [name for name in os.environ if name.startswith("XDG_") or name in {"MAIL", "SUDO_USER"}]:
        del os.environ[name]
    os.environ |= {"HOME": owner.home, "USER": owner.name, "LOGNAME": owner.name, "XDG_RUNTIME_DIR": owner.runtime}


def _refuse_unreadable(owner: Owner) -> None:
    """Raise HostLacks where appbox or its Python is installed for root alone, who is this user from now on."""
    for code in (__file__, os.__file__):
        if not os.access(code, os.R_OK):
            raise HostLacks(
                f"{owner.name} cannot read appbox's own files",
                where=os.path.dirname(code),
                hint="install it where everybody can, with PIPX_HOME=/opt/pipx for instance",
            )


def _identity(owner: Owner) -> process.Identity:
    return process.Identity(owner.uid, owner.gid, tuple(os.getgrouplist(owner.name, owner.gid)))


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _stay(owner: Owner, child: int, line: socket.socket, made: int) -> NoReturn:
    """Be the process outside until the one within has ended, and end as it did."""
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: _forward(child, number, alone=owner.by_root))
    group = _cgroup() if owner.by_root else ""
    if os.read(made, 1):
        line.sendall(_mapped(owner, child).encode())
    os.close(made)
    if owner.by_root:
        from appbox.host import privileged  # noqa: PLC0415 - only root for a user needs it

        wanted = starter.serve(line, _identity(owner), partial(privileged.answer, owner))
    else:
        wanted = starter.serve(line)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if wanted is not None and code == 0 and owner.by_root:
        code = _run_as(_identity(owner), wanted[0], wanted[1], group)
    elif wanted is not None and code == 0:
        for number in _FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execve(wanted[0][0], wanted[0], wanted[1])  # noqa: S606 - that is the point
        except OSError as error:
            sys.stderr.write(f"appbox: {wanted[0][0]}: cannot be started: {error.strerror}\n")
            os._exit(8)
    if code < 0:
        # Whoever waits for us is to see that it was a signal.
        with contextlib.suppress(OSError):  # SIGKILL has no other way
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _cgroup() -> str:
    """Return the directory of this process's cgroup (cgroups(7)); "" where that is not version 2."""
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        return next((f"{cgroups.ROOT}{line[3:].rstrip()}" for line in file if line.startswith("0::")), "")
    return ""


def _leave_cgroup(group: str) -> None:
    """Go back to the cgroup that this process began in: the user could freeze what is in a container's."""
    with contextlib.suppress(OSError), open(f"{group}/cgroup.procs", "w", encoding="ascii") as file:
        file.write(str(os.getpid()))


def _run_as(identity: process.Identity, argv: list[str], env: dict[str, str], group: str) -> int:
    """Run a program as a user, in a session of its own (see `_drop_privileges`), and return how it ended.

    `group` is the cgroup that this process began in, which it may have left for the program's.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        process.become_user(identity)
        syscalls.end_with_parent()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python has passed over it
        try:
            os.execve(argv[0], argv, env)  # noqa: S606 - that is the point
        except OSError as error:
            os.write(2, f"appbox: {argv[0]}: cannot be started: {error.strerror}\n".encode())
        finally:
            os._exit(HostLacks.exit_code)
    _leave_cgroup(group)
    for number in (*_FORWARDED, signal.SIGWINCH):
        signal.signal(number, lambda number, _: _forward(child, number, alone=True))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _forward(child: int, number: int, *, alone: bool) -> None:
    """Pass a signal on that was meant for both; unless it is `alone` in its session, a terminal has sent it to both."""
    if alone or number != signal.SIGINT:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)


def _mapped(owner: Owner, child: int) -> str:
    """Map the ids of a user into the namespace of a process; return "+", or what is wrong and why, a line each."""
    if owner.alone:
        return _map_alone(owner, child)
    for program, ids in (("newuidmap", owner.uids), ("newgidmap", owner.gids)):
        path = process.find(program)
        if path is None:
            return f"{program} is not installed\nthe subordinate ids of {owner.name} are mapped by it"
        result = process.run([path, str(child), *_words(ids)], own=_identity(owner) if owner.by_root else None)
        if result.code != 0:
            return f"{program} does not map the ids of {owner.name}\n{result.message}"
    return "+"


def _words(ids: Iterable[Extent]) -> list[str]:
    return [word for one in ids for word in str(one).split()]


def _map_alone(owner: Owner, child: int) -> str:
    """Map the user's own id alone, for which no privilege is needed, once nobody there may leave its groups."""
    lines = (("setgroups", "deny"), ("uid_map", str(owner.uids[0])), ("gid_map", str(owner.gids[0])))
    for name, text in lines:
        try:
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            return f"the own id of {owner.name or owner.uid} cannot be mapped\n{error.strerror}"
    return "+"
