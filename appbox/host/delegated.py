"""The init system of the host for a process that works for an ordinary user on root's behalf: root's side does it.

See `host.privileged`, which is that side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, cast

from appbox import owner
from appbox.errors import AppboxError
from appbox.host import process, runc
from appbox.host.facts import InitKind
from appbox.host.services import OpenRC, State, Systemd, in_own_words, reload_by_script
from appbox.units.files import Link, UnitFile


def wanted() -> bool:
    """Return whether this process has to ask root for what concerns units."""
    own = owner.current()
    return own is not None and own.by_root and process.outside() is not None


def write(kind: InitKind, unit: UnitFile, declaring: str) -> None:
    """Have a unit file written; `declaring` is the text of the service's own one."""
    _ask(kind, "write", path=unit.path, text=unit.text, mode=unit.mode, declared=declaring)


def remove(kind: InitKind, name: str, path: str) -> None:
    """Have a unit file of a service deleted."""
    _ask(kind, "remove", name=name, path=path)


def enable(kind: InitKind, name: str, link: Link | None) -> None:
    """Have the link made that starts a service at boot, or all of them deleted."""
    _ask(kind, "enable", name=name, link=None if link is None else asdict(link))


def join(kind: InitKind, name: str) -> None:
    """Have the process outside, which is about to become a command in a container, moved into its cgroup."""
    _ask(kind, "join", name=name)


def admit(kind: InitKind, name: str, pid: int) -> None:
    """Have a process that was started outside moved into the cgroup of a service's container."""
    _ask(kind, "admit", name=name, pid=pid)


class Delegated:
    """The control of the host's init system, through root."""

    def __init__(self, kind: InitKind) -> None:
        self.kind: InitKind = kind

    def reload(self) -> None:
        """See `Services`."""
        self._do("reload")

    def start(self, name: str) -> None:
        """See `Services`."""
        self._begin("start", name)

    def stop(self, name: str) -> None:
        """See `Services`; root's side ends no container, whose state is the user's to write."""
        try:
            self._do("stop", name)
        except AppboxError:
            if self.kind != "openrc" or self.state(name) == "active":
                raise
            runc.end(name)
            self.forget(name)

    def prepare(self, name: str, *, units: bool) -> None:
        """See `Services`."""
        self._do("prepare", name, units=units)

    def start_again(self, name: str) -> None:
        """See `Services`."""
        self._begin("start_again", name)

    def restart(self, name: str) -> None:
        """See `Services`."""
        self._begin("restart", name)

    def reload_service(self, name: str) -> None:
        """See `Services`; the user's own run script does it."""
        reload_by_script(name, partial(admit, self.kind, name))

    def schedule(self, name: str, *, on: bool, snapshots: bool = False) -> None:
        """See `Services`."""
        self._do("schedule", name, on=on, snapshots=snapshots)

    def armed(self, name: str) -> bool:
        """See `Services`."""
        return bool(self._do("armed", name))

    def forget(self, name: str) -> None:
        """See `Services`."""
        self._do("forget", name)

    def state(self, name: str) -> State:
        """See `Services`."""
        return cast("State", self._do("state", name))

    def tries(self, name: str) -> int:
        """See `Services`."""
        return int(self._do("tries", name))

    def log_mark(self, name: str) -> int:
        """See `Services`; the log files are the user's own."""
        return (OpenRC() if self.kind == "openrc" else Systemd()).log_mark(name)

    def busy(self, name: str) -> bool:
        """See `Services`."""
        return bool(self._do("busy", name))

    def log_tail(self, name: str, lines: int, after: int = 0) -> list[str]:
        """See `Services`."""
        if self.kind == "openrc":
            return OpenRC().log_tail(name, lines, after)
        return [str(line) for line in self._do("log_tail", name, lines, after)]

    def _begin(self, method: str, name: str) -> None:
        """Have root start it; what the service said of a failure stands in files that root's side does not open."""
        mark = self.log_mark(name)
        try:
            self._do(method, name)
        except AppboxError as error:
            raise in_own_words(self, name, error, mark) from error

    def _do(self, method: str, *arguments: object, **options: object) -> Any:
        return _ask(self.kind, "service", method=method, arguments=arguments, options=options)


def _ask(kind: InitKind, task: str, **values: object) -> Any:
    outside = process.outside()
    assert outside is not None  # noqa: S101 - `wanted` was asked
    answer: Mapping[str, Any] = outside.privileged({"kind": kind, "task": task, **values})
    if "error" in answer:
        raise AppboxError.of(answer["error"])
    return answer["result"]
