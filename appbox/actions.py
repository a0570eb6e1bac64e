"""The effects that a plan is made of, each as a value that can describe itself. Nothing here does anything."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from appbox.sizes import megabytes
from appbox.store import paths


@dataclass(frozen=True, slots=True)
class Action(ABC):
    """One effect as a value: for which service, why, and what in words."""

    kind: ClassVar[str]
    service: str
    reason: str

    @property
    @abstractmethod
    def sentence(self) -> str:
        """What will be done, beginning with a verb."""


@dataclass(frozen=True, slots=True)
class AllocateRange(Action):
    """Give a service its own range of host ids."""

    kind: ClassVar[str] = "allocate-range"
    base: int
    size: int

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"give it the user ids {self.base} to {self.base + self.size - 1} of the host"


@dataclass(frozen=True, slots=True)
class AllocateAddress(Action):
    """Give a service its own address in the network of a bridge."""

    kind: ClassVar[str] = "allocate-address"
    network: str
    subnet: str
    addresses: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"give it {' and '.join(self.addresses)} in the network {self.network} ({self.subnet})"


@dataclass(frozen=True, slots=True)
class TellPeers(Action):
    """Rewrite /etc/hosts of the running services of a network."""

    kind: ClassVar[str] = "tell-peers"
    network: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"tell the running services of the network {self.network} who is in it"


@dataclass(frozen=True, slots=True)
class Unpack(Action):
    """Fetch an image's layers and unpack them beside the running version."""

    kind: ClassVar[str] = "unpack"
    directory: str
    reference: str
    digest: str
    layers: int
    size: int

    @property
    def sentence(self) -> str:
        """See `Action`."""
        many = "layer" if self.layers == 1 else "layers"
        return f"unpack {self.reference} ({self.layers} {many}, {megabytes(self.size)}) for {self.directory}"


@dataclass(frozen=True, slots=True)
class Publish(Action):
    """Give the finished version its place by one rename."""

    kind: ClassVar[str] = "publish"
    directory: str
    replaces: str = ""

    @property
    def sentence(self) -> str:
        """See `Action`."""
        text = f"publish {paths.CONTAINERS}/{self.directory}"
        return f"{text}, keeping what is there as {paths.CONTAINERS}/{self.replaces}" if self.replaces else text


@dataclass(frozen=True, slots=True)
class MakeVolume(Action):
    """Make a volume's directory."""

    kind: ClassVar[str] = "make-volume"
    volume: str
    path: str
    target: str
    owner: str
    seed: bool

    @property
    def sentence(self) -> str:
        """See `Action`."""
        seed = ", filled from the image" if self.seed else ""
        return f"make volume {self.volume} in {self.path} for {self.target}, owner {self.owner}{seed}"


@dataclass(frozen=True, slots=True)
class RenderConfig(Action):
    """Write config.json, run script and configuration files as a new generation of the version."""

    kind: ClassVar[str] = "render-config"
    directory: str
    generation: int
    changes: tuple[str, ...]
    new: bool
    diff: str = ""

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"write {', '.join(self.changes)} as generation {self.generation} of {self.directory}"


@dataclass(frozen=True, slots=True)
class InstallUnit(Action):
    """Write the unit file."""

    kind: ClassVar[str] = "install-unit"
    path: str
    new: bool
    diff: str = ""

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveUnit(Action):
    """Delete a file of the init system that the service no longer has."""

    kind: ClassVar[str] = "remove-unit"
    path: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"delete {self.path}"


@dataclass(frozen=True, slots=True)
class Enable(Action):
    """Let the init system start the service at boot, or no longer."""

    kind: ClassVar[str] = "enable"
    on: bool

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return "start it at boot" if self.on else "do not start it at boot"


@dataclass(frozen=True, slots=True)
class Stop(Action):
    """Stop the service."""

    kind: ClassVar[str] = "stop"

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return "stop it"


@dataclass(frozen=True, slots=True)
class Switch(Action):
    """Make a version the current one, with one rename."""

    kind: ClassVar[str] = "switch"
    previous: str
    directory: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        if self.previous and self.previous != self.directory:
            return f"switch {paths.CONTAINERS}/{self.service} from {self.previous} to {self.directory}"
        return f"point {paths.CONTAINERS}/{self.service} to {self.directory}"


@dataclass(frozen=True, slots=True)
class CarryData(Action):
    """Move the volumes of the previous version to the new one, by a rename."""

    kind: ClassVar[str] = "carry-data"
    origin: str
    directory: str
    empty: bool = False

    @property
    def sentence(self) -> str:
        """See `Action`."""
        if self.empty:
            return f"move the directory for volumes, of which it has none, from {self.origin} to {self.directory}"
        if self.origin == self.directory:
            return f"end the move of the volumes to {self.directory}/{paths.DATA}"
        return f"move the volumes from {self.origin}/{paths.DATA} to {self.directory}/{paths.DATA}"


@dataclass(frozen=True, slots=True)
class KeepWrites(Action):
    """Move what the service wrote to its root file system to the same image unpacked anew, by a rename."""

    kind: ClassVar[str] = "keep-writes"
    origin: str
    directory: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"move what it wrote from {self.origin}/{paths.UPPER} to {self.directory}/{paths.UPPER}"


@dataclass(frozen=True, slots=True)
class Start(Action):
    """Start the service and see that it runs."""

    kind: ClassVar[str] = "start"

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return "start it"


@dataclass(frozen=True, slots=True)
class Schedule(Action):
    """Let systemd start a job, or the snapshots of a service, at its times from now on, or no longer.

    Cron reads its tables by itself.
    """

    kind: ClassVar[str] = "schedule"
    on: bool
    snapshots: bool = False

    @property
    def sentence(self) -> str:
        """See `Action`."""
        if self.snapshots:
            return f"take snapshots of it at their times {'from now on' if self.on else 'no longer'}"
        return "start it at its times from now on" if self.on else "start it at its times no longer"


@dataclass(frozen=True, slots=True)
class Restart(Action):
    """Stop and start the service and see that it runs."""

    kind: ClassVar[str] = "restart"

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return "restart it"


@dataclass(frozen=True, slots=True)
class Replace(Action):
    """Let the running container see changed configuration files, each replaced in one step."""

    kind: ClassVar[str] = "replace"
    files: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"replace {', '.join(self.files)} in the running container"


@dataclass(frozen=True, slots=True)
class Reload(Action):
    """Tell the running service to read its configuration again."""

    kind: ClassVar[str] = "reload"

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return "reload it"


@dataclass(frozen=True, slots=True)
class Activate(Action):
    """Make a generation that is there the current one of its version, with one rename."""

    kind: ClassVar[str] = "activate"
    directory: str
    generation: int

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"go back to generation {self.generation} of {self.directory}"


@dataclass(frozen=True, slots=True)
class BringBack(Action):
    """Give a version that was replaced by another image of the same tag its place again, by an exchange."""

    kind: ClassVar[str] = "bring-back"
    directory: str
    origin: str
    replaces: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        kept = f", keeping what is there as {paths.CONTAINERS}/{self.replaces}" if self.replaces else ""
        return f"bring {paths.CONTAINERS}/{self.origin} back as {self.directory}{kept}"


@dataclass(frozen=True, slots=True)
class PutAside(Action):
    """Keep the data that a version has of its own as a snapshot, since other data takes its place; by a rename."""

    kind: ClassVar[str] = "put-aside"
    directory: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"keep the volumes in {self.directory}/{paths.DATA} as a snapshot"


@dataclass(frozen=True, slots=True)
class CopyData(Action):
    """Give the new version a copy of the volumes; the previous one keeps its own."""

    kind: ClassVar[str] = "copy-data"
    origin: str
    directory: str
    how: Literal["clone", "copy"]
    size: int = -1
    """Bytes that it takes on the disk; -1 when there are too many files to count them for a plan."""

    @property
    def sentence(self) -> str:
        """See `Action`."""
        verb = "clone" if self.how == "clone" else "copy"
        much = f" ({megabytes(self.size)})" if self.size >= 0 else ""
        return (
            f"{verb} the volumes of {self.origin}{much} to {self.directory}/{paths.DATA}; "
            f"a rollback finds those of {self.origin} as they are now"
        )


@dataclass(frozen=True, slots=True)
class RunHook(Action):
    """Run a command of the manifest in the service's container."""

    kind: ClassVar[str] = "run-hook"
    hook: Literal["before", "after"]
    command: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"run upgrade.{self.hook} in it: {shlex.join(self.command)}"


@dataclass(frozen=True, slots=True)
class Migrate(Action):
    """Run the command that takes the data from one format to the next, in a container of the new version."""

    kind: ClassVar[str] = "migrate"
    directory: str
    command: tuple[str, ...]
    before: str
    after: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        before = f"format {self.before}" if self.before else "a format that nobody noted"
        change = f"from {before} to {self.after}"
        return f"take its data {change}: {shlex.join(self.command)}"


@dataclass(frozen=True, slots=True)
class NoteFormat(Action):
    """Write down, beside the data, in which format it is."""

    kind: ClassVar[str] = "note-format"
    directory: str
    format: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"note that its data has the format {self.format}"


@dataclass(frozen=True, slots=True)
class RetireVersion(Action):
    """Remove an old version; volumes that it has of its own stay."""

    kind: ClassVar[str] = "retire-version"
    directory: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"remove the old version {self.directory}; data of its own stays"


@dataclass(frozen=True, slots=True)
class NoteSource(Action):
    """Write down where a service's manifest is by now, for `--prune`; no generation is made for it."""

    kind: ClassVar[str] = "note-source"
    directory: str
    path: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"note that its manifest is {self.path}"


@dataclass(frozen=True, slots=True)
class KeepImage(Action):
    """Write the documents of the image into the version's directory again."""

    kind: ClassVar[str] = "keep-image"
    directory: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"write the image's manifest and configuration to {self.directory}/{paths.IMAGE} again"


@dataclass(frozen=True, slots=True)
class RemoveService(Action):
    """Stop a service and remove its units and versions; what it has of data stays."""

    kind: ClassVar[str] = "remove-service"
    directory: str

    @property
    def sentence(self) -> str:
        """See `Action`."""
        return f"stop and remove it ({self.directory}); its data stays"


def describe(action: Action) -> dict[str, Any]:
    """Return an action as JSON data: kind, service, sentence, reason and its own fields."""
    data = {f.name: getattr(action, f.name) for f in fields(action)}
    return {"kind": action.kind, "sentence": action.sentence, **data}
