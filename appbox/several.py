"""Carries out the plans of several services: images are unpacked side by side, then comes one service after the other.

What fails with one service leaves the others as they are; those that require it are not begun.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from typing import Final, Protocol

from appbox import apply as applying
from appbox import dependencies, finishing, resolve, upgrading
from appbox import removal as removing
from appbox.actions import Action, Start, Unpack
from appbox.errors import AppboxError
from appbox.explain import in_words
from appbox.host import runc, services, syscalls
from appbox.oci.cache import Cache
from appbox.oci.source import Progress, Source
from appbox.outcome import Outcome
from appbox.plan_values import Removal
from appbox.planning import Planned, Prepared
from appbox.store import bundle, journal, paths
from appbox.store.given import Given
from appbox.store.root import Root
from appbox.work import Work

PARALLEL: Final = 4
"""Images unpacked at once at most, however many cores there are: each takes memory, and the disk is one."""

Progresses = Callable[[], AbstractContextManager[Progress | None]]


class Listener(Protocol):
    """Is told what happens, in the caller's thread."""

    def preparing(self, names: Sequence[str]) -> None:
        """Images of several services are about to be unpacked side by side."""

    def begun(self, name: str, version: str) -> None:
        """A service's plan is about to be carried out."""

    def told(self, action: Action) -> None:
        """An action is about to be carried out."""

    def said(self, text: str) -> None:
        """Something is going on that no action of the plan says."""

    def failed(self, name: str, error: AppboxError) -> None:
        """A service failed."""

    def left(self, names: Sequence[str]) -> None:
        """The run ends early, and these services were not begun."""


class _StoppedError(Exception):
    """What a thread ends with that is not to go on."""


def carry_out(
    root: Root, cache: Cache, planned: Planned, listener: Listener, *, progress: Progresses, fail_fast: bool
) -> list[Outcome]:
    """Carry out every service's plan and return what became of each, in the order of the plan.

    The caller holds the lock. With `fail_fast` nothing more is begun after the first failure. Whatever is no failure of
    a service, an interruption above all, ends the run and is raised.
    """
    return _Run(root, cache, planned, listener, progress, fail_fast=fail_fast).all()


class _Run:
    """One run over all services."""

    def __init__(
        self, root: Root, cache: Cache, planned: Planned, listener: Listener, progress: Progresses, *, fail_fast: bool
    ) -> None:
        self._root, self._cache, self._planned, self._listener = root, cache, planned, listener
        self._progress, self._fail_fast = progress, fail_fast
        self._failed: dict[str, AppboxError] = {}
        self._stuck: set[str] = set()
        self._begun: set[str] = set()
        self._interrupted = {entry.service: entry for entry in journal.load(root)}
        self._stopping, self._submitted = threading.Event(), threading.Event()
        self._sources: dict[str, Source] = {}
        self._given = Given(root)
        self._works = {one.plan.desired.name: self._work(one) for one in planned.services if one.plan.actions}

    def all(self) -> list[Outcome]:
        """Do everything; see `carry_out`."""
        for name, error in self._planned.failed.items():
            self._fail(name, error)
        try:
            if self._works or self._planned.removals:
                self._clean()
                self._prepare()
            first, last = ([r for r in self._planned.removals if bool(r.before) is early] for early in (True, False))
            done = [self._remove(one) for one in first]
            done += [self._one(one) for one in self._planned.services]
            done += [self._remove(one) for one in last]
        except BaseException:
            gone = [removal.installed.name for removal in self._planned.removals]
            self._listener.left([name for name in (*self._works, *gone) if name not in self._begun])
            raise
        finally:
            for work in self._works.values():
                applying.abandon(work)
        return [*(Outcome(name, "failed", error) for name, error in self._planned.failed.items()), *done]

    def _clean(self) -> None:
        """Remove what killed runs have left: whoever was at work on it had the lock."""
        if self._root.is_directory(paths.CONTAINERS):
            with self._root.directory(paths.CONTAINERS) as containers:
                bundle.clean(containers)

    def _work(self, one: Prepared) -> Work:
        work = Work(
            root=self._root,
            facts=self._planned.facts,
            cache=self._cache,
            locked=one.locked,
            plan=one.plan,
            open_image=lambda: self._open(one),
            told=self._listener.told,
            said=self._listener.said,
            check=self._check,
        )
        work.given = self._given
        return work

    def _open(self, one: Prepared) -> Source:
        source = self._sources[one.plan.desired.name] = resolve.open_image(one.loaded, self._cache)
        self._check()  # after it can be found: whoever stops the run looks for it
        return source

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _StoppedError

    def _prepare(self) -> None:
        """Unpack the images of all services, several at once. The only one is unpacked when it is its turn."""
        wanted = {name: w for name, w in self._works.items() if any(isinstance(a, Unpack) for a in w.plan.actions)}
        if len(wanted) < 2 or (self._failed and self._fail_fast):
            return
        self._root.make(paths.CONTAINERS)
        syscalls.share_memory_between_threads()
        self._listener.preparing(list(wanted))
        with self._progress() as shown, ThreadPoolExecutor(workers(), thread_name_prefix="unpack") as pool:
            for work in wanted.values():
                work.progress, work.share = shown, min(workers(), len(wanted))
            futures: dict[Future[None], str] = {}
            try:
                for name, work in wanted.items():
                    futures[pool.submit(self._prepare_one, name, work)] = name
                self._submitted.set()
                for future in as_completed(futures):
                    self._prepared(futures[future], future, futures)
            except BaseException:
                self._stop(futures)
                raise

    def _prepare_one(self, name: str, work: Work) -> None:
        try:
            # An interruption while a thread is started leaves one that the pool does not know of and does not wait for.
            self._submitted.wait()
            self._check()
            applying.prepare(work)
        except BaseException:
            applying.abandon(work)
            raise
        finally:
            self._sources.pop(name, None)

    def _prepared(self, name: str, future: Future[None], futures: Mapping[Future[None], str]) -> None:
        """Note how a preparation ended. What ends because the run stops has not failed."""
        if future.cancelled():
            return
        error = future.exception()
        if error is None or (self._stopping.is_set() and isinstance(error, AppboxError | OSError | _StoppedError)):
            return
        self._fail(name, _failure(error))
        if self._fail_fast:
            self._stop(futures)

    def _stop(self, futures: Mapping[Future[None], str]) -> None:
        """Let the threads end soon."""
        self._stopping.set()
        self._submitted.set()
        for future in futures:
            future.cancel()
        for source in list(self._sources.values()):
            source.abort()

    def _fail(self, name: str, error: AppboxError) -> None:
        self._failed[name] = error
        self._listener.failed(name, error)

    def _one(self, one: Prepared) -> Outcome:
        name = one.plan.desired.name
        if name in self._failed:
            return Outcome(name, "failed", self._failed[name])
        if name in self._interrupted and one.plan.desired.directory != self._interrupted[name].target.directory:
            # It takes another way than the killed run, which may have copied data for where it was going.
            finishing.drop_copy(self._root, self._interrupted[name])
        if not one.plan.actions:
            if name in self._interrupted:
                applying.own_now(self._root, one.plan.observed)
                finishing.wake(self._root, self._planned.facts.init, self._interrupted[name])
                journal.remove(self._root, name)
            return Outcome(name, "unchanged")
        if why := self._obstacle(one):
            self._stuck.add(name)
            self._wake(name)
            return Outcome(name, "not begun", why=why)
        self._begun.add(name)
        self._listener.begun(name, one.plan.desired.version)
        work = self._works[name]
        try:
            with self._progress() as work.progress:
                upgrading.carry_out(work)
        except (AppboxError, OSError, RecursionError) as error:
            self._fail(name, _failure(error))
            self._wake_others(one)
            return Outcome(name, "failed", self._failed[name])
        finally:
            del self._works[name]  # and with it all that the image's files were told by
        if name in self._interrupted:
            finishing.wake(self._root, self._planned.facts.init, self._interrupted[name])
        return Outcome(name, "done")

    def _remove(self, one: Removal) -> Outcome:
        """Remove a service whose manifest is gone, unless something failed: then it may still be needed."""
        name = one.installed.name
        if bad := next(iter((*self._failed, *self._stuck)), ""):
            self._stuck.add(name)
            how = "failed" if bad in self._failed else "was not begun"
            return Outcome(name, "not begun", why=f"{bad} {how}")
        self._begun.add(name)
        self._listener.begun(name, one.installed.version)
        self._listener.told(one.action)
        try:
            removing.remove(self._root, self._planned.facts.init, name, purge=False)
        except (AppboxError, OSError) as error:
            self._fail(name, _failure(error))
            return Outcome(name, "failed", self._failed[name])
        return Outcome(name, "removed")

    def _obstacle(self, one: Prepared) -> str:
        """Return why a service is not begun, "" when nothing is in its way."""
        name = one.plan.desired.name
        for removal in self._planned.removals:
            if name in removal.before and removal.installed.name in {*self._failed, *self._stuck}:
                return f"{removal.installed.name} still has what it is to get"
        missing = sorted(dependencies.of(one.loaded.manifest).requires & {*self._failed, *self._stuck})
        if missing:
            how = "failed" if missing[0] in self._failed else "was not begun"
            return f"it requires {missing[0]}, which {how}"
        return f"{next(iter(self._failed))} failed" if self._failed and self._fail_fast else ""

    def _wake_others(self, failed: Prepared) -> None:
        """Start again whom the failed service's plan would have started: they were stopped along with it."""
        for action in failed.plan.actions:
            if isinstance(action, Start) and action.service != failed.plan.desired.name:
                self._wake(action.service, needing=failed.plan.desired.name)

    def _wake(self, name: str, needing: str = "") -> None:
        """Start a service as it is that ran before this run and does not now, if what it requires runs."""
        plans = {one.plan.desired.name: one for one in self._planned.services}
        one = plans.get(name)
        if not self._planned.facts.live or (one is not None and not one.plan.observed.running):
            return
        needed = {needing} - {""} if one is None else dependencies.of(one.loaded.manifest).requires & set(plans)
        if runc.running(name) is None and all(runc.running(other) is not None for other in needed):
            services.of_kind(self._planned.facts.init).start(name)


def workers() -> int:
    """Return how many images are unpacked at once."""
    return min(PARALLEL, len(os.sched_getaffinity(0)))


def _failure(error: BaseException) -> AppboxError:
    """Return a service's failure as an error of appbox; raise what is none."""
    if isinstance(error, AppboxError):
        return error
    if isinstance(error, OSError):
        return in_words(error)
    if isinstance(error, RecursionError):
        return AppboxError("the input is nested too deeply")
    raise error
