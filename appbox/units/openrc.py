"""A service as an OpenRC init script (openrc-run(8), supervise-daemon(8)); text only.

supervise-daemon starts a command again whenever it ends, and gives up after `respawn_max` times in `respawn_period`. It
does not know restarts on failure only, or none: for these the run script stays beside the runtime, and asks the
supervisor to end when the service ended well. With no restarts at all the script also refuses every start but the
first after `start_pre`; the supervisor then gives up and marks the service failed, as systemd does.
"""

from __future__ import annotations

from appbox.store import paths
from appbox.units import declared, places
from appbox.units.files import Link, UnitFile, marker
from appbox.units.model import StopSignal, Unit
from appbox.units.render import template

_HOST = ("localmount", "logger")
"""What comes first where the host has it; nothing of it is everywhere, Debian's OpenRC may lack even localmount."""
OPEN_FILES = 524_288
"""The hard limit that systemd gives every service; init itself often has no more than 4,096."""


def render(unit: Unit) -> tuple[UnitFile, ...]:
    """Return the files of a service, its init script first."""
    delay, times, period = _respawn(unit)
    text = template(
        "openrc/init.j2",
        unit=unit,
        marker=marker(unit.name),
        arguments="unit" if unit.restart == "always" else f"unit {unit.restart}",
        logs=paths.LOGS,
        delay=delay,
        times=times,
        period=period,
        retry=f"{_signal(unit.stop_signal)}/{unit.stop_seconds}/KILL/5",
        need=" ".join(sorted(set(unit.requires))),
        want=" ".join(sorted(set(unit.wants) - {"net"})),
        use=" ".join(sorted({*_HOST, *_optional(unit), *({"net"} & set(unit.wants))})),
        after=" ".join(sorted({"firewall", *unit.after})),
        open_files=OPEN_FILES,
    )
    text += declared.line(unit) if unit.user else ""
    found = [UnitFile(places.files_of("openrc", unit.name)[0], text, 0o755)]
    name = "cron" if unit.cron and unit.enable else "snapshots" if unit.snapshots_cron else ""
    if name:  # no job has snapshots at certain times
        path = places.crontab_part(unit.name) if unit.crontab else places.cron_file(unit.name)
        found.append(UnitFile(path, template(f"openrc/{name}.j2", unit=unit, marker=marker(unit.name)), 0o644))
    return tuple(found)


def link(unit: Unit) -> Link | None:
    """Return the link that lets a service start at boot; a job is started by cron."""
    return None if unit.schedule else places.links_of("openrc", unit.name)[0]


def _optional(unit: Unit) -> tuple[str, ...]:
    """Services of the host that this one has a use for."""
    return (("dns", "net") if unit.network else ()) + (("netmount",) if unit.mounts_for else ())


def _respawn(unit: Unit) -> tuple[int, int, int]:
    """Delay in seconds, how often (0: without a limit), and within how many seconds."""
    if unit.restart == "no":
        return 0, 1, 3600
    # A limit out of reach is left out: supervise-daemon would warn of it at every start.
    times = 0 if unit.never_too_often else unit.restart_limit.count
    return unit.restart_delay, times, unit.restart_limit.seconds


def _signal(signal: StopSignal) -> str:
    """The signal as a retry schedule has it: real-time ones have no name there, and a bare number would be a time."""
    name = signal.name.removeprefix("SIG")
    return name if name.isalpha() and not name.startswith("RT") else f"-{signal.number}"
