"""What root does for an ordinary user's services: their units, which are the system's, and starting and stopping them.

A process that works for a user has nothing of root's (`host.userns`). It asks this side, which trusts it no more than
the user: a unit is taken only if it is, byte for byte, what appbox makes for this user (`units.declared`), and only
units that were made for the user are touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from appbox.errors import AppboxError, Refused
from appbox.host import cgroups, gather, runc, services
from appbox.host.facts import InitKind
from appbox.owner import Owner
from appbox.store import unitfiles
from appbox.store.root import Root
from appbox.units import declared, openrc, places, systemd
from appbox.units.files import NAME, Link, UnitFile
from appbox.units.model import Unit
from appbox.unprivileged import STOP_LIMIT

_KINDS: Final[dict[str, InitKind]] = {"systemd": "systemd", "openrc": "openrc"}
_OF_NAME: Final = frozenset(
    {
        *("start", "stop", "prepare", "start_again", "restart", "schedule", "armed"),
        *("forget", "state", "tries", "log_mark", "busy", "log_tail"),
    }
)
"""What may be asked of the init system for one service; `reload` concerns all."""
_NETWORK: Final = "net"
"""The host's network, as services name it; no unit is called that."""
_MADE: Final = tuple(
    f"/run/systemd/{folder}" for folder in ("generator", "generator.early", "generator.late", "transient")
)


def answer(owner: Owner, request: Mapping[str, Any]) -> dict[str, Any]:
    """Do what a process of `owner` asks for; return {"result": …}, or {"error": …} as `AppboxError.as_dict` has it."""
    try:
        kind = _KINDS[str(request["kind"])]
        if kind != _running():
            raise ValueError(f"no {kind} runs here")
        return {"result": _TASKS[str(request["task"])](owner, kind, request)}
    except AppboxError as error:
        return {"error": error.as_dict()}
    except OSError as error:
        return {"error": AppboxError(error.strerror or str(error), where=str(error.filename or "")).as_dict()}
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        return {"error": Refused("root does no such thing for a user", why=str(error)).as_dict()}


def _running() -> InitKind:
    """Return the init system that runs: files for another one would be taken by whoever reads them, too."""
    with Root() as root:
        return gather.detect_init(root)


def _write(owner: Owner, kind: InitKind, request: Mapping[str, Any]) -> None:
    unit = declared.unit_of(str(request["declared"]))
    _refuse_other(owner, kind, unit.name)
    file = UnitFile(str(request["path"]), str(request["text"]), int(request["mode"]))
    if not _is_of(owner, unit) or file not in (systemd if kind == "systemd" else openrc).render(unit):
        raise Refused("is no unit that appbox makes for this user", where=file.path)
    for name in sorted({*unit.requires, *unit.wants} - {_NETWORK}):
        _refuse_needed(owner, kind, unit.name, name)
    with Root() as root:
        unitfiles.write(root, file)


def _is_of(owner: Owner, unit: Unit) -> bool:
    own = dataclasses.replace(
        unit,
        user=owner.name,
        uid=owner.uid,
        rootless=True,
        bundles=owner.places()["CONTAINERS"],
        runs=owner.places()["RUN"],
        program=gather.program() if unit.program else "",
    )
    return own == unit and unit.stop_timeout <= STOP_LIMIT


def _remove(owner: Owner, kind: InitKind, request: Mapping[str, Any]) -> None:
    name, path = _name(request), str(request["path"])
    _refuse_other(owner, kind, name)
    with Root() as root:
        if path not in unitfiles.read(root, kind, name):
            raise ValueError(f"{path} is no file of {name}")
        unitfiles.remove_file(root, path)


def _enable(owner: Owner, kind: InitKind, request: Mapping[str, Any]) -> None:
    name = _name(request)
    _refuse_other(owner, kind, name)
    wanted = None if request["link"] is None else Link(**request["link"])
    if wanted is not None and wanted not in places.links_of(kind, name):
        raise ValueError(f"{wanted.path} does not enable {name}")
    with Root() as root:
        unitfiles.enable(root, kind, name, wanted)


def _service(owner: Owner, kind: InitKind, request: Mapping[str, Any]) -> Any:
    method, arguments, options = str(request["method"]), list(request["arguments"]), dict(request["options"])
    control = services.of_kind(kind)
    if method == "reload":
        return control.reload()
    if method not in _OF_NAME:
        raise ValueError(f"no {method}")
    numbers = all(type(one) is int and one >= 0 for one in arguments[1:])
    if not numbers or not all(type(one) is bool for one in options.values()):
        raise ValueError(f"no such {method}")  # a text might be an option of a program
    _refuse_other(owner, kind, _name({"name": arguments[0]}), there=True)
    return getattr(control, method)(*arguments, **options)


def _join(owner: Owner, kind: InitKind, request: Mapping[str, Any]) -> None:
    """Move this process, which is about to become a command of the user's, into the cgroup of a container.

    On cgroup v2 only: there the user may not do it from where root's commands run (cgroups(7), Delegation).
    """
    _move(owner, kind, _name(request), os.getpid())


def _admit(owner: Owner, kind: InitKind, request: Mapping[str, Any]) -> None:
    """Do the same for a program that this process has started as the user."""
    pid = request["pid"]
    if type(pid) is not int or runc.parent(pid) != os.getpid():
        raise ValueError("no program of ours")
    _move(owner, kind, _name(request), pid)


def _move(owner: Owner, kind: InitKind, name: str, pid: int) -> None:
    _refuse_other(owner, kind, name, there=True)
    for unit in services.cgroups_of(kind, name):
        with contextlib.suppress(OSError):
            with open(f"{cgroups.ROOT}/{unit}/{name}/cgroup.procs", "w", encoding="ascii") as file:
                file.write(str(pid))
            return


def _name(request: Mapping[str, Any]) -> str:
    name = str(request["name"])
    if not NAME.fullmatch(name):
        raise ValueError(f"no service can be called {name[:80]!r}")
    return name


def _refuse_other(owner: Owner, kind: InitKind, name: str, *, there: bool = False) -> None:
    """Raise Refused for a service whose unit was not made for this user; `there`: it has to have one."""
    with Root() as root:
        found = unitfiles.read(root, kind, name)
        _refuse_generated(root, name)
    own = places.files_of(kind, name)[0]
    if own not in found:
        if there or found:
            raise Refused("has no unit that was made for this user", where=name)
        return
    user = declared.user_of(found[own])
    if user != owner.name:
        whose = f"the user {user}" if user else "root"
        raise Refused(
            f"the unit name {name} is taken",
            where=own,
            why=f"it runs a service of {whose}",
            hint="give the service another name",
        )


def _refuse_generated(root: Root, name: str) -> None:
    """Raise Refused for a unit that was made at boot or until the next one (systemd.unit(5), Unit File Load Path)."""
    for folder in _MADE:
        path = f"{folder}/{name}.service"
        if root.exists(path):
            raise Refused(f"the unit name {name} is taken", where=path, hint="give the service another name")


def _refuse_needed(owner: Owner, kind: InitKind, service: str, name: str) -> None:
    """Raise Refused for what a user's service may not have started: units of root's do anything, as poweroff does."""
    try:
        _refuse_other(owner, kind, name)
    except AppboxError as error:
        raise Refused(
            f"cannot have {name} started",
            where=service,
            why=f"{error.where} is not made for the user {owner.name}",
            hint=f"take {name} out of service.requires and service.wants; service.after may name it",
        ) from error


_TASKS: Final[Mapping[str, Callable[[Owner, InitKind, Mapping[str, Any]], Any]]] = {
    "write": _write,
    "remove": _remove,
    "enable": _enable,
    "service": _service,
    "join": _join,
    "admit": _admit,
}
