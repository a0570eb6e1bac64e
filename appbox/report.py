"""Plans, problems and states in words and as JSON. Prints nothing: text comes out, the command line writes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from appbox.actions import Action, InstallUnit, RenderConfig, describe
from appbox.errors import printable
from appbox.plan import Plan, ServicePlan


def plan_data(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON data: changes, actions in order, notes by service, and who signed their images."""
    signed = {s.desired.name: [one.as_dict() for one in s.desired.signers] for s in plan.services if s.desired.signers}
    return {
        "changes": bool(plan.actions),
        "actions": [describe(action) for action in plan.actions],
        "notes": {s.desired.name: list(s.notes) for s in plan.services if s.notes},
        "host_notes": list(plan.notes),
        **({"signed_by": signed} if signed else {}),
    }


def plan_text(plan: Plan, *, verbosity: int = 0) -> str:
    """Return a plan for people, with unified diffs of the files that change; at verbosity 1 also of new ones."""
    lines: list[str] = []
    for service in plan.services:
        lines += _service(service, verbosity)
    lines += [f"note: {note}" for note in plan.notes if plan.actions]
    if not plan.actions:
        lines.append("nothing to do")
    return printable("".join(f"{line}\n" for line in lines))


def _service(service: ServicePlan, verbosity: int) -> Iterator[str]:
    desired = service.desired
    if not service.actions:
        return
    yield f"{desired.name} {desired.version}"
    for action in service.actions:
        yield f"  {sentence(action)}"
        if isinstance(action, RenderConfig | InstallUnit) and verbosity >= (1 if action.new else 0):
            yield from (f"      {line}" for line in action.diff.splitlines())
    for note in service.notes:
        yield f"  note: {note}"


def notes_text(plan: Plan) -> str:
    """Return the notes of the services that change, as lines."""
    lines = [f"{s.desired.name}: note: {note}\n" for s in plan.services if s.actions for note in s.notes]
    lines += [f"note: {note}\n" for note in plan.notes if plan.actions]
    return printable("".join(lines))


def sentence(action: Action) -> str:
    """Return an action and its reason as one line; `plan` and `apply` both print it."""
    return f"{action.sentence} ({action.reason})"


def summary(done: list[ServicePlan], plan: Plan) -> str:
    """Return the closing line of `apply`."""
    changed = sum(1 for service in done if service.actions)
    if not plan.actions:
        return "nothing to do\n"
    services = "service" if changed == 1 else "services"
    return f"done: {changed} {services} changed\n"
