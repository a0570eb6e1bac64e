"""The services of a run among those that are installed: whom they name, in which order they come, who starts again.

It reads bundles and looks for units of the host; the rules are in `dependencies`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from appbox import dependencies
from appbox.actions import Restart, Start, Stop
from appbox.dependencies import Graph, Needs
from appbox.errors import AppboxError, ManifestError, Problem
from appbox.fields import nearest
from appbox.host import runc
from appbox.host.facts import Facts, InitKind
from appbox.plan_values import ServicePlan
from appbox.sources import Loaded
from appbox.store import files, paths, state, unitfiles
from appbox.store.root import Root


def installed(root: Root) -> dict[str, Needs]:
    """Return the installed services and what they name."""
    return {name: dependencies.of_installed(meta) for name, meta in _metas(root, frozenset()).items()}


def _metas(root: Root, without: Collection[str]) -> dict[str, dict[str, Any]]:
    names = [name for name in state.names(root) if name not in without]
    if not names:
        return {}
    with root.directory(paths.CONTAINERS) as containers:
        return {name: _meta(containers, name) for name in names}


def _meta(containers: int, name: str) -> dict[str, Any]:
    try:
        with files.directory(files.link_target(name, containers) or "", containers) as bundle:
            return state.meta_of(bundle)
    except (FileNotFoundError, NotADirectoryError):
        return {}


def cycles(loaded: Sequence[Loaded], others: Graph | None = None) -> list[Problem]:
    """Return the problem of services that wait for one another, if there are any; `others` are installed."""
    mine = {one.manifest.name: one for one in loaded}
    found = dependencies.cycle({**(others or {}), **{name: dependencies.of(mine[name].manifest) for name in mine}})
    at = next((index for index, name in enumerate(found) if name in mine), None)
    if at is None:
        return []
    around = (*found[at:], *found[:at])
    one, following = mine[around[0]], around[1 % len(around)]
    key = next(key for key, name in dependencies.named(one.manifest) if name == following)
    message = f"the services wait for one another: {dependencies.in_words(around)}"
    return [one.document.problem(key, message, "take one of these names out")]


@dataclass(frozen=True)
class Neighbours:
    """The services of a run and, once somebody asks for them, those that are installed beside them."""

    root: Root
    facts: Facts
    loaded: Sequence[Loaded]
    gone: frozenset[str] = frozenset()
    """Installed services that this run removes."""

    @cached_property
    def names(self) -> frozenset[str]:
        """The services of the run."""
        return frozenset(one.manifest.name for one in self.loaded)

    @cached_property
    def _known(self) -> frozenset[str]:
        """The services of the run and those that are installed. A thousand services ask for it."""
        return self.names.union(state.names(self.root)) - self.gone

    def refuse(self) -> None:
        """Raise ManifestError for services that wait for one another, or that require what nobody has."""
        if not any(True for one in self.loaded for _ in dependencies.named(one.manifest)):
            return
        problems = cycles(self.loaded, self._installed)
        for one in self.loaded:
            for key, name in dependencies.named(one.manifest):
                if key[1] == "requires" and not self._is_there(name):
                    hint = nearest(name, tuple(self._known)) or "name a service of appbox or of the host's init system"
                    problems.append(one.document.problem(key, f"there is no service {name}", hint))
        if problems:
            raise ManifestError(problems)

    def notes(self, one: Loaded) -> list[str]:
        """Return what should be known of the services that a manifest names without requiring them."""
        asked = [(key[1], name) for key, name in dependencies.named(one.manifest) if key[1] in {"wants", "after"}]
        return [
            f"service.{key} names {name}, which is no service of this host"
            for key, name in asked
            if not self._is_there(name)
        ]

    def _is_there(self, name: str) -> bool:
        known = name in self._known or name == dependencies.NETWORK
        return known or unitfiles.is_unit(self.root, self.facts.init, name)

    @cached_property
    def others(self) -> dict[str, dict[str, Any]]:
        """The services that are installed but not of the run, with what their bundle.toml says ({}: nothing).

        Those that it removes are not among them.
        """
        return _metas(self.root, self.names | self.gone)

    @cached_property
    def _installed(self) -> dict[str, Needs]:
        return {name: dependencies.of_installed(meta) for name, meta in self.others.items()}

    def order(self) -> list[str]:
        """Return the services of the run, each after those that start before it."""
        return dependencies.order(self.names, {one.manifest.name: dependencies.of(one.manifest) for one in self.loaded})

    def started_again(self, plans: Sequence[ServicePlan]) -> list[ServicePlan]:
        """Return `plans`, in order, with the starts of what goes down because a service is stopped for its change.

        Whoever requires a service is stopped with it by the init system, which starts it again only after a restart.
        """
        stopped = [plan.desired.name for plan in plans if any(isinstance(a, Stop) for a in plan.actions)]
        if not stopped or not self.facts.live:
            return list(plans)
        graph = {**self._installed, **{one.manifest.name: dependencies.of(one.manifest) for one in self.loaded}}
        found = list(plans)
        for name in stopped:
            down = dependencies.requirers(graph, name)
            at = next(index for index, plan in enumerate(found) if plan.desired.name == name)
            outside = dependencies.order(down - self.names, graph)
            starts = tuple(_start(other, name) for other in outside if runc.running(other) is not None)
            found[at] = replace(found[at], actions=(*found[at].actions, *starts))
            later = found[at + 1 :]
            found[at + 1 :] = [_with_start(one, name) if one.desired.name in down else one for one in later]
        return found


def _start(name: str, because: str) -> Start:
    return Start(name, f"it requires {because}, and stopped with it")


def _with_start(plan: ServicePlan, because: str) -> ServicePlan:
    if not plan.observed.running or plan.desired.timed or any(isinstance(a, Start | Restart) for a in plan.actions):
        return plan
    return replace(plan, actions=(*plan.actions, _start(plan.desired.name, because)))


def running_above(root: Root, name: str, *, enabled: InitKind | None = None) -> list[str]:
    """Return the running services that stop with this one, in the order in which they start.

    With `enabled`, the init system of the host, those count as well that it starts at boot: they may be down by now.
    """
    graph = installed(root)
    down = dependencies.order(dependencies.requirers(graph, name), graph)
    return [
        other
        for other in down
        if runc.running(other) is not None or (enabled and unitfiles.enabled(root, enabled, other))
    ]


def refuse_removal(root: Root, name: str) -> None:
    """Raise AppboxError when other installed services require `name`."""
    graph = installed(root)
    needing = sorted(other for other, needs in graph.items() if name in needs.requires and other != name)
    if needing:
        hint = f"remove {needing[0]} first, or take the name out of its service.requires"
        raise AppboxError(f"is required by {', '.join(needing)}", where=name, hint=hint)
