"""The commands of [upgrade]: run in the service's container, or once in its place. The caller holds the lock.

Before and after an upgrade the service runs, and its commands run beside it as its own process does: the same user,
environment and limits. A migration runs while it is down, in a container of one version that has everything that the
service would have (mounts, secrets, names, network), made by the same run script. That container has the service's own
name and lock: nobody can start the service meanwhile, and what a killed appbox leaves of it is ended like the rest of a
killed start, by the next start or by `sweep`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from appbox import owner
from appbox.errors import AppboxError
from appbox.hook_log import HookLog, open_log
from appbox.host import delegated, process, runc
from appbox.host.facts import InitKind
from appbox.store import files, paths
from appbox.store.root import Root

TIMEOUT: Final = 600.0
"""Seconds that a command may take where nobody says otherwise."""

_SPEC_LIMIT: Final = 16 << 20
_PLACE: Final = "hook"
"""The directory beside the service's run-time files in which a command is prepared; the run script knows it."""
_END: Final = (
    '[ "/proc/$1/ns/pid" -ef "/proc/$2/ns/pid" ] && read -r stat <"/proc/$1/stat" && set -- "$1" ${stat##*) } && '
    'kill -9 "-$4" "$1"'
)
"""Ends a command in a user's container, which is in another user namespace: only from outside both it can be seen."""
_SHOWN: Final = 5
"""Lines of output that an error repeats."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A command of a service; `which` names it as the manifest does: upgrade.before. `limit` is in seconds.

    `init` is the init system that runs the service.
    """

    service: str
    which: str
    command: Sequence[str]
    limit: float = TIMEOUT
    init: InitKind = "none"


def run_inside(root: Root, hook: Hook) -> list[str]:
    """Run a command beside the running service, and return the last lines that it printed.

    Raises AppboxError when the service does not run, or the command fails or takes too long; it is ended then.
    """
    found = runc.running(hook.service)
    if found is None:
        raise AppboxError(f"{hook.which} cannot be run", where=hook.service, why="the service is not running")
    directory = os.path.basename(found.bundle)
    with _prepared(root, hook.service) as place:
        _write(place, "process.json", _process(_spec(root, directory), hook))
        there = f"{paths.RUN}/{hook.service}/{_PLACE}"
        words = ["exec", "--pid-file", f"{there}/pid", "--process", f"{there}/process.json", hook.service]
        try:
            return _run(root, hook, directory, [*runc.beside(hook.service), *words], _admission(hook))
        except BaseException:
            _end(place, found.pid)
            raise


def _admission(hook: Hook) -> Callable[[int], None] | None:
    """Return what moves a program into the cgroup of the container, where its runtime may not and root does it."""
    if hook.init == "none" or not delegated.wanted():
        return None
    return partial(delegated.admit, hook.init, hook.service)


def run_once(root: Root, hook: Hook, directory: str) -> list[str]:
    """Run a command in the place of a service that is down, and return the last lines that it printed.

    `directory` is the published version that it runs in, relative to the containers; its data has to be there. Raises
    AppboxError when the command fails, takes too long, or somebody runs the service.
    """
    script = f"{paths.CONTAINERS}/{directory}/run"
    spec = _spec(root, directory)
    with _prepared(root, hook.service) as place:
        _write(place, "config.json", {**spec, "process": _process(spec, hook)})
        try:
            lines = _run(root, hook, directory, [script, "hook"])
        except BaseException:
            with contextlib.suppress(AppboxError):  # why it failed says more
                _unhook(hook.service, script)
            raise
        _unhook(hook.service, script)
    return lines


def sweep(root: Root, service: str, directory: str = "") -> None:
    """End and remove what a killed appbox has left of a command; nothing happens to a service that runs.

    `directory` is any version of the service, relative to the containers; the current one if none is named. AppboxError
    when that does not end.
    """
    script = f"{paths.CONTAINERS}/{directory or service}/run"
    if root.live and root.exists(f"{paths.RUN}/{service}/{_PLACE}") and root.exists(script):
        _unhook(service, script)


def _unhook(service: str, script: str) -> None:
    result = process.run([script, "unhook"])
    if result.code != 0:
        raise AppboxError("a command of its upgrade has left something behind", where=service, why=result.message)


def _spec(root: Root, directory: str) -> dict[str, Any]:
    """Return the config.json of a version as data."""
    with root.directory(paths.CONTAINERS) as containers, files.directory(directory, containers) as bundle:
        data = files.read(f"{paths.CURRENT}/config.json", _SPEC_LIMIT, bundle)
    try:
        spec = json.loads(data)
        _ = spec["process"]["env"]
    except (ValueError, KeyError, TypeError) as error:
        where = f"{paths.CONTAINERS}/{directory}/config.json"
        raise AppboxError("is not what appbox has written", where=where, hint="appbox apply writes it anew") from error
    return dict(spec)


def _process(spec: dict[str, Any], hook: Hook) -> dict[str, Any]:
    """Return the service's process with another command. Nobody listens when that says that it is ready."""
    own = spec["process"]
    env = [entry for entry in own["env"] if not entry.startswith("NOTIFY_SOCKET=")]
    return {**own, "args": list(hook.command), "env": env, "terminal": False}


@contextlib.contextmanager
def _prepared(root: Root, service: str) -> Iterator[int]:
    """Make the directory in which a command is prepared, and say there who waits for it."""
    root.make(paths.RUN)
    root.make(f"{paths.RUN}/{service}", 0o700)
    with root.directory(f"{paths.RUN}/{service}") as run:
        with contextlib.suppress(FileExistsError):
            os.mkdir(_PLACE, 0o700, dir_fd=run)
        with files.directory(_PLACE, run) as place:
            me = os.getpid()
            files.replace("owner", f"{me} {runc.start_time(me)}\n".encode(), mode=0o600, dir_fd=place)
            try:
                yield place
            finally:
                _clear(run, place)


def _clear(run: int, place: int) -> None:
    """Remove what was prepared; the run script may have done it."""
    for name in os.listdir(place):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=place)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(_PLACE, dir_fd=run)


def _write(place: int, name: str, data: dict[str, Any]) -> None:
    files.replace(name, json.dumps(data).encode("ascii"), mode=0o600, dir_fd=place)


def _run(
    root: Root, hook: Hook, directory: str, argv: Sequence[str], admit: Callable[[int], None] | None = None
) -> list[str]:
    """Run what runs the command, and keep what that prints."""
    began = time.monotonic()
    with open_log(root, hook.service) as log:
        log.begin(f"{hook.which} in {directory}", hook.command)
        try:
            code = process.follow(argv, log.write, timeout=hook.limit, admit=admit)
        except AppboxError as error:
            log.end(error.what)
            raise _failed(hook, error.what, log) from error
        except BaseException:
            log.end("was interrupted")
            raise
        log.end(f"ended with {code} after {time.monotonic() - began:.1f} s")
        if code != 0:
            raise _failed(hook, f"it ended with {code}", log)
        return list(log.last)


def _failed(hook: Hook, why: str, log: HookLog) -> AppboxError:
    lines = [line for line in log.last if line][-_SHOWN:]
    said = f"{why}: {' | '.join(lines)}" if lines else why
    hint = f"appbox logs --hooks {hook.service} shows all that it printed"
    return AppboxError(f"{hook.which} failed", where=hook.service, why=said, hint=hint)


def _end(place: int, container: int) -> None:
    """End what is left of a command: it runs on in the container when the runtime that it came with is gone."""
    try:
        pid = int(files.read_if_present("pid", 32, place) or b"0")
        if owner.current() is not None:
            process.run([process.need("sh", "every host has one"), "-c", _END, "sh", str(pid), str(container)])
        elif pid > 1 and os.stat(f"/proc/{pid}/ns/pid").st_ino == os.stat(f"/proc/{container}/ns/pid").st_ino:
            # Everything that it started is in its process group, which with crun has another number.
            os.killpg(os.getpgid(pid), signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
    except (ValueError, OSError):
        return
