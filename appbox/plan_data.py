"""A plan as JSON data, and what it means for whoever uses a service while it is carried out, in words. Pure.

`plan_schema` says what it looks like. Numbers of the format change when a reader of an old one would misread a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appbox import remembered
from appbox.actions import (
    Action,
    CarryData,
    CopyData,
    Migrate,
    NoteFormat,
    Reload,
    RenderConfig,
    Replace,
    Restart,
    Start,
    Stop,
    describe,
)
from appbox.plan_values import Observed, Plan, Removal, ServicePlan
from appbox.store.installed import Installed

SCHEMA: Final = 1
STOP_TIMEOUT: Final = 10
"""Seconds that a service has to stop when its manifest does not say."""


def plan_data(plan: Plan, facts: Mapping[str, str | int] | None = None) -> dict[str, Any]:
    """Return a plan as JSON data: changes, what becomes of each service, actions in order, notes by service.

    `facts` are those of the host that the plan was made for. Who signed the images is there if anybody asked.
    """
    signed = {s.desired.name: [one.as_dict() for one in s.desired.signers] for s in plan.services if s.desired.signers}
    return {
        "schema": SCHEMA,
        "changes": bool(plan.actions),
        "facts": dict(facts or {}),
        "services": [*map(service_data, plan.services), *map(_removal, plan.removals)],
        "actions": [describe(action) for action in plan.actions],
        "notes": {s.desired.name: list(s.notes) for s in plan.services if s.notes},
        "host_notes": list(plan.notes),
        **({"signed_by": signed} if signed else {}),
    }


def service_data(service: ServicePlan) -> dict[str, Any]:
    """Return what becomes of one service as JSON data."""
    desired = service.desired
    return {
        "name": desired.name,
        "version": desired.version,
        "file": desired.source or None,
        "from": _from(service.observed.current),
        "to": {"version": desired.version, "image": desired.reference, "digest": desired.digest},
        "actions": [describe(action) for action in service.actions],
        "restarts": restarts(service),
        "downtime": downtime(service),
        "data": {"how": _how(service), "rollback": rollback(service)},
    }


def _removal(removal: Removal) -> dict[str, Any]:
    return {
        "name": removal.installed.name,
        "version": removal.installed.version,
        "file": removal.source,
        "from": _from(removal.installed),
        "to": None,
        "actions": [describe(removal.action)],
        "restarts": False,
        "downtime": "is stopped for good",
        "data": {"how": "stays", "rollback": "its data stays; applying its manifest again finds it"},
    }


def _from(installed: Installed | None) -> dict[str, Any] | None:
    if installed is None:
        return None
    return {"version": installed.version, "digest": installed.digest, "generation": installed.generation}


def _own(service: ServicePlan, *kinds: type[Action]) -> bool:
    """Return whether a plan has an action of these kinds for the service itself."""
    return any(isinstance(a, kinds) and a.service == service.desired.name for a in service.actions)


def restarts(service: ServicePlan) -> bool:
    """Return whether a service that runs is stopped for the plan."""
    return _own(service, Stop, Restart) and bool(service.observed.running)


def downtime(service: ServicePlan) -> str:
    """Return what the plan means for whoever uses the service now, beginning with a verb."""
    if not restarts(service):
        return _without_stop(service)
    words = [f"is stopped, for which it has {_seconds(service.observed)} s"]
    if _own(service, CopyData):
        words.append(f"stays so while its data is {'cloned' if _how(service) == 'clone' else 'copied'}")
    words.append("then starts again" if _own(service, Restart, Start) else "is not started again")
    text = f"{', '.join(words[:-1])}, and {words[-1]}"
    along = sorted({a.service for a in service.actions if isinstance(a, Start)} - {service.desired.name})
    return f"{text}; so {'does' if len(along) == 1 else 'do'} {' and '.join(along)}" if along else text


def _without_stop(service: ServicePlan) -> str:
    if _own(service, Start):
        return "is started"
    if not service.observed.running:
        return "does not run"
    return "goes on running, and is told of its new files" if _own(service, Replace, Reload) else "goes on running"


def _seconds(observed: Observed) -> object:
    """Return how long the version that runs has to stop before it is killed, in seconds."""
    meta = observed.current.meta if observed.current else {}
    for key in ("manifest", "process"):
        inner = meta.get(key)
        meta = inner if isinstance(inner, Mapping) else {}
    return meta.get("stop_timeout", STOP_TIMEOUT)


def _how(service: ServicePlan) -> str:
    """Return what becomes of a service's data: it is copied, cloned, moves or stays, or there is none."""
    for action in service.actions:
        if isinstance(action, CopyData):
            return action.how
        if isinstance(action, CarryData) and not action.empty:
            return "move"
    return "stays" if any(v.kind != "tmpfs" for v in service.desired.volumes) else "none"


def irreversible(service: ServicePlan) -> str:
    """Return what of a plan no rollback can undo, "" for nothing. What does not get well then stays all the same."""
    stays = f"{service.desired.version} stays even if it does not get well"
    if _own(service, Migrate) and not _own(service, CopyData):
        return f"upgrade.migrate changes its data, of which no copy is kept, so that {stays}"
    if _own(service, NoteFormat) and _own(service, CarryData):
        wanted = service.desired.upgrade.format
        return f"its data counts as of the format {wanted} from then on, and no copy is kept, so that {stays}"
    return ""


def rollback(service: ServicePlan) -> str:
    """Return what a rollback can bring back of the data."""
    how = _how(service)
    lost = remembered.no_way_back(service.observed.current)
    if lost and _own(service, RenderConfig):
        return lost
    if undone := irreversible(service):
        return f"no rollback brings back the data: {undone}"
    if how in {"clone", "copy"}:
        return "a rollback brings back the data as it was when the service was stopped for this"
    if how == "move":
        return "a rollback takes the data along as it is by then"
    return "the data is not touched" if how == "stays" else "there is no data"
