"""Which services that `--prune` removes have what others of the same run are to get: those go first. Pure.

Everything else that is pruned goes last, when nothing has failed that it may still be needed for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from appbox import dependencies
from appbox.dependencies import Graph
from appbox.fields import is_below
from appbox.manifest import Manifest
from appbox.plan_values import Removal
from appbox.ports import Claims, claimed, claims


def sorted_out(gone: Mapping[str, Removal], manifests: Sequence[Manifest], graph: Graph) -> dict[str, Removal]:
    """Return the removals with the services that wait for each: what they get is what that one has.

    What requires such a service has to go before it, and is waited for, too.
    """
    waiting: dict[str, set[str]] = {name: set() for name in gone}
    for name, removal in gone.items():
        takers = _takers(removal, manifests)
        for one in {name, *dependencies.requirers(graph, name)} & gone.keys():
            waiting[one] |= takers
    return {name: _with(removal, waiting[name]) for name, removal in gone.items()}


def _with(removal: Removal, takers: Collection[str]) -> Removal:
    if not takers:
        return removal
    why = f"{removal.action.reason}, and {' and '.join(sorted(takers))} cannot start beside it"
    return replace(removal, action=replace(removal.action, reason=why), before=tuple(sorted(takers)))


def _takers(removal: Removal, manifests: Sequence[Manifest]) -> set[str]:
    """Return the services that publish a port, or have a directory of the host as a volume, that this one has."""
    one = removal.installed
    ports = Claims(claimed(one.name, one.meta))
    found = {m.name for m in manifests if any(ports.rival(claim) for claim in claims(m))}
    for manifest in manifests:
        wanted = [str(volume.source) for volume in manifest.volumes.values() if volume.source]
        if any(is_below(new, old) or is_below(old, new) for new in wanted for old in one.sources):
            found.add(manifest.name)
    return found
