"""`appbox plan`, `apply` and `remove`: the lock, the plan, the work and its report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from appbox import outcome, plan_data, planning, pruning, report, reviewing, sources, touched
from appbox.actions import Action
from appbox.errors import AppboxError, ManifestError, UsageError, printable
from appbox.host import gather, runc
from appbox.oci.cache import Cache
from appbox.outcome import Outcome
from appbox.plan_file import PlanFile, Wish
from appbox.planning import Planned
from appbox.session import Options, cache_path, require_root_user
from appbox.sources import Loaded
from appbox.store import elsewhere, journal
from appbox.store.root import Root


def show(options: Options, wanted: Wish, *, output: str = "") -> tuple[bool, int]:
    """Print the plan, and write it to `output` if that is given; a plan that was written down is only shown.

    Return whether it holds any change, and how the command ends when some service could not be planned, else 0.
    """
    if reviewing.is_plan(wanted.manifests):
        return reviewing.show(options, wanted, output), 0
    with options.open_root() as root:
        loaded = _load(root, wanted)
        planned = _plan(root, wanted, loaded)
    _say_silent(options, planned)
    failed = [Outcome(name, "failed", error) for name, error in planned.failed.items()]
    for name, error in planned.failed.items():
        _say_failed(name, error)
    data = _data(planned) if options.json else {}
    options.result(data, "" if options.json else report.plan_text(planned.plan, verbosity=options.verbosity))
    if output and not failed:
        reviewing.write(output, reviewing.make(wanted, loaded, planned))
        options.say(f"the plan is in {printable(output)}; appbox apply {printable(output)} carries it out\n")
    return bool(planned.plan.actions), outcome.exit_code(failed)


def apply(
    options: Options,
    wanted: Wish,
    *,
    wait: float | None,
    fail_fast: bool = False,
    ask: Callable[[str], bool] | None = None,
) -> int:
    """Do what the plan says, service by service, and return the exit code. The only service's failure is raised.

    `ask` is asked before anything is done that no rollback can undo; nothing is done when it says no.
    """
    from appbox.recovery import writing  # noqa: PLC0415  # what changes a host is half of appbox, and a plan needs none

    reviewed = reviewing.read(wanted.manifests[0]) if reviewing.is_plan(wanted.manifests) else None
    path = wanted.manifests[0]
    if reviewed is not None:
        wanted = _wish_of(wanted, reviewed, path)
    with options.open_root() as root:
        loaded = _load_for(root, wanted, path) if reviewed is not None else _load(root, wanted)
        require_root_user("appbox apply")
        own = [one.manifest.name for one in loaded]
        with writing(options, root, wait=wait, own=own):
            if root.live:
                runc.need("services run through it")
            planned = _plan(root, wanted, loaded)
            if reviewed is not None:
                _refuse_failed(planned)
                reviewing.refuse_changes(path, reviewed, reviewing.make(wanted, loaded, planned))
            _say_silent(options, planned)
            _ask(planned, ask)
            outcomes = _carry_out(options, root, planned, fail_fast=fail_fast)
            _report(options, planned, outcomes)
            return outcome.exit_code(outcomes)


def _ask(planned: Planned, ask: Callable[[str], bool] | None) -> None:
    """Raise AppboxError when somebody who can be asked does not want what no rollback can undo."""
    for one in planned.services:
        what = plan_data.irreversible(one.plan)
        name = one.plan.desired.name
        if what and ask is not None and not ask(printable(f"{name}: {what}. Go on?")):
            raise AppboxError("was not gone on with, and nothing was changed", where=name, hint="--yes asks nothing")


def _wish_of(given: Wish, reviewed: PlanFile, path: str) -> Wish:
    """Return what a plan file is about: how to plan is in it, and cannot be said otherwise."""
    wish = reviewed.wish
    reviewing.refuse_options(given, path)
    if os.path.realpath(given.root) != wish.root:
        raise AppboxError("is the plan of another root", where=path, why=wish.root, hint=f"use --root {wish.root}")
    return replace(wish, init=wish.init if given.init == "auto" else given.init)


def _load(root: Root, wanted: Wish) -> list[Loaded]:
    """Return the manifests as this host has them."""
    return sources.load(wanted.manifests, gather.hostname(root), strict=wanted.locked, none=wanted.prune)


def _load_for(root: Root, wanted: Wish, path: str) -> list[Loaded]:
    """Return the manifests of the plan in the file `path`."""
    try:
        return _load(root, wanted)
    except (ManifestError, UsageError) as error:
        why = str(error).splitlines()[0]
        raise AppboxError("its manifests have changed since", where=path, why=why, hint="plan again") from error


def _plan(root: Root, wanted: Wish, loaded: Sequence[Loaded]) -> Planned:
    gone = pruning.removals(root, wanted.manifests, loaded) if wanted.prune else ()
    return planning.prepare(
        root,
        loaded,
        Cache(cache_path(root)),
        init=wanted.init,
        start=wanted.start,
        scope=touched.scope(wanted.manifests, loaded, full=wanted.verify),
        retry=wanted.retry,
        removals=gone,
    )


def _refuse_failed(planned: Planned) -> None:
    for error in planned.failed.values():
        raise error


def _data(planned: Planned) -> dict[str, Any]:
    """Return the plan as JSON data; `silent` maps registries to why they did not answer, `locks` services to notes."""
    failed = {name: error.as_dict() for name, error in planned.failed.items()}
    more = {"silent": planned.silent, "locks": planned.locks, "failed": failed}
    facts = planned.facts.for_templates()
    return {**plan_data.plan_data(planned.plan, facts), **{key: value for key, value in more.items() if value}}


def _say_silent(options: Options, planned: Planned) -> None:
    if options.verbosity > 0 and planned.runtime_note:
        options.say(f"note: {planned.runtime_note}\n", stream=sys.stderr)
    for name, notes in planned.locks.items():
        options.say("".join(printable(f"{name}: note: {note}\n") for note in notes), stream=sys.stderr)
    for registry, why in planned.silent.items():
        options.say(f"note: {registry} did not answer ({why}); what is installed from it stays\n", stream=sys.stderr)


def _say_failed(name: str, error: AppboxError | None) -> None:
    """Write why a service failed, also with -q and --json; a message that does not name the service gets its name."""
    for line in str(error).splitlines():
        sys.stderr.write(f"appbox: {line}\n" if name in line else f"appbox: {name}: {line}\n")


def _carry_out(options: Options, root: Root, planned: Planned, *, fail_fast: bool) -> list[Outcome]:
    if not planned.plan.actions and not planned.failed and not journal.load(root):
        return [Outcome(one.plan.desired.name, "unchanged") for one in planned.services]
    from appbox import several  # noqa: PLC0415  # half of appbox, which only those need who change something
    from appbox.progress import progress  # noqa: PLC0415

    return several.carry_out(
        root,
        Cache(cache_path(root)),
        planned,
        _Told(options, alone=len(planned.services) + len(planned.failed) + len(planned.removals) == 1),
        progress=lambda: progress(options),
        fail_fast=fail_fast,
    )


class _Told:
    """Says what happens; see `several.Listener`. What the only service fails by is said by the command line."""

    def __init__(self, options: Options, *, alone: bool) -> None:
        self._options, self._alone = options, alone

    def preparing(self, names: Sequence[str]) -> None:
        self._options.say(f"  unpacking the images of {', '.join(names)} side by side\n")

    def begun(self, name: str, version: str) -> None:
        self._options.say(f"{name} {version}\n")

    def told(self, action: Action) -> None:
        self._options.say(f"  {printable(report.sentence(action))}\n")

    def said(self, text: str) -> None:
        self._options.say(f"  {printable(text)}\n")

    def failed(self, name: str, error: AppboxError) -> None:
        if not self._alone:
            _say_failed(name, error)

    def left(self, names: Sequence[str]) -> None:
        if names:
            self._options.say(f"not done because of that: {', '.join(names)}\n", stream=sys.stderr)


def _report(options: Options, planned: Planned, outcomes: Sequence[Outcome]) -> None:
    """Say how it went. Raises what the only service failed by, which the command line then says."""
    error = outcome.first_error(outcomes)
    alone = len(outcomes) == 1
    if options.json:
        data = {**_data(planned), "done": error is None, "results": [one.as_dict() for one in outcomes]}
        options.result({**data, **({"error": error.as_dict()} if error else {})}, "")
        if error and alone:
            _say_failed("", error)
        return
    if error and alone:
        raise error
    options.say(report.notes_text(planned.plan))
    options.say(report.summary(outcomes))
    if planned.plan.actions and planned.facts.init == "none":
        options.say("no init system was found: no unit was made; appbox run NAME runs a service in the foreground\n")


def remove(
    options: Options, name: str, *, purge: bool, wait: float | None, ask: Callable[[str], bool] | None = None
) -> None:
    """Remove a service and print what was done; with `purge` what is deleted for good is said, or asked, before."""
    from appbox import removal  # noqa: PLC0415  # as in `apply`
    from appbox.recovery import writing  # noqa: PLC0415

    require_root_user("appbox remove")
    if not name or "/" in name or name.startswith("."):
        raise AppboxError("is not installed", where=name, hint="appbox status lists what is")
    with options.open_root() as root, writing(options, root, wait=wait, own=[name]):
        init = gather.detect_init(root) if options.init == "auto" else gather.known_init(options.init)
        elsewhere.refuse(root, init, name)
        if purge and (doomed := removal.doomed(root, name)):
            if ask is None:
                options.say(printable(f"{name}: deleting {doomed} for good\n"))
            elif not ask(printable(f"Delete {doomed} of {name} for good?")):
                what = "was not gone on with, and nothing was removed"
                raise AppboxError(what, where=name, hint="--yes asks nothing")
        done = removal.remove(root, init, name, purge=purge)
    text = "".join(f"{name}: {sentence}\n" for sentence in done.sentences)
    options.result({"name": name, "done": done.sentences}, "" if options.verbosity < 0 else text)
