"""Starting, stopping and looking into services that are installed: through the init system and runc."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, NoReturn

from appbox.errors import AppboxError, HostLacks, UsageError
from appbox.host import delegated, gather, process, runc, services, starts
from appbox.host.facts import InitKind
from appbox.session import Options
from appbox.status import unknown
from appbox.store import elsewhere, paths, state
from appbox.store.root import Root

if TYPE_CHECKING:
    from appbox.logs import Wanted

_PATIENCE: Final = 10
"""Seconds between the stop signal and SIGKILL where the manifest says nothing."""

_RECORD: Final = 4096
"""Bytes read of the record of a run."""

_DONE: Final = {"start": "started", "stop": "stopped", "restart": "restarted"}


def control(options: Options, name: str, verb: str) -> str:
    """Start, stop or restart a service, and return what was done as a line."""
    with options.open_root() as root:
        init = _ready(options, root, name)
        elsewhere.refuse(root, init, name)
        control = services.of_kind(init)
        if verb == "stop":
            _end_foreground(root, name) if init == "none" else control.stop(name)
        else:
            runc.need("services run through it")
            before = _last_run(root, name)
            mark = control.log_mark(name)
            (control.start if verb == "start" else control.restart)(name)
            try:
                starts.wait_until_runs(init, name, mark)
            except AppboxError as error:
                _refuse_failed_run(root, name, before, error.why)
                raise
            _refuse_failed_run(root, name, before)
    return f"{name}: {_DONE[verb]}\n"


def _last_run(root: Root, name: str) -> bytes:
    return root.read(f"{paths.JOBS}/{name}", _RECORD) or b""


def _refuse_failed_run(root: Root, name: str, before: bytes, said: str = "") -> None:
    """Raise AppboxError when the run of a timed job has ended badly; `before` is the record of the one before it."""
    record = _last_run(root, name)
    if record == before:
        return
    from appbox import jobs  # noqa: PLC0415  # few services are jobs

    last = jobs.result(record)
    if last is not None and last.status != "0":
        hint = f"appbox logs {name} shows what it said"
        why = ": ".join(filter(None, (f"it ended with {last.status}", said)))
        raise AppboxError("its run has failed", where=name, why=why, hint=hint)


def _end_foreground(root: Root, name: str) -> None:
    """End a service that `appbox run` or its script started, the way a unit would: its signal, time, then SIGKILL."""
    if runc.running(name) is None:
        return
    found = state.load(root, name)
    meta = found.meta if found else {}
    patience = meta.get("manifest", {}).get("process", {}).get("stop_timeout", _PATIENCE)
    runc.kill(name, str(meta.get("stop_signal", "SIGTERM")))
    deadline = time.monotonic() + float(patience)
    while runc.running(name) is not None:
        if time.monotonic() > deadline:
            runc.kill(name, "SIGKILL")
            deadline = time.monotonic() + _PATIENCE
        time.sleep(0.05)


def _ready(options: Options, root: Root, name: str) -> InitKind:
    """Return the init system of a live root in which `name` is installed."""
    if not root.live:
        raise UsageError("nothing is started or stopped below --root", where=root.path)
    if name not in state.names(root):
        raise unknown(root, name)
    return gather.detect_init(root) if options.init == "auto" else gather.known_init(options.init)


def enter(options: Options, name: str, command: list[str]) -> NoReturn:
    """Become a program inside a running service; its exit code is ours."""
    with options.open_root() as root:
        init = _ready(options, root, name)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if init != "none" and delegated.wanted():
        delegated.join(init, name)
    runc.enter(name, command, terminal=terminal)


def foreground(options: Options, name: str) -> NoReturn:
    """Become the service's run script: nothing of appbox stays behind."""
    with options.open_root() as root:
        elsewhere.refuse(root, _ready(options, root, name), name)
    runc.need("services run through it")
    if runc.running(name) is not None:
        raise AppboxError("is running already", where=name, hint=f"appbox stop {name}")
    process.become([f"{paths.CONTAINERS}/{name}/run"])


def logs(options: Options, name: str, wanted: Wanted, *, stamps: bool, hooks: bool = False) -> None:
    """Show what a service wrote, as the journal has it, or its log files; or what its upgrades' commands printed."""
    from appbox import logs as reading  # noqa: PLC0415

    with options.open_root() as root:
        init = _ready(options, root, name)
        if init == "systemd" and not hooks:
            elsewhere.refuse(root, init, name)  # the journal of the system is not the user's to read
    if hooks:
        reading.show(reading.from_files(name, wanted, paths.hook_log(name)), stamps=stamps, as_json=options.json)
        return
    if init == "none":
        raise HostLacks("without an init system nothing keeps its logs", where=name, hint="they go where it was run")
    found = reading.from_journal(name, wanted) if init == "systemd" else reading.from_files(name, wanted)
    reading.show(found, stamps=stamps, as_json=options.json)


def reload(options: Options, name: str) -> str:
    """Let a running service read its configuration again, and return what was done as a line."""
    with options.open_root() as root:
        init = _ready(options, root, name)
        found = state.load(root, name)
        service = found.meta.get("manifest", {}).get("service", {}) if found else {}
    if "reload" not in service:
        raise AppboxError("does not say how it reloads", where=name, hint="set service.reload, or restart it")
    services.of_kind(init).reload_service(name)
    return f"{name}: reloaded\n"
