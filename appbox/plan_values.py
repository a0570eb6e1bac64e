"""A plan and what it is made from, as values: a service as it was found, what will be done for it, for all. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appbox.actions import Action, RemoveService
from appbox.desired_values import Desired
from appbox.store.installed import Installed
from appbox.units.files import Link


@dataclass(frozen=True, slots=True)
class Observed:
    """A service on the host: `current` is its current version, `target` what is in the desired version's directory.

    `units` are the texts of its files for the init system by path, `modes` their modes (-1: not root's), `links` those
    that start it at boot. `running` is the version directory that the running container was made from ("" when none
    runs); `trying`: none runs now, but the init system is about to start one again; `stale` means that it was started
    before the configuration that is current now, and `unseen` that it does not see yet, or was not told of, files that
    are replaced while it runs. `data` are the names of the volumes that there are; `kept` is the directory of a version
    that is not current and has the data, `kept_base` the first id of its range. `writes`: the desired version's
    directory has what the service wrote to its root file system; `writes_origin` is the directory from which an
    interrupted run was about to move that there. `own` says that the desired version's directory has data of its own
    while the service's is elsewhere; `format` is what the service's data is written in, "" when nobody noted it, and
    `own_format` the same of that. `cloning` is how the file system can copy data, "" while nobody asked; `data_size`
    the bytes that it takes, -1 if unknown. `newest` is the highest number of a generation of the service. `versions`
    are the directories of its versions, each with its newest generation. `interrupted`: a run that was killed had
    stopped it. `unfinished`: a migration of the data was begun and has not come to its end. `displaced` is what has the
    place of a replaced version that is gone back to. `begun_at` is the generation from which a run that was killed has
    come to the current one, 0 if none has; `upgraded`: that was an upgrade, whose last steps are to be done;
    `came_from` is the directory that has that generation. `documents`: the desired version has those of its image.
    """

    current: Installed | None = None
    target: Installed | None = None
    displaced: Installed | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    links: frozenset[Link] = frozenset()
    running: str = ""
    trying: bool = False
    armed: bool = False
    stale: bool = False
    unseen: bool = False
    kept: str = ""
    kept_base: int | None = None
    writes: bool = False
    writes_origin: str = ""
    data: frozenset[str] = frozenset()
    own: bool = False
    format: str = ""
    own_format: str = ""
    cloning: str = ""
    data_size: int = -1
    newest: int = 0
    versions: tuple[tuple[str, int], ...] = ()
    interrupted: bool = False
    begun_at: int = 0
    upgraded: bool = False
    came_from: str = ""
    unfinished: bool = False
    documents: bool = True
    new_address: bool = False
    untold: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """All that will be done for one service, in order; `notes` are what its operator should know."""

    desired: Desired
    observed: Observed
    actions: tuple[Action, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Removal:
    """A service that is removed because its manifest, at `source`, is gone.

    `before` are services of the run that get what it has, a port or a directory, so that it has to go first.
    """

    installed: Installed
    source: str
    action: RemoveService
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` does: each service after those that it names, otherwise by name; `notes` are about the host.

    `removals` are services whose manifests are gone, each after those that require it. They come last, unless another
    service gets what they have.
    """

    services: tuple[ServicePlan, ...]
    notes: tuple[str, ...] = ()
    removals: tuple[Removal, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """Every action of every service, in order."""
        found = tuple(action for service in self.services for action in service.actions)
        first, last = ([r.action for r in self.removals if bool(r.before) is early] for early in (True, False))
        return (*first, *found, *last)
