"""Going back: the plan that makes a generation of the past the present one, as it was. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from appbox import observe, plan, remembered
from appbox.actions import Action
from appbox.desired_values import Desired
from appbox.errors import AppboxError
from appbox.host import gather
from appbox.host.facts import Facts, IdRange
from appbox.networking import Addresses
from appbox.oci.cache import Cache
from appbox.ordering import Neighbours
from appbox.plan_values import Observed, ServicePlan
from appbox.store import files, paths, ranges, state
from appbox.store.journal import Entry
from appbox.store.root import Root
from appbox.work import Work


@dataclass(frozen=True, slots=True)
class Back:
    """The way back to a generation on this host."""

    facts: Facts
    plan: ServicePlan

    def work(self, root: Root, cache: Cache, told: Callable[[Action], None]) -> Work:
        """Return what carrying it out needs: everything is on the host, and no image is opened."""
        return Work(root=root, facts=self.facts, cache=cache, locked=None, plan=self.plan, open_image=None, told=told)


def to_generation(
    root: Root,
    init: str,
    name: str,
    number: int,
    *,
    keep_data: bool = False,
    start: bool = True,
    begun: Entry | None = None,
) -> Back:
    """Return the plan that makes generation `number` current, wherever its version is by now.

    `start`: the service may be started; `begun`: what the journal says of the change that this ends. Raises AppboxError
    when it cannot be.
    """
    facts = gather.gather(root, init, ranges.read(root).table)
    with root.directory(paths.CONTAINERS) as containers:
        found = [path for path, numbers in state.generations(containers, name) if number in numbers]
        if not found:
            hint = f"appbox history {name} lists what there is"
            raise AppboxError(f"has no generation {number} any more", where=name, hint=hint)
        desired = _desired(containers, name, found[0], number, keep_data=keep_data)
        observed = _observed(root, containers, facts, desired)
    observed = observe.interrupted(observed, begun)
    if begun is not None and number != begun.target.generation:
        observed = replace(observed, begun_at=0, upgraded=False)  # it is not gone on with, but undone
    observed = observe.deeper(root, desired, observed)
    observed = observe.trying(root, facts.init, name, observed)
    observed = Addresses(root).observe(desired, observed)
    ids = ranges.read(root).written.get(name)
    new_range = desired.mapped and ids != IdRange(desired.base, desired.size)
    way = plan.diff(desired, observed, live=facts.live, start=start, new_range=new_range)
    return Back(facts, Neighbours(root, facts, ()).started_again([way])[0])


def _desired(containers: int, name: str, directory: str, number: int, *, keep_data: bool) -> Desired:
    desired = remembered.recall(state.stored(containers, name, directory, number))
    upgrade = replace(desired.upgrade, keep_data=keep_data)
    return replace(desired, upgrade=upgrade, replaced=directory if directory.startswith(f"{paths.REPLACED}/") else "")


def _observed(root: Root, containers: int, facts: Facts, desired: Desired) -> Observed:
    observed = observe.observe(root, facts.init, desired.name, desired.directory)
    if desired.replaced:
        with files.directory(desired.replaced, containers) as fd:
            number = state.current_generation(fd)
            meta = state.meta_of(fd)
            problem = state.damage(fd, meta)
        if problem:
            raise _damaged(desired.replaced, problem, desired.name)
        target = state.stored(containers, desired.name, desired.replaced, number)
        observed = replace(observed, target=target, displaced=observed.target)
    elif observed.target is not None and observed.target.problem:
        raise _damaged(desired.directory, observed.target.problem, desired.name)
    return observed


def _damaged(directory: str, problem: str, name: str) -> AppboxError:
    return AppboxError(f"{directory} {problem}", where=name, hint="apply its manifest instead")
