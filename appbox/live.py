"""Configuration as a running container sees it: what is mounted where, and what a change of it asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from appbox import owner, volumes
from appbox.host.facts import Facts
from appbox.locked import Locked
from appbox.manifest import Config
from appbox.oci.rootfs import RootfsFacts
from appbox.oci.runtime_spec import Mount

OnChange = Literal["restart", "reload", "none"]

OPTIONS: Final = ("bind", "ro", "nosuid", "nodev")
"""How files of a generation are mounted; most cannot be executed either."""


@dataclass(frozen=True, slots=True)
class LiveMount:
    """A configuration file or directory in the container.

    `table` is its path in the manifest, `target` the same with the image's symlinks resolved. `executable`: a file of
    it is a program. `on_change` is what a running service does.
    """

    table: str
    target: str
    directory: bool
    executable: bool
    on_change: OnChange

    @property
    def path(self) -> str:
        """Where it is in a generation."""
        return f"config{self.table}"

    def holds(self, path: str) -> bool:
        """Return whether a file of a generation is seen through this mount."""
        return path == self.path or (self.directory and path.startswith(f"{self.path}/"))

    def mount(self, bundle: str) -> Mount:
        """Return the mount that brings it into the container."""
        return Mount(self.target, f"{bundle}/{self.path}", "", OPTIONS if self.executable else (*OPTIONS, "noexec"))


def able(facts: Facts) -> bool:
    """Return whether the kernel can replace what a running container sees."""
    return facts.abilities is None or facts.abilities.live_mounts


def build(locked: Locked, rootfs: RootfsFacts | None, *, able: bool = True) -> tuple[LiveMount, ...]:
    """Return the mounts of a service's configuration, sorted; what lies in a directory of it needs none of its own."""
    tables = locked.manifest.config
    return tuple(
        _mount(locked, path, table, rootfs, able=able)
        for path, table in sorted(tables.items())
        if not _within_another(path, tables)
    )


def _within_another(path: str, tables: Mapping[str, Config]) -> bool:
    return any(path.startswith(f"{other}/") for other, table in tables.items() if table.directory is not None)


def _mount(locked: Locked, path: str, table: Config, rootfs: RootfsFacts | None, *, able: bool) -> LiveMount:
    node = volumes.resolve(path, rootfs)
    directory = table.directory is not None
    volumes.refuse_kind(locked, path, node, "directory" if directory else "file")
    inside = [s for p, s in locked.configs.items() if p == path or p.startswith(f"{path}/")]
    return LiveMount(
        table=path,
        target=node.path if node else path,
        directory=directory,
        executable=any(source.mode(locked.manifest.config[source.table].mode) & 0o111 for source in inside),
        on_change=on_change(table, able=able),
    )


def on_change(table: Config, *, able: bool) -> OnChange:
    """Return what a change of a file does to a running service: with a kernel that cannot replace it, a restart."""
    return table.on_change if able else "restart"


def notes(locked: Locked, facts: Facts) -> list[str]:
    """Return what the operator should know of files that this kernel cannot replace."""
    calm = sorted(path for path, table in locked.manifest.config.items() if table.on_change != "restart")
    if calm and not able(facts):
        why = "a running container sees new files from Linux 5.12 on"
        if owner.current() is not None:
            why = "only root can let a running container see new files"
        return [f"changes of {', '.join(calm)} restart the service: {why}"]
    return []


def change_of(path: str, files: Mapping[str, Any], mounts: tuple[LiveMount, ...]) -> OnChange:
    """Return what the change of a generation's file asks for.

    `files` are those of the new generation by path, with their `on_change`; one that is gone was its mount's.
    """
    if path in files:
        found: OnChange = files[path].on_change
        return found
    return next((mount.on_change for mount in mounts if mount.directory and mount.holds(path)), "restart")
