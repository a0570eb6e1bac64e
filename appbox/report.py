"""Plans and what became of them in words. Prints nothing: text comes out, the command line writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from appbox.actions import Action, CarryData, InstallUnit, RenderConfig
from appbox.data_plan import upgrading
from appbox.errors import printable
from appbox.outcome import Outcome
from appbox.plan_data import downtime, restarts, rollback
from appbox.plan_values import Plan, ServicePlan


def plan_text(plan: Plan, *, verbosity: int = 0) -> str:
    """Return a plan for people, with unified diffs of the files that change; at verbosity 1 also of new ones."""
    lines: list[str] = []
    for service in plan.services:
        lines += _service(service, verbosity)
    for removal in plan.removals:
        lines += [f"{removal.installed.name} {removal.installed.version}", f"  {sentence(removal.action)}"]
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
    if restarts(service):
        yield f"  it {downtime(service)}"
    moved = any(isinstance(action, CarryData) for action in service.actions) and desired.volumes
    if moved and upgrading(desired, service.observed):
        yield f"  {rollback(service)}"
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


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return the closing lines of `apply`: what became of each service if not all is well, and how many changed."""
    counts = {result: sum(1 for one in outcomes if one.result == result) for result in _IN_WORDS}
    bad = counts["failed"] + counts["not begun"]
    lines = [_outcome(one) for one in outcomes] if bad else []
    said = [_count(counts["done"], "changed"), _count(counts["removed"], "removed")]
    said += [_count(counts["failed"], "failed"), _count(counts["not begun"], "not begun")]
    if any(said):
        lines.append(f"{'' if bad else 'done: '}{', '.join(text for text in said if text)}")
    return printable("".join(f"{line}\n" for line in lines)) or "nothing to do\n"


_IN_WORDS = {
    "done": "done",
    "unchanged": "nothing to do",
    "removed": "removed",
    "failed": "failed",
    "not begun": "not begun",
}


def _outcome(one: Outcome) -> str:
    why = one.why or (str(one.error).splitlines() or [""])[0] if one.why or one.error else ""
    why = why.removeprefix(f"{one.name}: ")
    return f"{one.name}: {_IN_WORDS[one.result]}{f': {why}' if why else ''}"


def _count(number: int, what: str) -> str:
    return f"{number} {'service' if number == 1 else 'services'} {what}" if number else ""
