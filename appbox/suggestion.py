"""Which volumes would let a service run on a read-only root file system, drawn from what it wrote. Pure.

The rule, for each write:
- /run, /tmp and /var/tmp can be written to anyway;
- a directory that the service made in one that the whole system shares (/var/lib, /etc…) becomes a volume itself;
- otherwise the nearest directory that the image has becomes one, and starts as a copy of what the image has in it;
- it is a tmpfs where a cache or temporary files are by their names, and the image has nothing there; else its data is
  kept;
- a volume within another one is left out: it is in that one's copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import tomli_w

from appbox.errors import printable
from appbox.fields import BadValueError, is_below, target
from appbox.volumes import free_name
from appbox.writable import SCRATCH

if TYPE_CHECKING:
    from appbox.host.upper import Place, Write

SHARED: Final = frozenset(
    (
        *("/", "/etc", "/home", "/media", "/mnt", "/opt", "/srv", "/usr", "/usr/lib", "/usr/local", "/usr/share"),
        *("/var", "/var/cache", "/var/lib", "/var/log", "/var/spool"),
    )
)
"""Directories that belong to no program (Filesystem Hierarchy Standard): what is made in one is a thing of its own."""

_VOLATILE: Final = frozenset(("cache", ".cache", "caches", "tmp", ".tmp", "temp"))
"""Names of directories whose content a program has to do without."""

_LISTED: Final = 20
"""Writes that no volume can help which are shown."""

_VOLUMES: Final = 100
"""Volumes that are suggested; who writes in more places does better with another root file system."""

_LEAST: Final = 64 * 2**20
"""Bytes that a suggested tmpfs may hold at least; else four times what was seen in it."""


@dataclass(slots=True)
class _Need:
    """A volume that is needed: what made it so, how many writes it covers, and how many bytes they have."""

    place: Place
    first: str
    own: bool
    writes: int = 0
    size: int = 0


@dataclass(slots=True)
class Suggestion:
    """What to add to a manifest. Writes are added one by one; only directories are kept in memory.

    `user` is whom the process starts as ("UID:GID"), `taken` are the names of volumes that there are, `ids` how many
    ids the service has.
    """

    user: str = ""
    taken: frozenset[str] = frozenset()
    ids: int = 65536
    needs: dict[str, _Need] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)
    more: int = 0

    def add(self, write: Write) -> None:
        """Take a write into account."""
        place = write.place
        made = place.home.rstrip("/") + f"/{place.top}" if place.top else place.home
        if any(is_below(made, scratch) for scratch in SCRATCH):
            return
        own = place.directory and place.home in SHARED
        where = made if own else place.home
        try:
            target(where)
        except (BadValueError, UnicodeEncodeError) as error:
            if len(self.impossible) < _LISTED:
                self.impossible[write.path] = str(error)
            return
        if where not in self.needs and len(self.needs) >= _VOLUMES:
            self.more += 1
            return
        need = self.needs.setdefault(where, _Need(place, write.path, own))
        need.writes += 1
        need.size += write.size if write.change != "deleted" else 0

    def volumes(self) -> dict[str, dict[str, Any]]:
        """Return the tables of [volumes], by name, in the order of their paths."""
        found: dict[str, dict[str, Any]] = {}
        taken: dict[str, object] = dict.fromkeys(self.taken)
        for path in self._kept():
            name = free_name(path, taken)
            taken[name] = None
            found[name] = self._table(path, self.needs[path])
        return found

    def _kept(self) -> list[str]:
        data = [path for path, need in self.needs.items() if not _is_volatile(path, need)]
        covered = {path for path in self.needs if any(path != outer and is_below(path, outer) for outer in data)}
        kept = sorted(self.needs.keys() - covered)
        # A tmpfs in a tmpfs is part of it.
        return [p for p in kept if p in data or not any(p != outer and is_below(p, outer) for outer in kept)]

    def _table(self, path: str, need: _Need) -> dict[str, Any]:
        table: dict[str, Any] = {"path": path}
        owner = f"{need.place.owner[0]}:{need.place.owner[1]}"
        if need.own and owner != self.user and 0 <= min(need.place.owner) <= max(need.place.owner) < self.ids:
            table["owner"] = owner
        if _is_volatile(path, need):
            table |= {"tmpfs": True, "size": f"{max(_LEAST, 4 * need.size + 2**20 - 1) // 2**20}M"}
            table |= {"mode": f"{need.place.mode & 0o1777:04o}"} if need.own else {}
        return table

    def data(self) -> dict[str, Any]:
        """Return the suggestion as data: the tables of a manifest, and what no volume could help."""
        return {
            "security": {"rootfs": "read-only"},
            "volumes": self.volumes(),
            "impossible": [{"path": path, "why": why} for path, why in self.impossible.items()],
        }

    def text(self, name: str, *, has_security: bool) -> str:
        """Return the lines to add to the manifest of `name`; `has_security`: it has a table [security] already."""
        by_path = {table["path"]: (label, table) for label, table in self.volumes().items()}
        line = 'rootfs = "read-only"'
        lines = [f"# From what {name} has written so far, its root file system can be read-only with these lines."]
        lines += [f"# Set in the [security] that the manifest has: {line}"] if has_security else ["[security]", line]
        for path, (label, table) in by_path.items():
            need = self.needs[path]
            many = "1 write" if need.writes == 1 else f"{need.writes} writes"
            lines += ["", f"# {many}, the first to {_shown(need.first)}"]
            lines += tomli_w.dumps({"volumes": {label: table}}).splitlines()
        lines += ["", f"# {self.more} writes are in yet other places"] if self.more else []
        lines += ["", "# No volume can help here:"] if self.impossible else []
        lines += [f"# {_shown(path)}: {_shown(why)}" for path, why in self.impossible.items()]
        return "".join(f"{line}\n" for line in lines)


def _is_volatile(path: str, need: _Need) -> bool:
    named = is_below(path, "/var/cache") or not _VOLATILE.isdisjoint(path.split("/"))
    return named and (need.own or need.place.bare)


def _shown(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
