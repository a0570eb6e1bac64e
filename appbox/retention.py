"""Which old versions of a service go. Pure."""

from __future__ import annotations

from collections.abc import Collection

from appbox.data_plan import rebuilding, replaced_path
from appbox.desired_values import Desired
from appbox.plan_values import Observed


def retired(desired: Desired, observed: Observed) -> list[str]:
    """Return the version directories that go once the desired version runs, relative to the containers, sorted."""
    current = observed.current
    stay = {desired.directory, *([current.directory] if current else []), *({observed.came_from} - {""})}
    if observed.target is not None and rebuilding(desired, observed):
        # What was of that name before has another one by then.
        stay.add(replaced_path(observed.target, observed))
    return surplus(observed.versions, stay, desired.upgrade.keep)


def surplus(versions: Collection[tuple[str, int]], stay: Collection[str], keep: int) -> list[str]:
    """Return the directories of `versions` that go when `keep` stay: the oldest, and never one of `stay`, sorted.

    `versions` are directories with the number of their newest generation.
    """
    others = sorted(((number, name) for name, number in versions if name not in stay), reverse=True)
    room = max(0, keep - len(stay))
    return sorted(name for _, name in others[room:])
