"""Keeping a service still while its data is cloned: paused or stopped, and going on afterwards whatever happens.

Should this process die meanwhile, a waiting shell lets the service go on; should that be killed, too, the next command
that takes the lock finds a note in `/run/appbox/.held` and does.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from appbox import ordering
from appbox.errors import AppboxError, HostLacks
from appbox.host import gather, openrc, process, runc, services, starts
from appbox.host.facts import InitKind
from appbox.host.start_lock import StartLock
from appbox.store import elsewhere, files, paths, state
from appbox.store.root import Root

"""A file for each service that is held, with the way in it. It is in memory: a reboot starts everything anyway."""

Way = Literal["no", "pause", "stop"]


@dataclass(slots=True)
class Held:
    """A service that is held still; `release` lets it go on, once. `seconds` says for how long it was held."""

    root: Root
    init: InitKind
    name: str
    way: Way
    lock: StartLock
    above: Sequence[str] = ()
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    released: bool = False

    def release(self) -> None:
        """Let the service, and what stopped with it, go on. AppboxError when it does not start."""
        if self.released or self.way == "no":
            return
        self.released = True
        if self.way == "pause":
            _mark_pause(self.root, self.name)
            runc.pause(self.name, on=False)
            self.seconds = time.monotonic() - self.began
            _forget(self.root, self.name)
            return
        self.lock.give_back()
        control = services.of_kind(self.init)
        mark = control.log_mark(self.name)
        control.start(self.name)
        self.seconds = time.monotonic() - self.began
        _forget(self.root, self.name)
        starts.wait_until_runs(self.init, self.name, mark)
        for other in self.above:
            if runc.running(other) is None:
                control.start(other)


@contextlib.contextmanager
def held(root: Root, init: InitKind, name: str, way: Way) -> Iterator[Held]:
    """Hold a service that runs until the block ends, or `release` is called. It goes on after errors, too.

    One that is down, or is stopped for it, is started by nobody meanwhile: neither by its timer nor by its operator.
    """
    lock = StartLock(root, name)
    if way == "no":
        with contextlib.suppress(AppboxError):  # somebody has started it, or does so right now
            if runc.running(name) is None:
                lock.take()
        try:
            yield Held(root, init, name, way, lock)
        finally:
            lock.give_back()
        return
    if way == "stop":
        elsewhere.refuse(root, init, name)
    above = ordering.running_above(root, name) if way == "stop" else ()
    with process.guard(_going_on(init, name, way)):
        _note(root, name, way)
        one = Held(root, init, name, way, lock, above)
        try:
            _hold(init, name, way)
            if way == "stop":
                lock.take()
        except BaseException:
            with contextlib.suppress(AppboxError):  # why it could not be held is what matters
                one.release()
            raise
        try:
            yield one
        finally:
            one.release()


def _hold(init: InitKind, name: str, way: Way) -> None:
    if way == "pause":
        runc.pause(name, on=True)
        return
    services.of_kind(init).stop(name)
    if runc.running(name) is not None:
        why = "its container was not started by its unit"
        raise AppboxError("is still running", where=name, why=why, hint="end it first, or use --live")


def _going_on(init: InitKind, name: str, way: Way) -> list[str]:
    """Return the command that lets a service go on."""
    if way == "pause":
        return [*runc.program(name), "resume", name]
    if init == "systemd":
        return [*services.systemctl(), "start", f"{name}.service"]
    if init == "openrc":
        return [*openrc.words(), name, "start"]
    why = "it was started by hand, and nothing could start it again"
    raise HostLacks("cannot be stopped for a while", where=name, why=why, hint="end it, or use --live")


def _note(root: Root, name: str, way: Way) -> None:
    root.make(_notes(), 0o700)
    with root.directory(_notes()) as fd:
        files.replace(name, way.encode(), mode=0o600, dir_fd=fd)


def _mark_pause(root: Root, name: str) -> None:
    """Leave a file that is as old as the end of the last pause: a health check that it disturbed counts for nothing."""
    with contextlib.suppress(FileNotFoundError), root.directory(f"{paths.RUN}/{name}") as fd:
        files.replace("paused", b"", mode=0o600, dir_fd=fd)


def _forget(root: Root, name: str) -> None:
    with contextlib.suppress(FileNotFoundError), root.directory(_notes()) as fd:
        files.remove(name, dir_fd=fd)


def recover(root: Root) -> list[str]:
    """Let go on what killed commands were holding; return what was done, as sentences. The caller holds the lock."""
    said: list[str] = []
    if not root.live or not root.is_directory(_notes()):
        return said
    with root.directory(_notes()) as fd:
        noted = sorted(os.listdir(fd))
        init = gather.detect_init(root) if noted else "none"
        for name in noted:
            way = (files.read_if_present(name, 16, fd) or b"").decode("ascii", "replace").strip()
            try:
                elsewhere.refuse(root, init, name)
            except AppboxError as error:
                said.append(f"a killed command was holding it: {error}")
                continue
            if not name.startswith(".") and name in state.names(root):
                said += _go_on(init, name, way)
            files.remove(name, dir_fd=fd)
    return said


def _go_on(init: InitKind, name: str, way: str) -> list[str]:
    if way == "pause":
        # What is not paused any more cannot be resumed, and need not be.
        with contextlib.suppress(AppboxError):
            runc.pause(name, on=False)
            return [f"{name}: resumed, since a command that had paused it was killed"]
    elif way == "stop" and runc.running(name) is None:
        services.of_kind(init).start(name)
        return [f"{name}: started, since a command that had stopped it was killed"]
    return []


def _notes() -> str:
    return f"{paths.RUN}/.held"
