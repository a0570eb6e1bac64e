"""The handlers of actions that start, stop and tell the running service."""

from __future__ import annotations

import contextlib
import itertools
import os

from appbox import hooks
from appbox.actions import (
    Action,
    Activate,
    BringBack,
    InstallUnit,
    Reload,
    RenderConfig,
    Replace,
    RunHook,
    Schedule,
    Stop,
    Switch,
)
from appbox.differences import only_described
from appbox.errors import AppboxError
from appbox.hooks import Hook
from appbox.host import replace_mount, runc, services, starts
from appbox.store import paths, seen, state
from appbox.work import Work


def stop(work: Work, action: Action) -> None:
    control = services.of_kind(work.facts.init)
    # The service is away from here on: what can be done before is.
    control.prepare(action.service, units=any(isinstance(one, InstallUnit) for one in _before_stop(work)))
    control.stop(action.service)
    if runc.running(action.service) is not None:
        raise AppboxError(
            "is still running",
            where=action.service,
            why="its container was not started by its unit",
            hint="end it first",
        )


def start(work: Work, action: Action) -> None:
    control = services.of_kind(work.facts.init)
    # systemd takes its time to read units; what only describes them can wait until the service is up again.
    late = not work.interrupted and only_described(work.plan.actions)
    if not late:
        control.reload()
    mark = control.log_mark(action.service)
    _start(control, work, action.service)
    starts.wait_until_runs(work.facts.init, action.service, mark)
    if late and control.kind == "systemd":
        control.reload()


def _start(control: services.Services, work: Work, name: str) -> None:
    if any(isinstance(one, Stop) and one.service == name for one in work.plan.actions):
        control.start_again(name)
        return
    # What still tries to start does so with what was there before, and a start would join it and share its fate.
    new = any(isinstance(one, RenderConfig | Activate | BringBack | InstallUnit | Switch) for one in work.plan.actions)
    (control.restart if new and control.state(name) == "active" else control.start)(name)


def _before_stop(work: Work) -> list[Action]:
    """Return the actions of a plan that come before it stops its service."""
    return list(itertools.takewhile(lambda one: not isinstance(one, Stop), work.plan.actions))


def schedule(work: Work, action: Action) -> None:
    assert isinstance(action, Schedule)  # noqa: S101
    control = services.of_kind(work.facts.init)
    control.reload()
    control.schedule(action.service, on=action.on, snapshots=action.snapshots)


def restart(work: Work, action: Action) -> None:
    control = services.of_kind(work.facts.init)
    control.reload()
    mark = control.log_mark(action.service)
    control.restart(action.service)
    starts.wait_until_runs(work.facts.init, action.service, mark)


def replace(work: Work, action: Action) -> None:
    assert isinstance(action, Replace)  # noqa: S101
    wanted = [mount for mount in work.desired.live if mount.table in action.files]
    process = runc.process_of(action.service)
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(work.bundle())
        found = []
        for mount in wanted:
            source = os.open(f"{paths.CURRENT}/{mount.path}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            stack.callback(os.close, source)
            found.append(replace_mount.Replacement(source, mount.target, mount.executable))
        replace_mount.replace(action.service, found)
        if not any(isinstance(one, Reload) for one in work.plan.actions):
            _note_seen(work, process, state.current_generation(fd))


def reload_service(work: Work, action: Action) -> None:
    process = runc.process_of(action.service)
    if process is None:
        return  # it has ended meanwhile, and begins with the new files
    services.of_kind(work.facts.init).reload_service(action.service)
    with work.bundle() as fd:
        _note_seen(work, process, state.current_generation(fd))


def _note_seen(work: Work, process: tuple[int, int] | None, generation: int) -> None:
    if process is not None:
        seen.write(work.root, work.desired.name, process, generation)


def run_hook(work: Work, action: Action) -> None:
    """Run a command of the manifest in the running container."""
    assert isinstance(action, RunHook)  # noqa: S101
    limit = work.desired.upgrade.hook_timeout
    hook = Hook(action.service, f"upgrade.{action.hook}", action.command, limit, work.facts.init)
    hooks.run_inside(work.root, hook)
