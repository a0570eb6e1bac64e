"""`appbox rollback` and `appbox history`: the lock, the way back, and its report."""

from __future__ import annotations

from datetime import UTC, datetime

from appbox import history, plan_data, readmission, report, rollback, upgrading
from appbox.actions import Action
from appbox.errors import printable
from appbox.oci.cache import Cache
from appbox.plan_values import Plan
from appbox.recovery import writing
from appbox.rollback import Back
from appbox.session import Options, cache_path, require_root_user
from appbox.store import journal, state
from appbox.store.journal import Entry, Place
from appbox.store.root import Root


def show(options: Options, name: str) -> None:
    """Print the generations of a service."""
    with options.open_root() as root:
        found, old = history.of(root, name), history.old(root, name)
    data = {"name": name, "generations": [one.as_dict() for one in found], "data": [one.as_dict() for one in old]}
    options.result(data, history.text(found, old, datetime.now(UTC)))


def back(options: Options, name: str, to: str, *, keep_data: bool, only_plan: bool, wait: float | None) -> None:
    """Go back to an earlier generation, or say what that would do."""
    if only_plan:
        with options.open_root() as root:
            found = _prepare(options, root, name, to, keep_data=keep_data)
        if found is None:
            _nothing(options, name, to)
        else:
            options.result(_data(found), report.plan_text(Plan((found.plan,)), verbosity=options.verbosity))
        return
    require_root_user("appbox rollback")
    with options.open_root() as root:
        begun = next((one for one in journal.load(root) if one.service == name and one.back), None)
        with writing(options, root, wait=wait):
            if begun is not None and not to and _is_at(root, begun):
                # The same command once more has finished what it had begun; it is no second one.
                _nothing(options, name, f"generation {begun.target.generation}")
                return
            found = _prepare(options, root, name, to, keep_data=keep_data)
            if found is not None:
                _carry_out(options, root, found)
    if found is None:
        _nothing(options, name, to)
    else:
        options.result({**_data(found), "done": True}, "")


def _is_at(root: Root, entry: Entry) -> bool:
    current = state.load(root, entry.service)
    return current is not None and Place(current.directory, current.generation) == entry.target


def _prepare(options: Options, root: Root, name: str, to: str, *, keep_data: bool) -> Back | None:
    """Return the way back, None when the service is there already. Refused when the policy is against its image."""
    chosen = history.choose(history.of(root, name), name, to)
    if chosen.state == "current":
        return None
    found = rollback.to_generation(root, options.init, name, chosen.number, keep_data=keep_data)
    # What undoes a failed change by itself asks for no leave: that image was admitted when the change began.
    readmission.admit(root, Cache(cache_path(root)), name, chosen.directory, chosen.number)
    return found


def _nothing(options: Options, name: str, to: str) -> None:
    options.result({"services": [], "actions": [], "done": True}, f"{name} is at {to} already\n")


def _data(found: Back) -> dict[str, object]:
    return plan_data.plan_data(Plan((found.plan,)), found.facts.for_templates())


def _carry_out(options: Options, root: Root, found: Back) -> None:
    desired = found.plan.desired
    options.say(f"{desired.name} {desired.version}\n")

    def told(action: Action) -> None:
        options.say(f"  {printable(report.sentence(action))}\n")

    work = found.work(root, Cache(cache_path(root)), told)
    work.said = lambda text: options.say(f"  {printable(text)}\n")
    upgrading.carry_out(work)
    options.say(f"{desired.name} is back at generation {desired.generation}, version {desired.version}\n")
