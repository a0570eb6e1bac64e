"""A host that exists only as values: it carries plans out as `apply` does, so that laws of planning can be tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from appbox import data_plan, differences, remembered
from appbox import plan as plans
from appbox.actions import (
    Action,
    Activate,
    AllocateRange,
    BringBack,
    CarryData,
    CopyData,
    Enable,
    InstallUnit,
    MakeVolume,
    Migrate,
    NoteFormat,
    NoteSource,
    Publish,
    PutAside,
    Reload,
    RemoveUnit,
    RenderConfig,
    Replace,
    Restart,
    RetireVersion,
    RunHook,
    Schedule,
    Start,
    Stop,
    Switch,
    Unpack,
)
from appbox.desired_values import Desired
from appbox.plan_values import Observed, ServicePlan
from appbox.store.installed import GONE, REMOVED, Installed, Stored
from appbox.units.files import Link


@dataclass
class Host:
    """`versions` are what is published, by directory; `data` are the volumes that lie in each directory's data."""

    versions: dict[str, Installed] = field(default_factory=dict)
    data: dict[str, frozenset[str]] = field(default_factory=dict)
    link: str = ""
    units: dict[str, str] = field(default_factory=dict)
    links: frozenset[Link] = frozenset()
    running: str = ""
    last: str = ""
    stale: bool = False
    unseen: bool = False
    base: int | None = None
    cloning: str = "copy"
    formats: dict[str, str] = field(default_factory=dict)
    aside: list[frozenset[str]] = field(default_factory=list)
    copied: set[str] = field(default_factory=set)
    """Directories with a copy that no service has seen."""
    past: dict[str, dict[int, Installed]] = field(default_factory=dict)
    """The generations in each directory."""
    staged: Installed | None = None
    staged_data: frozenset[str] | None = None
    staged_format: str = ""

    def observe(self, directory: str) -> Observed:
        """Return what `observe.observe` would."""
        current = None
        if self.link:
            current = self.versions.get(self.link) or Installed("web", "", self.link, 0, {}, problem=GONE)
        target = current if self.link == directory else self.versions.get(directory)
        target = None if target is not None and target.problem == GONE else target
        usable = current is not None and current.problem != GONE
        kept = [
            (bool(self.data[d]) and d not in self.copied, d == self.last, d == directory, d)
            for d in self.versions
            if d in self.data and not usable
        ]
        holder = max(kept)[3] if kept else ""
        found = Observed(
            current=current,
            target=target,
            units=self.units,
            links=self.links,
            running=self.running,
            stale=self.stale,
            unseen=self.unseen,
            kept=holder,
            kept_base=self.versions[holder].base if holder else None,
        )
        place = data_plan.data_place(found, directory)
        return replace(
            found,
            data=self.data.get(place, frozenset()),
            own=place not in {"", directory} and self._has_own(directory),
            format=self.formats.get(place, ""),
            own_format=self.formats.get(directory, ""),
            cloning=self.cloning,
            newest=max((v.generation for v in self.versions.values()), default=0),
            versions=tuple((name, v.generation) for name, v in self.versions.items() if not v.problem),
        )

    def _has_own(self, directory: str) -> bool:
        return bool(self.data.get(directory)) and directory not in self.copied

    def place(self) -> str:
        """Return the directory in which the data of the service is, "" when it is not installed."""
        return (self.versions[self.link].carry or self.link) if self.link in self.versions else ""

    def boot(self, word: str) -> None:
        """Start the service as the init system does, without appbox, and have it write a word into its data."""
        place = self.place()
        if place:
            self._arrive(self.link, place)
            self.running = self.link
            self.data[self.link] = self.data.get(self.link, frozenset()) | {word}

    def plan(self, desired: Desired) -> ServicePlan:
        """Return the plan for a service on this host."""
        new = desired.mapped and self.base != desired.base
        return plans.diff(desired, self.observe(desired.directory), live=True, start=True, new_range=new)

    def carry_out(self, plan: ServicePlan, actions: Iterable[Action] | None = None) -> None:
        """Do the actions; a run that ends early leaves nothing that is staged."""
        self.copied.discard(self.link)
        for action in plan.actions if actions is None else actions:
            getattr(self, f"_{type(action).__name__.lower()}")(plan, action)
        self.staged = self.staged_data = None
        self.staged_format = ""

    def remove(self) -> None:
        """Do what `appbox remove` does."""
        self.last = self.place()
        self.copied.discard(self.link)
        self.link, self.units, self.links, self.running = "", {}, frozenset(), ""
        for directory, version in list(self.versions.items()):
            self.past.pop(directory, None)
            if self._has_own(directory):
                gone = replace(version, generation=0, files={}, problem=REMOVED, carry="")
                self.versions[directory] = gone
            else:
                del self.versions[directory]
                self.data.pop(directory, None)
                self.copied.discard(directory)

    def to_generation(self, number: int, *, keep_data: bool = False) -> ServicePlan:
        """Return the plan that goes back to a generation, wherever it is."""
        directory = next(path for path, found in sorted(self.past.items()) if number in found)
        return self.roll_back(directory, self.past[directory][number], keep_data=keep_data)

    def roll_back(self, directory: str, generation: Installed, *, keep_data: bool = False) -> ServicePlan:
        """Return the plan that goes back to a generation of a version, as it was."""
        desired = replace(remembered.recall(generation), replaced=directory if "/" in directory else "")
        desired = replace(desired, upgrade=replace(desired.upgrade, keep_data=keep_data))
        observed = self.observe(desired.directory)
        if desired.replaced:
            there, place = observed.target, data_plan.data_place(observed, desired.directory)
            observed = replace(observed, target=self.versions[directory], displaced=there)
            own = place not in {"", directory} and self._has_own(directory)
            observed = replace(observed, own=own, own_format=self.formats.get(directory, ""))
        return plans.diff(desired, observed, live=True, start=True, new_range=False)

    def _activate(self, plan: ServicePlan, action: Activate) -> None:
        stored = {f.path: Stored(f.data, f.mode, f.owner) for f in plan.desired.files}
        version = self.versions[action.directory]
        self.versions[action.directory] = replace(version, generation=action.generation, files=stored)
        self.stale = bool(self.running) and differences.needs_restart(plan.desired, plan.observed)

    def _bringback(self, plan: ServicePlan, action: BringBack) -> None:
        if action.origin != action.replaces:
            self._make_room(action.replaces)
        self._follow(action.directory, action.replaces, action.origin)
        for table in self._tables():
            back, there = table.pop(action.origin, None), table.pop(action.directory, None)
            table.update({k: v for k, v in ((action.directory, back), (action.replaces, there)) if v is not None})
        origin = data_plan.carry_origin(plan.desired, plan.observed)
        if origin:
            assert not self.data.pop(action.directory, None), "two places with data"
        self.versions[action.directory] = replace(self.versions[action.directory], carry=origin)

    def _tables(self) -> list[dict[str, Any]]:
        """Return what is known of directories, which may change their names."""
        return [self.versions, self.data, self.formats, self.past]

    def _make_room(self, directory: str) -> None:
        """Give another name to an older one of the same image."""
        if directory in self.versions:
            number = next(n for n in range(2, 99) if f"{directory}.{n}" not in self.versions)
            for table in self._tables():
                if directory in table:
                    table[f"{directory}.{number}"] = table.pop(directory)

    def _follow(self, directory: str, replaces: str, origin: str = "") -> None:
        """See that nothing which still waits for its data is led astray by directories that change their names."""
        for name in {directory, origin} - {""}:
            for path, version in self.versions.items():
                assert version.carry != name or path == name or path != self.link, (path, version.carry, replaces)

    def _putaside(self, plan: ServicePlan, action: PutAside) -> None:
        self.aside.append(self.data.pop(action.directory))
        self.formats.pop(action.directory, None)

    def _copydata(self, plan: ServicePlan, action: CopyData) -> None:
        found = self.data[action.origin]
        if self.staged is not None:
            self.staged_data, self.staged_format = found, self.formats.get(action.origin, "")
        else:
            if action.origin in self.formats:
                self.formats[action.directory] = self.formats[action.origin]
            assert not self._has_own(action.directory), "data would be lost"
            self.data[action.directory] = found
            self.copied.add(action.directory)

    def _runhook(self, plan: ServicePlan, action: RunHook) -> None:
        assert self.running

    def _migrate(self, plan: ServicePlan, action: Migrate) -> None:
        assert not self.running
        assert self.data[action.directory]
        self.formats[action.directory] = action.after

    def _noteformat(self, plan: ServicePlan, action: NoteFormat) -> None:
        self.formats[action.directory] = action.format

    def _notesource(self, plan: ServicePlan, action: NoteSource) -> None:
        version = self.versions[action.directory]
        self.versions[action.directory] = replace(version, meta={**version.meta, "source": action.path})

    def _retireversion(self, plan: ServicePlan, action: RetireVersion) -> None:
        assert self.link != action.directory
        version = self.versions.pop(action.directory)
        self.past.pop(action.directory, None)
        if self._has_own(action.directory):
            self.versions[action.directory] = replace(version, generation=0, files={}, problem=REMOVED)

    def _allocaterange(self, plan: ServicePlan, action: AllocateRange) -> None:
        self.base = action.base

    def _unpack(self, plan: ServicePlan, action: Unpack) -> None:
        wanted = plan.desired
        origin = data_plan.carry_origin(wanted, plan.observed)
        image = {"digest": wanted.digest, "reference": wanted.reference}
        meta: dict[str, Any] = {"image": image, "uid_base": wanted.base}
        self.staged = Installed("web", wanted.version, wanted.directory, 0, meta, carry=origin)
        self.staged_data = None if origin else frozenset()

    def _makevolume(self, plan: ServicePlan, action: MakeVolume) -> None:
        holder = data_plan.data_holder(plan.observed, plan.desired.directory)
        if holder:
            self.data[holder] = self.data.get(holder, frozenset()) | {action.volume}
        elif self.staged is not None:
            self.staged_data = (self.staged_data or frozenset()) | {action.volume}
        else:
            directory = plan.desired.directory
            self.data[directory] = self.data.get(directory, frozenset()) | {action.volume}

    def _renderconfig(self, plan: ServicePlan, action: RenderConfig) -> None:
        stored = {f.path: Stored(f.data, f.mode, f.owner) for f in plan.desired.files}
        current = plan.observed.current
        previous = {"previous": current.generation if current else 0, "source": plan.desired.source}
        if self.staged is not None:
            meta = {**self.staged.meta, **previous}
            self.staged = replace(self.staged, generation=action.generation, files=stored, meta=meta)
            return
        version = self.versions[action.directory]
        meta = {**version.meta, **previous}
        found = replace(version, generation=action.generation, files=stored, meta=meta)
        self.versions[action.directory] = found
        self.past.setdefault(action.directory, {})[action.generation] = replace(found, carry="")
        self.stale = bool(self.running) and differences.needs_restart(plan.desired, plan.observed)
        if self.running and differences.needs_replacing(plan.desired, plan.observed):
            self.unseen = True

    def _publish(self, plan: ServicePlan, action: Publish) -> None:
        assert self.staged is not None
        if action.replaces:
            self._make_room(action.replaces)
            self._follow(action.directory, action.replaces)
            self.versions[action.replaces] = self.versions.pop(action.directory)
            self.copied.discard(action.directory)
            for table in self._tables()[1:]:
                if action.directory in table:
                    table[action.replaces] = table.pop(action.directory)
        else:
            assert action.directory not in self.versions
        self.versions[action.directory] = self.staged
        self.past[action.directory] = {self.staged.generation: replace(self.staged, carry="")}
        if self.staged_data is not None:
            self.data[action.directory] = self.staged_data
        if self.staged_format:
            self.formats[action.directory] = self.staged_format
        self.staged_format = ""
        self.staged = self.staged_data = None

    def _switch(self, plan: ServicePlan, action: Switch) -> None:
        origin = data_plan.carry_origin(plan.desired, plan.observed)
        if origin and action.directory in self.copied:
            del self.data[action.directory]
        if origin:
            assert not self.data.pop(action.directory, None), "two places with data"
        self.copied.discard(action.directory)
        self.versions[action.directory] = replace(self.versions[action.directory], carry=origin)
        self.link = action.directory

    def _carrydata(self, plan: ServicePlan, action: CarryData) -> None:
        assert self.versions[action.directory].carry == action.origin
        self._arrive(action.directory, action.origin)

    def _arrive(self, directory: str, origin: str) -> None:
        """Let the data come to the version that waits for it."""
        if directory not in self.data:
            self.data[directory] = self.data.pop(origin, frozenset())
            if origin in self.formats:
                self.formats[directory] = self.formats.pop(origin)
        self.versions[directory] = replace(self.versions[directory], carry="")

    def _installunit(self, plan: ServicePlan, action: InstallUnit) -> None:
        self.units = {**self.units, action.path: next(u.text for u in plan.desired.units if u.path == action.path)}

    def _removeunit(self, plan: ServicePlan, action: RemoveUnit) -> None:
        del self.units[action.path]

    def _enable(self, plan: ServicePlan, action: Enable) -> None:
        self.links = frozenset({plan.desired.link} if action.on and plan.desired.link else ())

    def _stop(self, plan: ServicePlan, action: Stop) -> None:
        assert self.running
        self.running = ""

    def _start(self, plan: ServicePlan, action: Start) -> None:
        assert not self.running
        self._restart(plan, action)

    def _restart(self, plan: ServicePlan, action: Restart | Start) -> None:
        self.running, self.stale, self.unseen = self.link, False, False

    def _schedule(self, plan: ServicePlan, action: Schedule) -> None:
        assert self.running or not action.snapshots

    def _replace(self, plan: ServicePlan, action: Replace) -> None:
        assert self.running
        # The note that the files were seen is made after the service was told.
        self.unseen = any(isinstance(other, Reload) for other in plan.actions)

    def _reload(self, plan: ServicePlan, action: Reload) -> None:
        assert self.running
        self.unseen = False
