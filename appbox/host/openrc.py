"""Which OpenRC runs the services: the host's, or an ordinary user's own, which it has since 0.60.

A user's scripts are in $XDG_CONFIG_HOME/rc, what is known of those that run in $XDG_RUNTIME_DIR/openrc, and `--user`
means them to every command (OpenRC's user guide, "User services"). Root's service user.NAME starts the user's runlevel
at boot and stops all of it before a shutdown; without it both are left to the user.
"""

from __future__ import annotations

import os
from typing import Final

from appbox import owner
from appbox.host import process
from appbox.owner import Owner
from appbox.store import paths
from appbox.store.root import Root

_SESSIONS: Final = tuple(f"{place}/rc/sh/openrc-user.sh" for place in ("/usr/libexec", "/usr/lib", "/lib", "/libexec"))
"""What starts a user's services, below wherever a distribution has OpenRC's own programs."""
_RUNLEVELS: Final = "/etc/runlevels"


def has_users(root: Root) -> bool:
    """Return whether this OpenRC has services of users; the files tell, since asking it for its version takes time."""
    return any(root.exists(path) for path in _SESSIONS)


def users_own() -> Owner | None:
    """Return the user whose own OpenRC this process means, None where it is the host's."""
    own = owner.current()
    return None if own is None or own.by_root else own


def words(program: str = "rc-service") -> list[str]:
    """Return the words that begin every command to the OpenRC that runs the services; HostLacks without it.

    Programs get a small environment, and OpenRC looks for a user's scripts where XDG_CONFIG_HOME says.
    """
    found, own = process.need(program, "OpenRC runs on this host"), users_own()
    if own is None:
        return [found]
    told = ["/usr/bin/env", f"XDG_CONFIG_HOME={own.config}"] if own.config != f"{own.home}/.config" else []
    return [*told, found, "--user"]


def respawns(name: str) -> int:
    """Return how often supervise-daemon has started a service again; it notes that at each try, 0 at the first.

    It begins to count anew when its period is over, and what it noted is gone when it ends.
    """
    try:
        with open(f"{paths.OPENRC_STATE}/options/{name}/start_count", "rb") as file:
            found = file.read(16).strip()
    except OSError:
        return 0
    return int(found) if found.isdigit() else 0


def starts_at_boot(name: str) -> bool:
    """Return whether the services of a user are started at boot: root's user.NAME is in a runlevel."""
    try:
        levels = os.listdir(_RUNLEVELS)
    except OSError:
        return False
    return any(os.path.lexists(f"{_RUNLEVELS}/{level}/user.{name}") for level in levels)
