"""One service's change as a whole: written down first, carried out, and undone when the service does not get well.

What is undone is brought about by the same means: a plan that makes the generation of before the current one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from appbox import apply as applying
from appbox import data_handlers, ordering, rollback
from appbox.actions import (
    Action,
    Activate,
    BringBack,
    CarryData,
    InstallUnit,
    Migrate,
    NoteFormat,
    Publish,
    Reload,
    RenderConfig,
    Replace,
    Restart,
    RetireVersion,
    RunHook,
    Schedule,
    Start,
    Stop,
    Switch,
)
from appbox.data_plan import upgrading, usable
from appbox.desired_values import Desired
from appbox.differences import fingerprint
from appbox.errors import AppboxError
from appbox.explain import in_words
from appbox.host import runc, services
from appbox.store import failed, journal, state
from appbox.store.journal import Entry, Place
from appbox.store.root import Root
from appbox.work import Work

_TRYING: Final = (Start, Restart, Reload, Migrate, RunHook)
"""Actions that fail when the service is not well, rather than the host."""
_DISTURBING: Final = (
    Activate,
    BringBack,
    CarryData,
    InstallUnit,
    Migrate,
    Reload,
    Replace,
    Restart,
    Start,
    Stop,
    Switch,
)
"""Actions after which the service is not what it was before."""


def carry_out(work: Work) -> None:
    """Carry out a service's plan; when it fails after the service was disturbed, go back to where it was.

    Raises AppboxError that says what failed, and what is there now.
    """
    entry = entry_of(work)
    for before in (one for one in journal.load(work.root) if one.service == entry.service):
        work.interrupted = True
        entry = replace(entry, others=tuple(sorted({*entry.others, *before.others})))
        if work.observed.begun_at:
            entry = replace(entry, origin=before.origin)
    journal.write(work.root, entry)
    begun: list[Action] = []
    work.told = _noting(begun, work.told)
    try:
        applying.run(work)
    except BaseException as error:
        if not _disturbed(work, begun):
            journal.remove(work.root, entry.service)
            raise
        if not _worth_it(work, entry, begun[-1]):
            journal.remove(work.root, entry.service)
            raise
        _undo(work, entry, begun, error)
    _over(work)


def _over(work: Work) -> None:
    """Take a service out of the journal. Where that fails its change is complete all the same."""
    desired = work.plan.desired
    try:
        journal.remove(work.root, desired.name)
        failed.forget(work.root, desired.name, fingerprint(desired))
    except OSError as error:
        if work.said is not None:
            work.said(f"this is complete, but the journal does not say so yet ({in_words(error).what})")


def _worth_it(work: Work, entry: Entry, action: Action) -> bool:
    """Return whether to go back: there is something to go back to, and a change of configuration broke what ran."""
    if not entry.origin.generation or isinstance(action, RetireVersion) or action.service != entry.service:
        return False
    return entry.running or entry.upgrade or bool(work.plan.desired.generation)


def entry_of(work: Work) -> Entry:
    """Return what the journal says of a service's change."""
    plan, current = work.plan, usable(work.observed)
    number = next((a.generation for a in plan.actions if isinstance(a, RenderConfig | Activate)), None)
    target = work.observed.target
    return Entry(
        service=plan.desired.name,
        origin=Place(current.directory, current.generation) if current else Place(),
        target=Place(plan.desired.directory, number or (target.generation if target else 0)),
        running=bool(work.observed.running) or work.observed.interrupted,
        starts=any(_starts(action) for action in plan.actions if action.service == plan.desired.name),
        upgrade=upgrading(plan.desired, work.observed) or work.observed.upgraded,
        made=target is None and not plan.desired.generation,
        back=bool(plan.desired.generation),
        others=tuple(sorted({a.service for a in plan.actions if isinstance(a, Start)} - {plan.desired.name})),
    )


def _starts(action: Action) -> bool:
    """Return whether an action gets a service to run, or to be started at its times."""
    return isinstance(action, Start | Restart) or (isinstance(action, Schedule) and action.on)


def _noting(begun: list[Action], told: Callable[[Action], None]) -> Callable[[Action], None]:
    def note(action: Action) -> None:
        begun.append(action)
        told(action)

    return note


def _disturbed(work: Work, begun: list[Action]) -> bool:
    """Return whether a plan that failed, or the run that it goes on with, has changed what is current or what runs."""
    if begun and work.observed.begun_at:
        return True
    current = usable(work.observed)
    where = current.directory if current else ""
    stops = any(isinstance(one, Stop) for one in work.plan.actions)
    for action in begun:
        if isinstance(action, InstallUnit) and stops:
            continue  # before the stop it only describes what is about to be, and the next plan mends that
        if isinstance(action, _DISTURBING) or (isinstance(action, Publish) and action.replaces):
            return True
        if isinstance(action, RenderConfig) and action.directory == where and not work.staged:
            return True
    return False


def _undo(work: Work, entry: Entry, begun: list[Action], error: BaseException) -> None:
    """Make the generation of before the current one again, and raise what has happened."""
    name, desired = entry.service, work.plan.desired
    _unnote(work, begun)
    # What was only repaired is what there is to go back to, and was well before.
    tried = was_tried(begun) and not desired.generation and entry.target != entry.origin
    if tried and isinstance(error, AppboxError):
        remember(work.root, desired, entry.target.generation, error)
    if none := _no_way_back(work, entry):
        stays = _stay(work, entry)
        journal.remove(work.root, name)  # it is over: no next command could do more
        if not isinstance(error, AppboxError | OSError):
            raise error
        raise AppboxError(
            f"{desired.version} failed, and {stays}: there is no way back to generation {entry.origin.generation}",
            where=name,
            why=f"{_said(error)}; {_said(none)}",
            hint=f"{_where_more(begun[-1], error)}; apply a manifest that mends it, or restore a snapshot",
        ) from error
    if work.said is not None:
        what = "did not get well" if was_tried(begun) else "failed"
        work.said(f"{desired.version} {what}: going back to {_before(entry)}")
    try:
        back(work, entry, stop=any(isinstance(action, (*_TRYING, Replace, Stop)) for action in begun))
    except (AppboxError, OSError) as second:
        raise AppboxError(
            f"{desired.version} failed, and going back to generation {entry.origin.generation} failed too",
            where=name,
            why=f"{error}; {second}",
            hint=f"appbox status {name} shows what is there",
        ) from error
    journal.remove(work.root, name)
    if not isinstance(error, AppboxError | OSError):
        raise error
    before = _version(work)
    hints = [_where_more(begun[-1], error), *([_NOT_AGAIN] if tried else [])]
    if _was_seen(begun):
        hints.insert(0, f"its data, which moves with it, is as {desired.version} left it")
    raise AppboxError(
        f"{desired.version} failed, and {before} is back", where=name, why=_said(error), hint="; ".join(hints)
    ) from error


def _unnote(work: Work, begun: Sequence[Action]) -> None:
    """Take back the note of another format while nobody can have written any data in it."""
    noted = next((action for action in begun if isinstance(action, NoteFormat)), None)
    if noted is not None and not any(isinstance(action, Migrate | Restart | Start) for action in begun):
        with contextlib.suppress(OSError):  # then there is no way back, and that is said
            data_handlers.note_format(work, replace(noted, format=work.observed.format))


def _stay(work: Work, entry: Entry) -> str:
    """Let what is current be, and return what becomes of it. A version that was only stopped is started again."""
    current = state.load(work.root, entry.service)
    if current is not None and Place(current.directory, current.generation) == entry.target:
        return "stays"
    if work.facts.live and entry.running and runc.running(entry.service) is None:
        with contextlib.suppress(AppboxError):  # why its change failed says more
            services.of_kind(work.facts.init).start(entry.service)
    return f"{_version(work)} is what is left"


def was_tried(begun: Sequence[Action]) -> bool:
    """Return whether the last action that was begun fails when the service is not well, rather than the host."""
    return bool(begun) and isinstance(begun[-1], _TRYING)


def _was_seen(begun: Sequence[Action]) -> bool:
    """Return whether a version that failed was started with data that had moved to it."""
    kinds = [type(action) for action in begun]
    return CarryData in kinds and Start in kinds[kinds.index(CarryData) :]


def remember(root: Root, desired: Desired, generation: int, error: AppboxError) -> None:
    """Remember that a generation did not get well, so that it is not tried again as it is."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    known = failed.Failure(fingerprint(desired), generation, desired.version, desired.digest, now, _said(error))
    failed.save(root, desired.name, known)


def _no_way_back(work: Work, entry: Entry) -> AppboxError | None:
    """Return why nothing can be gone back to, None when it can: data that a migration changed is one reason."""
    try:
        rollback.to_generation(work.root, work.facts.init, entry.service, entry.origin.generation)
    except AppboxError as error:
        return error
    except OSError:
        return None  # whether there is one is seen when it is gone
    return None


_NOT_AGAIN: Final = "it is not tried again until its manifest or image changes, or apply --retry asks for it"


def _said(error: AppboxError | OSError) -> str:
    """Return what happened and why, without the service's name and what was to be done about it."""
    return ": ".join(filter(None, (error.what, error.why))) if isinstance(error, AppboxError) else str(error)


def _where_more(action: Action, error: AppboxError | OSError) -> str:
    """Return where there is more to read: commands of an upgrade have a log of their own."""
    if isinstance(action, Migrate | RunHook) and isinstance(error, AppboxError) and error.hint:
        return error.hint
    return f"appbox logs {action.service} shows more"


def _before(entry: Entry) -> str:
    """Return what is gone back to, in words."""
    if entry.origin.directory == entry.target.directory:
        return f"generation {entry.origin.generation}"
    return entry.origin.directory.removeprefix(f"{entry.service}-")


def _version(work: Work) -> str:
    current = state.load(work.root, work.plan.desired.name)
    if current is None:
        return "nothing"
    same = current.version == work.plan.desired.version
    return f"generation {current.generation}" if same else current.version


def back(work: Work, entry: Entry, *, stop: bool) -> None:
    """Make the generation of before the current one, with the service running if it ran.

    `stop`: it may have been touched, so that it is stopped first. Others that stop with it are started again.
    """
    name, init = entry.service, work.facts.init
    above: list[str] = []
    if stop and work.facts.live and work.plan.desired.units:
        above = ordering.running_above(work.root, name, enabled=init)
        # What failed may be about to be tried again by the init system.
        services.of_kind(init).stop(name)
    found = rollback.to_generation(work.root, init, name, entry.origin.generation, start=entry.running, begun=entry)
    applying.run(found.work(work.root, work.cache, work.told))
    for other in above:
        # It is said of the service why its change failed; how another one does, status says.
        with contextlib.suppress(AppboxError):
            if runc.running(other) is None:
                services.of_kind(init).start(other)
