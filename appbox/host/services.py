"""The init system: starting and stopping units, and what it knows of them.

Units are enabled by the links that `systemctl enable` and `rc-update add` would make, so that it works the same in a
root that is not running, and needs no process.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol

from appbox import owner
from appbox.errors import AppboxError, HostLacks
from appbox.health_line import sentence
from appbox.host import health_state, openrc, process, runc
from appbox.host.facts import InitKind
from appbox.store import paths
from appbox.units import places

_TIMEOUT: Final = 900.0
"""Seconds that the init system may take for one stop; services have their own, shorter limits."""

_START_TIMEOUT: Final = 86_400.0 + _TIMEOUT
"""Seconds that it may take for one start: that of a service is complete when it is healthy, within a day."""

_STAMPS: Final = re.compile(r'\A(?:[0-9-]{10}T[0-9:]{8}Z )?(?:time="[^"]*" )?')
"""The time of a line as the log files and as the runtime have it."""

State = Literal["active", "ended", "failed"]
"""`ended`: the unit is not running, and its last run, if any, was a success."""

_SAID: Final = 1 << 16
"""Bytes that are kept of what a reload says."""
_STOPPED: Final = 3
_CRASHED: Final = 32


class Services(Protocol):
    """What every init system can do with a unit."""

    kind: InitKind

    def reload(self) -> None:
        """Make the init system read its unit files again."""

    def start(self, name: str) -> None:
        """Start a unit; nothing happens when it runs."""

    def stop(self, name: str) -> None:
        """Stop a unit and wait for its end; nothing happens when it does not run."""

    def prepare(self, name: str, *, units: bool) -> None:
        """Do what can be done before a unit that runs is stopped for a while; `units`: it has been written anew."""

    def start_again(self, name: str) -> None:
        """Start a unit that was stopped for a while, after `prepare`."""

    def restart(self, name: str) -> None:
        """Stop and start a unit."""

    def reload_service(self, name: str) -> None:
        """Have a running service read its configuration again."""

    def schedule(self, name: str, *, on: bool, snapshots: bool = False) -> None:
        """Start a timed job, or the snapshots of a service, at its times from now on, or no longer."""

    def armed(self, name: str) -> bool:
        """Return whether a timed job is started at its times."""

    def forget(self, name: str) -> None:
        """Make the init system forget that a service, or a check of its health, has failed."""

    def state(self, name: str) -> State:
        """Return what the init system thinks of a unit."""

    def tries(self, name: str) -> int:
        """Return how often a service was started again, without anybody's asking, since somebody started it."""

    def log_mark(self, name: str) -> int:
        """Return where a service's log ends now, for `log_tail`."""

    def busy(self, name: str) -> bool:
        """Return whether a unit runs, or is about to be started again without anybody's asking."""

    def log_tail(self, name: str, lines: int, after: int = 0) -> list[str]:
        """Return the last lines that the service wrote, of its last start or after a `log_mark`."""


class Systemd:
    """systemd through systemctl(1) and journalctl(1)."""

    kind: InitKind = "systemd"

    def reload(self) -> None:
        """Run `systemctl daemon-reload`."""
        self._ctl("daemon-reload")

    def start(self, name: str) -> None:
        """Run `systemctl start`, after forgetting earlier failures: they would count against the start limit."""
        self.forget(name)
        self._ctl("start", f"{name}.service")

    def stop(self, name: str) -> None:
        """Run `systemctl stop`."""
        self._ctl("stop", f"{name}.service")

    def prepare(self, name: str, *, units: bool) -> None:
        """Have earlier starts not count against the start limit, as `start` does."""
        del units
        self.forget(name)

    def start_again(self, name: str) -> None:
        """Run `systemctl start`."""
        self._ctl("start", f"{name}.service")

    def restart(self, name: str) -> None:
        """Run `systemctl restart`."""
        self.forget(name)
        self._ctl("restart", f"{name}.service")

    def reload_service(self, name: str) -> None:
        """Do what `systemctl reload` would."""
        reload_by_script(name)

    def schedule(self, name: str, *, on: bool, snapshots: bool = False) -> None:
        """Run `systemctl restart` or `stop` on the timer of the job, or of the snapshots."""
        self._ctl("restart" if on else "stop", f"{name}:snapshot.timer" if snapshots else f"{name}.timer")

    def armed(self, name: str) -> bool:
        """Ask `systemctl is-active` of the job's timer."""
        return process.run([*systemctl(), "is-active", "--quiet", f"{name}.timer"]).code == 0

    def forget(self, name: str) -> None:
        """Run `systemctl reset-failed` on all units that it may have; those that are not there do no harm."""
        units = (path.rpartition("/")[2] for path in places.files_of(self.kind, name))
        process.run([*systemctl(), "reset-failed", *units])

    def state(self, name: str) -> State:
        """Ask `systemctl show`; a unit that waits for its next try has failed already."""
        argv = [*systemctl(), "show", "--property=ActiveState,SubState", f"{name}.service"]
        shown = dict(line.partition("=")[::2] for line in process.run(argv).out.splitlines())
        if shown.get("SubState") == "auto-restart" or shown.get("ActiveState") == "failed":
            return "failed"
        return "ended" if shown.get("ActiveState") == "inactive" else "active"

    def tries(self, name: str) -> int:
        """Ask `systemctl show`; the count begins anew with each start that was asked for."""
        argv = [*systemctl(), "show", "--property=NRestarts", "--value", f"{name}.service"]
        found = process.run(argv).out.strip()
        return int(found) if found.isdigit() else 0

    def log_mark(self, name: str) -> int:
        """Return the time, in microseconds: the journal has one for each line."""
        del name
        return time.time_ns() // 1000

    def busy(self, name: str) -> bool:
        """Ask `systemctl show`: a unit that waits for its next try is being activated."""
        argv = [*systemctl(), "show", "--property=ActiveState", "--value", f"{name}.service"]
        return process.run(argv).out.strip() not in {"", "inactive", "failed"}

    def log_tail(self, name: str, lines: int, after: int = 0) -> list[str]:
        """Return the last lines that the service itself wrote into the journal, or what systemd says of it.

        Each start is an invocation of its own (systemd.exec(5), $INVOCATION_ID): what an earlier one wrote, another
        version perhaps, does not say why this one failed. One that is tried again is an invocation for each try, and
        the last one may have said nothing yet: then what was written since the mark is what there is to say.
        """
        journal = process.find("journalctl")
        if journal is None:
            return []
        unit = f"{name}.service"
        shown = process.run([*systemctl(), "show", "--property=InvocationID", "--value", unit]).out.strip()
        argv = [journal, "--quiet", "--lines", str(lines), "--output", "cat", "--no-pager"]
        own = [*argv, f"{journal_field('UNIT')}={unit}"]
        since = f"--since=@{after // 1_000_000}.{after % 1_000_000:06}"
        this = [*own, f"_SYSTEMD_INVOCATION_ID={shown}"] if shown else own
        for pause in (0.0, 0.3):  # the journal takes its time to write what a process has said that is gone
            time.sleep(pause)
            for one in ([*own, since] if after and self.tries(name) else this, this):
                if found := process.run(one).out.splitlines():
                    return found
        said = [f"INVOCATION_ID={shown}"] if shown else ["--unit" if _system() else "--user-unit", unit]
        return process.run([*argv, *said]).out.splitlines()

    def _ctl(self, verb: str, *units: str) -> None:
        mark = self.log_mark("")
        result = process.run([*systemctl(), verb, *units], timeout=_limit(verb))
        if result.code != 0:
            refuse_unhealthy(self, units, mark)
            where = units[0] if units else "systemd"
            why = _why(self, verb, units, result, mark)
            raise AppboxError(f"systemctl {verb} failed", where=where, why=why, hint=_hint(units))


def systemctl() -> list[str]:
    """Return the words that begin every command to the manager of the host's units, or of the user's."""
    program = process.need("systemctl", "systemd runs on this host")
    return [program] if _system() else [program, "--user"]


def cgroups_of(kind: InitKind, name: str) -> list[str]:
    """Return where the cgroup of a service's unit may be, relative to where they are mounted; OpenRC has two ways."""
    if kind != "systemd":
        return [f"openrc.{name}", name]
    argv = [*systemctl(), "show", "--property=ControlGroup", "--value", f"{name}.service"]
    return [found] if (found := process.run(argv).out.strip().strip("/")) else []


def journal_field(name: str) -> str:
    """Return the journal's field for what a unit wrote (systemd.journal-fields(7))."""
    return f"_SYSTEMD_{name}" if _system() else f"_SYSTEMD_USER_{name}"


def _system() -> bool:
    """Return whether units are the system's: the host's own services', and those of users for whom root works."""
    own = owner.current()
    return own is None or own.by_root


def _blind() -> bool:
    """Return whether this is root for a user: what the user can write is not for root to read.

    A log may be a symlink to what only root can read, a container's state may name anybody's process.
    """
    own = owner.current()
    return own is not None and own.by_root and process.outside() is None


class OpenRC:
    """OpenRC through rc-service(8)."""

    kind: InitKind = "openrc"

    def reload(self) -> None:
        """Have OpenRC ask every script anew for its dependencies, at its next command.

        It compares whole seconds (librc-depend.c, rc_deptree_update_needed): a script that came in the second in which
        it last asked is not known to it. Such a service starts, but is not stopped when the machine goes down.
        """
        with contextlib.suppress(FileNotFoundError):
            os.utime(f"{paths.OPENRC_STATE}/deptree", (0, 0))

    def start(self, name: str) -> None:
        """Run `rc-service start`, after forgetting an earlier crash."""
        self.forget(name)
        self._rc(name, "start")

    def stop(self, name: str) -> None:
        """Run `rc-service stop`. What cleans up behind it may be what has to be repaired: the service is stopped.

        The supervisor ends the run script alone. Where that is lost, nobody ends a container that ignores its signal.
        """
        try:
            self._rc(name, "stop")
        except AppboxError:
            if self.state(name) == "active" or _blind():
                raise
            runc.end(name)
            self.forget(name)

    def prepare(self, name: str, *, units: bool) -> None:
        """Have OpenRC ask all scripts for their dependencies now: the next command would, and that takes its time."""
        del name
        if units and process.find("rc-update") is not None:
            process.run([*openrc.words("rc-update"), "--update"])

    def start_again(self, name: str) -> None:
        """Run `rc-service start`."""
        self._rc(name, "start")

    def restart(self, name: str) -> None:
        """Run `rc-service restart`."""
        self._rc(name, "restart")

    def reload_service(self, name: str) -> None:
        """Do what `rc-service reload` would."""
        reload_by_script(name)

    def schedule(self, name: str, *, on: bool, snapshots: bool = False) -> None:
        """Do nothing: cron reads its tables by itself."""

    def armed(self, name: str) -> bool:
        """Return true: what is in a table of cron is started."""
        del name
        return True

    def forget(self, name: str) -> None:
        """Run `rc-service zap` on a service that has failed."""
        if self.state(name) == "failed":
            process.run([*openrc.words(), name, "zap"])

    def state(self, name: str) -> State:
        """Ask `rc-service status`, which ends with 3 for a stopped service and with 32 for a crashed one.

        A service that its supervisor has given up is stopped, and is marked as failed until its next start.
        """
        code = process.run([*openrc.words(), name, "status"]).code
        if code == _CRASHED or (code == _STOPPED and os.path.exists(f"{paths.OPENRC_STATE}/failed/{name}")):
            return "failed"
        return "ended" if code == _STOPPED else "active"

    def tries(self, name: str) -> int:
        """Read what its supervisor has noted."""
        return openrc.respawns(name)

    def log_mark(self, name: str) -> int:
        """Return the size of the log file in bytes."""
        if _blind():
            return 0
        try:
            return os.stat(paths.log_file(name)).st_size
        except OSError:
            return 0

    def busy(self, name: str) -> bool:
        """Ask `rc-service status`: only a stopped service has no supervisor."""
        return process.run([*openrc.words(), name, "status"]).code != _STOPPED

    def log_tail(self, name: str, lines: int, after: int = 0) -> list[str]:
        """Return the last lines of the log file, which is a new one when it has become smaller."""
        if _blind():
            return []
        try:
            with open(paths.log_file(name), "rb") as file:
                end = file.seek(0, 2)
                file.seek(max(after if after <= end else 0, end - 65536))
                return file.read(65536).decode("utf-8", "replace").splitlines()[-lines:]
        except OSError:
            return []

    def _rc(self, name: str, verb: str) -> None:
        mark = self.log_mark(name)
        result = process.run([*openrc.words(), name, verb], timeout=_limit(verb))
        if result.code != 0:
            refuse_unhealthy(self, (name,), mark)
            why = _why(self, verb, (name,), result, mark)
            raise AppboxError(f"rc-service {name} {verb} failed", where=name, why=why, hint=_hint((name,)))


class NoInit:
    """A host without a service manager: services run in the foreground with `appbox run`."""

    kind: InitKind = "none"

    def reload(self) -> None:
        """Do nothing."""

    def start(self, name: str) -> None:
        """Raise HostLacks: nothing could keep the service running."""
        raise HostLacks(
            "there is no init system to start it", where=name, hint=f"run it in the foreground: appbox run {name}"
        )

    def stop(self, name: str) -> None:
        """Raise HostLacks: there is no unit that could be stopped."""
        raise HostLacks("there is no init system to stop it", where=name, hint="end it where it runs")

    def prepare(self, name: str, *, units: bool) -> None:
        """Do nothing: `stop` says why."""

    def start_again(self, name: str) -> None:
        """Raise HostLacks, as `start` does."""
        self.start(name)

    def restart(self, name: str) -> None:
        """Raise HostLacks, as `start` does."""
        self.start(name)

    def reload_service(self, name: str) -> None:
        """Reload a service that runs in the foreground."""
        reload_by_script(name)

    def schedule(self, name: str, *, on: bool, snapshots: bool = False) -> None:
        """Do nothing: there is no clock that starts anything."""

    def armed(self, name: str) -> bool:
        """Return false: nothing starts it."""
        del name
        return False

    def forget(self, name: str) -> None:
        """Do nothing: nobody remembers."""

    def state(self, name: str) -> State:
        """Return whether its container runs."""
        return "active" if runc.running(name) else "ended"

    def tries(self, name: str) -> int:
        """Return 0: nobody starts it again."""
        del name
        return 0

    def log_mark(self, name: str) -> int:
        """Return nothing, since there is no log."""
        del name
        return 0

    def busy(self, name: str) -> bool:
        """Return whether its container runs."""
        return runc.running(name) is not None

    def log_tail(self, name: str, lines: int, after: int = 0) -> list[str]:
        """Return nothing: a service in the foreground writes to its terminal."""
        del name, lines, after
        return []


def of_kind(kind: InitKind) -> Services:
    """Return the control of an init system."""
    own = owner.current()
    if kind != "none" and own is not None and own.by_root and process.outside() is not None:
        from appbox.host import delegated  # noqa: PLC0415 - it knows what this module has

        return delegated.Delegated(kind)
    if kind == "systemd":
        return Systemd()
    return OpenRC() if kind == "openrc" else NoInit()


def reload_by_script(name: str, admit: Callable[[int], None] | None = None) -> None:
    """Call the run script itself, as the units do: what a failing command says is then known. It is waited for.

    `admit` moves it to where it may start a command in the container (see `process.follow`).
    """
    words = [*runc.scope(), f"{paths.CONTAINERS}/{name}/run", "reload"]
    if admit is None:
        result = process.run(words, timeout=_TIMEOUT)
    else:
        said = bytearray()
        code = process.follow(words, lambda data: said.extend(data[: _SAID - len(said)]), timeout=_TIMEOUT, admit=admit)
        result = process.Result(code, said.decode("utf-8", "replace"), "")
    if result.code != 0:
        why = result.message.removeprefix(f"appbox: {name}: ")
        raise AppboxError("cannot be reloaded", where=name, why=why, hint=_hint((name,)))


def last_words(control: Services, name: str, after: int = 0) -> str:
    """Return the last lines that a service wrote, as one. One that is tried again and again says the same each time."""
    said = (_STAMPS.sub("", line).strip() for line in control.log_tail(name, 5, after))
    lines = [line.removeprefix(f"appbox: {name}: ") for line in said]
    return " | ".join(dict.fromkeys(line for line in lines if line and not line.startswith("level=warning")))


def _why(control: Services, verb: str, units: tuple[str, ...], result: process.Result, after: int = 0) -> str:
    """Return why a command of the init system failed; only the service itself knows why it did not start."""
    said = [line.strip(" *") for line in result.err.splitlines()]
    # It was not even tried, since a service that it requires did not start.
    for line in said:
        if "dependency job" in line or "cannot start" in line:
            return line
    if not units or verb not in {"start", "restart"}:
        return result.message
    name = units[0].removesuffix(".service")
    # OpenRC tells of its own steps, too; whatever went well is not the reason.
    own = [line.removeprefix(f"appbox: {name}: ") for line in said if line.startswith("appbox: ")]
    return last_words(control, name, after) or " | ".join(own) or result.message


def in_own_words(control: Services, name: str, error: AppboxError, after: int = 0) -> AppboxError:
    """Return the error of a start that root did for this process, with the reason that the service itself gives."""
    try:
        refuse_unhealthy(control, (name,), after)
    except AppboxError as found:
        return found
    said = last_words(control, name, after) if control.kind == "openrc" else ""
    return AppboxError.of({**error.as_dict(), "why": said or error.why})


def _limit(verb: str) -> float:
    return _START_TIMEOUT if verb in {"start", "restart"} else _TIMEOUT


def refuse_unhealthy(control: Services, units: tuple[str, ...], after: int = 0) -> None:
    """Raise AppboxError for a service that did not become healthy, with the last words that it wrote."""
    if _blind():
        return
    for name in (unit.removesuffix(".service") for unit in units):
        found = health_state.load(name)
        if found is not None and found.state == "unhealthy":
            hint = f"appbox logs {name} shows more"
            raise AppboxError(sentence(found), where=name, why=last_words(control, name, after), hint=hint)


def _hint(units: tuple[str, ...]) -> str:
    return f"appbox logs {units[0].removesuffix('.service')} shows what it said" if units else ""
