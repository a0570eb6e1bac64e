"""What the run script and the init system are told of a service. Pure."""

from __future__ import annotations

from appbox import container, health, hostnames, owner, pasta, resources, schedule, sharing
from appbox.host.facts import Facts
from appbox.locked import Locked
from appbox.manifest import Manifest
from appbox.quantities import Signal
from appbox.schedule import Calendar
from appbox.units import openrc, systemd
from appbox.units.files import Link, UnitFile
from appbox.units.model import (
    PATH,
    Bridge,
    LogFiles,
    RestartLimit,
    Rootless,
    RunScript,
    Scratch,
    StopSignal,
    Unit,
    When,
)


def script(locked: Locked, facts: Facts, base: int, scratch: tuple[Scratch, ...]) -> RunScript:
    """Return what the run script of a version has to know; `base` is the first id of the service's range."""
    service = locked.manifest.service
    return RunScript(
        name=locked.manifest.name,
        version=locked.manifest.version,
        base=base,
        resolver=hostnames.resolver(locked),
        hosts=hostnames.hosts(locked),
        pasta=pasta.through(pasta.options(locked), facts),
        shares=sharing.target(locked.manifest),
        sharable=hostnames.kind(locked.manifest.network.mode) not in {"host", "service"},
        stop_signal=_stop_signal(locked),
        check=health.check(locked.manifest.health),
        notify=health.notify(locked.manifest, facts.init),
        host_network=locked.manifest.network.mode == "host",
        bridge=_bridge(locked),
        persistent=locked.manifest.security.rootfs == "persistent",
        timezone=locked.borrowed.zone is not None,
        scratch=scratch,
        limits=resources.limits(locked.manifest.resources),
        secrets=len(locked.manifest.secrets),
        log=LogFiles(service.log.max_size, service.log.keep),
        job=bool(service.schedule),
        reload=_reload(locked.manifest),
        rootless=_rootless(),
        home=own.home if (own := owner.current()) else "/root",
        runtime=runtime(facts),
    )


def runtime(facts: Facts) -> str:
    """Return the program that runs services: what the host was found to have, runc where nobody has looked."""
    found = facts.abilities.runtime if facts.abilities else None
    return found.name if found else "runc"


def _rootless() -> Rootless | None:
    own = owner.current()
    if own is None:
        return None
    uids, gids = (" ".join(map(str, ids)) for ids in (own.uids, own.gids))
    return Rootless(uids, gids, own.alone, own.by_root)


def _bridge(locked: Locked) -> Bridge | None:
    network = locked.attachment.network if locked.attachment else None
    return Bridge(network.name, network.bridge) if network else None


def unit(locked: Locked, facts: Facts) -> Unit:
    """Return the service as its init system sees it; ManifestError for a time that OpenRC's cron cannot say."""
    manifest = locked.manifest
    service, own = manifest.service, owner.current()
    calendar = schedule.parse(service.schedule) if service.schedule else None
    snapshots = schedule.parse(manifest.snapshots.schedule) if manifest.snapshots.schedule else None
    return Unit(
        name=manifest.name,
        version=manifest.version,
        restart=service.restart,
        restart_delay=service.restart_delay,
        restart_limit=RestartLimit(service.restart_limit.count, service.restart_limit.seconds),
        stop_signal=_stop_signal(locked),
        stop_timeout=manifest.process.stop_timeout,
        pids=manifest.resources.pids is not None,
        requires=tuple(name for name in (sharing.target(manifest), *service.requires) if name),
        after=service.after,
        wants=service.wants,
        mounts_for=tuple(sorted(v.source for v in manifest.volumes.values() if v.source)),
        network=hostnames.kind(manifest.network.mode) in {"host", *hostnames.OWN_NETWORK},
        check=health.check(manifest.health),
        notify=manifest.service.notify,
        schedule=When(str(calendar)) if calendar else None,
        cron=_cron(locked, calendar, "service") if calendar and facts.init == "openrc" else None,
        snapshots=When(str(snapshots)) if snapshots else None,
        snapshots_cron=_cron(locked, snapshots, "snapshots") if snapshots and facts.init == "openrc" else None,
        program=_program(locked, facts) if snapshots else "",
        crontab=facts.cron == "crontab",
        enable=service.enable,
        reload=service.reload is not None,
        rootless=own is not None,
        user=own.name if own is not None and own.by_root else "",
        uid=own.uid if own is not None and own.by_root else 0,
    )


def _program(locked: Locked, facts: Facts) -> str:
    """Return the program that takes snapshots, by a path that can stand in a unit."""
    if PATH.fullmatch(facts.program):
        return facts.program
    what = f"{facts.program} cannot stand in a unit" if facts.program else "this appbox was not started as a program"
    hint = "install appbox, and use it from there"
    raise locked.refuse(("snapshots", "schedule"), f"needs an installed appbox: {what}", hint)


def _cron(locked: Locked, calendar: Calendar, table: str) -> When:
    try:
        return When(schedule.cron(calendar))
    except schedule.CronError as error:
        hint = "write a time that cron can say too, in several services if need be"
        message = f"{error}, and it is what starts jobs under OpenRC"
        raise locked.refuse((table, "schedule"), message, hint) from error


def _reload(manifest: Manifest) -> str:
    """Return how the run script reloads the service: a signal's name, "command", or "" if it cannot."""
    how = manifest.service.reload
    return "" if how is None else how.name if isinstance(how, Signal) else "command"


def _stop_signal(locked: Locked) -> StopSignal:
    signal = container.stop_signal(locked)
    return StopSignal(signal.name, signal.number)


def render_units(unit: Unit, facts: Facts) -> tuple[UnitFile, ...]:
    """Return the files of the host's init system, the service's own first; none without one."""
    if facts.init == "systemd":
        return systemd.render(unit)
    return openrc.render(unit) if facts.init == "openrc" else ()


def link(unit: Unit, facts: Facts) -> Link | None:
    """Return the link that lets the service start at boot."""
    if facts.init == "systemd":
        return systemd.link(unit)
    return openrc.link(unit) if facts.init == "openrc" else None
