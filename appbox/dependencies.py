"""Which services need which: cycles, the order in which they are started, and whom a stop takes along. Pure.

Services name one another in `service.requires`, `wants` and `after`; one that shares another's network requires it.
All of these are an order, to systemd and to OpenRC alike, so that a cycle of any of them would leave one of its
services down, or out of order without a word. `net` is the network of the host, not a service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from appbox.manifest import Manifest
from appbox.toml_source import Path

NETWORK: Final = "net"
_SHARED: Final = "service:"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a service names: `requires` are those that it cannot run without, `first` all that start before it."""

    requires: frozenset[str] = frozenset()
    first: frozenset[str] = frozenset()


Graph = Mapping[str, Needs]
"""Services by name."""


def of(manifest: Manifest) -> Needs:
    """Return what a manifest names."""
    service = manifest.service
    return _needs(service.requires, (*service.wants, *service.after), manifest.network.mode)


def of_installed(meta: Mapping[str, Any]) -> Needs:
    """Return what an installed service names, by its bundle.toml; what somebody broke there names nothing."""
    manifest = table(meta.get("manifest"))
    service, mode = table(manifest.get("service")), table(manifest.get("network")).get("mode")
    wants, after = _names(service.get("wants")), _names(service.get("after"))
    return _needs(_names(service.get("requires")), (*wants, *after), str(mode or ""))


def _needs(requires: Iterable[str], others: Iterable[str], mode: str) -> Needs:
    shared = {mode.removeprefix(_SHARED)} if mode.startswith(_SHARED) else set()
    needed = frozenset({*requires, *shared} - {NETWORK})
    return Needs(needed, frozenset({*needed, *others} - {NETWORK}))


def table(value: object) -> Mapping[str, Any]:
    """Return a table of bundle.toml; what somebody broke there is an empty one."""
    return value if isinstance(value, Mapping) else {}


def _names(value: object) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list | tuple) else ()


def named(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    """Yield each key of a manifest that names a service, and the name."""
    for key in ("requires", "wants", "after"):
        for index, name in enumerate(getattr(manifest.service, key)):
            yield ("service", key, index), name
    if manifest.network.mode.startswith(_SHARED):
        yield ("network", "mode"), manifest.network.mode.removeprefix(_SHARED)


def order(names: Iterable[str], graph: Graph) -> list[str]:
    """Return `names`, each after those that start before it; by name where that says nothing.

    What is only reached through services that are not in `names` counts, too. There must be no cycle.
    """
    found: list[str] = []
    seen: set[str] = set()
    wanted = set(names)
    for top in sorted(wanted):
        # Depth first without recursion: a name comes up a second time when all that it needs has been put down.
        stack = [(top, False)]
        while stack:
            name, ready = stack.pop()
            if ready and name in wanted:
                found.append(name)
            if ready or name in seen:
                continue
            seen.add(name)
            stack.append((name, True))
            stack += ((other, False) for other in sorted(_first(graph, name), reverse=True))
    return found


def cycle(graph: Graph) -> tuple[str, ...]:
    """Return a cycle as its names, the least of them first; empty if there is none. The same graph has the same one."""
    done: set[str] = set()
    for top in sorted(graph):
        path: list[str] = []
        stack = [(top, False)]
        while stack:
            name, left = stack.pop()
            if left:
                done.add(path.pop())
                continue
            if name in path:
                found = path[path.index(name) :]
                least = found.index(min(found))
                return (*found[least:], *found[:least])
            if name in done:
                continue
            path.append(name)
            stack.append((name, True))
            stack += ((other, False) for other in sorted(_first(graph, name), reverse=True))
    return ()


def _first(graph: Graph, name: str) -> frozenset[str]:
    needs = graph.get(name)
    return needs.first if needs else frozenset()


def requirers(graph: Graph, name: str) -> frozenset[str]:
    """Return the services that go down when `name` is stopped, those included that require one of them."""
    found: set[str] = set()
    more = {name}
    while more:
        more = {other for other, needs in graph.items() if needs.requires & more} - found - {name}
        found |= more
    return frozenset(found)


def in_words(names: tuple[str, ...]) -> str:
    """Return a cycle as a sentence has it: `a → b → a`."""
    return " → ".join((*names, names[0]))
