"""Where the files of a service are for each init system, and the links that enable it. Values only."""

from __future__ import annotations

from appbox import owner
from appbox.host.facts import InitKind
from appbox.store import paths
from appbox.units.files import Link


def files_of(kind: InitKind, name: str) -> tuple[str, ...]:
    """Return every file that a service may have, its own unit or init script first; nothing without an init system.

    No service's name has a colon in it, so that those of its health check and its snapshots are nobody else's.
    """
    if kind == "systemd":
        leaves = [f"{name}.service", f"{name}.timer"]
        leaves += [f"{name}:{what}.{suffix}" for what in ("health", "snapshot") for suffix in ("service", "timer")]
        return tuple(f"{paths.SYSTEMD_UNITS}/{leaf}" for leaf in leaves)
    own = owner.current()
    script, tables = f"{paths.OPENRC_SCRIPTS}/{name}", (cron_file(name), crontab_part(name))
    # The tables of cron are root's.
    return () if kind == "none" else (script,) if own and not own.by_root else (script, *tables)


def cron_file(name: str) -> str:
    """Return the path of a job's table for cron. Debian's passes over files with a dot in their name."""
    return f"{paths.CRON}/appbox-{name.replace('.', 'DOT')}"


def crontab_part(name: str) -> str:
    """Return how a job's part of the one table of busybox's crond is called: FILE:NAME."""
    return f"{paths.CRONTAB}:{name}"


def links_of(kind: InitKind, name: str) -> tuple[Link, ...]:
    """Return every link that may enable a service: first as one that runs, then as a timed job."""
    if kind == "systemd":
        own = owner.current()
        boot = "default" if own and not own.by_root else "multi-user"
        places = ((f"{boot}.target.wants", f"{name}.service"), ("timers.target.wants", f"{name}.timer"))
        folder = paths.SYSTEMD_UNITS
        return tuple(Link(f"{folder}/{target}/{leaf}", f"{folder}/{leaf}") for target, leaf in places)
    return (Link(f"{paths.RUNLEVEL}/{name}", f"{paths.OPENRC_SCRIPTS}/{name}"),) if kind == "openrc" else ()
