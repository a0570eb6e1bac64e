"""`appbox plan`, `apply` and `remove`: the lock, the plan, the work and its report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from appbox import planning, removal, report, resolve, sources
from appbox.actions import Action
from appbox.errors import AppboxError, printable
from appbox.host import gather, process
from appbox.oci.cache import Cache
from appbox.plan import ServicePlan
from appbox.planning import Planned, Prepared
from appbox.progress import progress
from appbox.session import Options, cache_path, require_root_user
from appbox.sources import Loaded
from appbox.store import lock
from appbox.store.root import Root


def show(options: Options, arguments: Sequence[str]) -> bool:
    """Print the plan; return whether it holds any change."""
    loaded = _load(options, arguments)
    with options.open_root() as root:
        cache = Cache(cache_path(root))
        planned = planning.prepare(root, loaded, cache, init=options.init, start=True)
    _say_silent(options, planned)
    options.result(_data(planned), report.plan_text(planned.plan, verbosity=options.verbosity))
    return bool(planned.plan.actions)


def apply(options: Options, arguments: Sequence[str], *, start: bool, wait: bool) -> None:
    """Do what the plan says, service by service; stop at the first that fails."""
    loaded = _load(options, arguments)
    require_root_user("appbox apply")
    with options.open_root() as root, _locked(root, wait=wait):
        if root.live:
            process.need("runc", "services run through it", hint="apt install runc, or apk add runc")
        cache = Cache(cache_path(root))
        planned = planning.prepare(root, loaded, cache, init=options.init, start=start)
        _say_silent(options, planned)
        done = _each(options, root, cache, planned)
        options.say(report.notes_text(planned.plan))
        if options.json:
            options.result({**_data(planned), "done": True}, "")
        options.say(report.summary(done, planned.plan))
        if planned.plan.actions and planned.facts.init == "none":
            options.say(
                "no init system was found: no unit was made; appbox run NAME runs a service in the foreground\n"
            )


def _load(options: Options, arguments: Sequence[str]) -> list[Loaded]:
    """Return the manifests as this host has them."""
    with options.open_root() as root:
        return sources.load(arguments, gather.hostname(root))


def _data(planned: Planned) -> dict[str, Any]:
    """Return the plan as JSON data; `silent` maps registries to why they did not answer."""
    return {**report.plan_data(planned.plan), **({"silent": planned.silent} if planned.silent else {})}


def _say_silent(options: Options, planned: Planned) -> None:
    for registry, why in planned.silent.items():
        options.say(f"note: {registry} did not answer ({why}); what is installed from it stays\n", stream=sys.stderr)


def _each(options: Options, root: Root, cache: Cache, planned: Planned) -> list[ServicePlan]:
    """Carry out every service's plan, in order; after one that fails, what is left is named and not begun."""
    for number, one in enumerate(planned.services, start=1):
        try:
            _one(options, root, cache, planned, one)
        except BaseException:
            left = [other.plan.desired.name for other in planned.services[number:] if other.plan.actions]
            if left:
                options.say(f"not done because of that: {', '.join(left)}\n", stream=sys.stderr)
            raise
    return [one.plan for one in planned.services]


def _one(options: Options, root: Root, cache: Cache, planned: Planned, one: Prepared) -> ServicePlan:
    if not one.plan.actions:
        return one.plan
    options.say(f"{one.plan.desired.name} {one.plan.desired.version}\n")

    def told(action: Action) -> None:
        options.say(f"  {printable(report.sentence(action))}\n")

    from appbox import apply as applying  # noqa: PLC0415  # plan needs none of it

    with progress(options) as shown:
        applying.run(
            applying.Work(
                root=root,
                facts=planned.facts,
                cache=cache,
                locked=one.locked,
                plan=one.plan,
                open_image=lambda: resolve.open_image(one.loaded, cache),
                told=told,
                progress=shown,
            )
        )
    return one.plan


@contextlib.contextmanager
def _locked(root: Root, *, wait: bool) -> Iterator[None]:
    with lock.exclusive(root, None if wait else 0.0):
        yield


def remove(options: Options, name: str, *, purge: bool, wait: bool) -> None:
    """Remove a service and print what was done."""
    require_root_user("appbox remove")
    if not name or "/" in name or name.startswith("."):
        raise AppboxError("is not installed", where=name, hint="appbox status lists what is")
    with options.open_root() as root, _locked(root, wait=wait):
        init = gather.detect_init(root) if options.init == "auto" else gather.known_init(options.init)
        done = removal.remove(root, init, name, purge=purge)
    text = "".join(f"{name}: {sentence}\n" for sentence in done.sentences)
    options.result({"name": name, "done": done.sentences}, "" if options.verbosity < 0 else text)
