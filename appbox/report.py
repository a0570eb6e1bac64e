"""Plans and what became of them in words. Prints nothing: text comes out, the command line writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from appbox.actions import Action
from appbox.errors import printable
from appbox.outcome import Outcome
from appbox.plan_data import service_data
from appbox.plan_values import Plan


def plan_text(plan: Plan, *, verbosity: int = 0) -> str:
    """Return a plan for people, with unified diffs of the files that change; at verbosity 1 also of new ones."""
    changing = [service for service in plan.services if service.actions]
    lines = [line for one in changing for line in _service(service_data(one), one.notes, verbosity)]
    for removal in plan.removals:
        lines += [f"{removal.installed.name} {removal.installed.version}", f"  {sentence(removal.action)}"]
    return _whole(lines, plan.notes)


def recorded_text(plan: Mapping[str, Any], *, verbosity: int = 0) -> str:
    """Return a plan that was written down as `plan_text` has it; what somebody made of it since may be anything."""
    notes = _table(plan.get("notes"))
    lines: list[str] = []
    for service in _tables(plan.get("services")):
        lines += _service(service, _list(notes.get(str(service.get("name")))), verbosity)
    return _whole(lines, _list(plan.get("host_notes")))


def _whole(lines: list[str], notes: Sequence[object]) -> str:
    lines = [*lines, *(f"note: {note}" for note in notes)] if lines else ["nothing to do"]
    return printable("".join(f"{line}\n" for line in lines))


def _service(service: Mapping[str, Any], notes: Sequence[object], verbosity: int) -> Iterator[str]:
    actions = _tables(service.get("actions"))
    if not actions:
        return
    yield f"{service.get('name')} {service.get('version')}"
    for action in actions:
        yield f"  {action.get('sentence')} ({action.get('reason')})"
        if verbosity >= (1 if action.get("new") else 0):
            yield from (f"      {line}" for line in str(action.get("diff", "")).splitlines())
    if service.get("restarts") is True:
        yield f"  it {service.get('downtime')}"
    data, before, after = (_table(service.get(key)) for key in ("data", "from", "to"))
    another = bool(before) and any(before.get(key) != after.get(key) for key in ("version", "digest"))
    if (data.get("how") == "move" and another) or str(data.get("rollback")).startswith("no rollback"):
        yield f"  {data.get('rollback')}"
    for note in notes:
        yield f"  note: {note}"


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [one for one in _list(value) if isinstance(one, dict)]


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
