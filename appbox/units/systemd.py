"""A service as a systemd unit file (systemd.unit(5), systemd.service(5)); text only.

- Type=exec: systemd reports a start only when the script could be executed; the script then becomes the runtime.
- KillMode=mixed: the stop signal goes to the runtime alone, which hands it to the service; SIGKILL goes to all.
- Delegate=yes: the script makes cgroups below the unit's own.
- PrivateMounts=yes: the overlay is seen by nobody else, and the kernel takes it away with the last process.
- IgnoreSIGPIPE=no: a container starts with the default of every signal, as under any other init.
- OOMPolicy=continue: whether the loss of one process is the end of a service, the service knows.
- The first start counts for StartLimitBurst too, hence one more than there may be restarts.
"""

from __future__ import annotations

from typing import Final

from appbox.units import declared, places
from appbox.units.files import Link, UnitFile, marker
from appbox.units.model import Unit, success_statuses
from appbox.units.render import template

_SLACK: Final = 30
"""Seconds beyond what a start or a check may take by itself, after which systemd ends it."""


def render(unit: Unit) -> tuple[UnitFile, ...]:
    """Return the unit files of a service, the service's own first."""
    # The network is up before any user's manager is started, which knows no unit of the system.
    net = ("net",) if unit.network and (unit.user or not unit.rootless) else ()
    text = template(
        "systemd/service.j2",
        unit=unit,
        marker=marker(unit.name),
        requires=_units(unit.requires),
        wants=_units((*unit.wants, *net)),
        after=_units((*unit.requires, *unit.wants, *unit.after, *net)),
        mounts=" ".join((unit.bundles, *unit.writable_mounts)),
        burst=unit.restart_limit.count + 1,
        success=" ".join(map(str, success_statuses(unit.stop_signal))),
        boot="default" if unit.rootless and not unit.user else "multi-user",
        type="notify" if unit.notify else "exec",
        start_seconds=unit.patience + (0 if unit.notify else _SLACK),  # nobody else waits for the word
    )
    own, schedule, health, timer, *snapshots = places.files_of("systemd", unit.name)
    text += declared.line(unit) if unit.user else ""
    found = [UnitFile(own, text, 0o644)]
    if unit.schedule:
        found.append(UnitFile(schedule, template("systemd/timer.j2", unit=unit, marker=marker(unit.name)), 0o644))
    if unit.check:
        for path, name in ((health, "health-service"), (timer, "health-timer")):
            seconds = unit.check.timeout + _SLACK
            text = template(
                f"systemd/{name}.j2",
                unit=unit,
                marker=marker(unit.name),
                check_seconds=seconds,
                orders=unit.user and unit.check.order,
            )
            found.append(UnitFile(path, text, 0o644))
    if unit.snapshots:
        for path, name in zip(snapshots, ("snapshot-service", "snapshot-timer"), strict=True):
            text = template(f"systemd/{name}.j2", unit=unit, marker=marker(unit.name))
            found.append(UnitFile(path, text, 0o644))
    return tuple(found)


def link(unit: Unit) -> Link | None:
    """Return the link that lets a service start at boot, or a job at its times."""
    service, timer = places.links_of("systemd", unit.name)
    return timer if unit.schedule else service


def _units(names: tuple[str, ...]) -> str:
    """The units of these services in a stable order; `net` is the target that says the network is up."""
    return " ".join(sorted({"network-online.target" if name == "net" else f"{name}.service" for name in names}))
