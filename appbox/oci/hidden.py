"""Which files of lower layers nobody will see, because an upper layer replaces or removes them. No effects.

What is known is a saving, not a rule: a lower layer's file may be left out exactly when a later layer has an entry or a
whiteout of the very same path, or removes a directory above it. `writer` leaves out files only, never directories or
symlinks, so that paths of the layers between lead where they would lead anyway; where such a layer links to a file that
was left out, the image is unpacked again without leaving out anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from appbox.oci.layer import Entry, Whiteout
from appbox.oci.tar import Kind


class Hidden:
    """Paths and trees with the number of the uppermost layer that hides them. Layers count from 0, the lowest."""

    def __init__(self) -> None:
        self._paths: dict[bytes, int] = {}
        self._below: dict[bytes, int] = {}  # directories whose content is hidden
        self._known: dict[bytes, int] = {}  # directories and the layer that hides all in them, as looked up

    def learn(self, number: int, changes: Iterable[Entry | Whiteout]) -> None:
        """Take in what layer `number` does."""
        for change in changes:
            if isinstance(change, Whiteout):
                path = b"/".join(filter(None, (change.parent, change.name)))
                self._note(self._below, path, number)
                if change.name:
                    self._note(self._paths, path, number)
            elif change.kind is not Kind.DIRECTORY:
                self._note(self._paths, change.path, number)
                self._note(self._below, change.path, number)
        self._known.clear()

    @staticmethod
    def _note(table: dict[bytes, int], path: bytes, number: int) -> None:
        table[path] = max(number, table.get(path, 0))

    def __bool__(self) -> bool:
        return bool(self._paths or self._below)

    def hides(self, number: int, path: bytes, parent: bytes) -> bool:
        """Return whether a file that layer `number` has at `path`, in `parent`, is replaced or removed later."""
        return self._paths.get(path, 0) > number or self._above(parent) > number

    def _above(self, directory: bytes) -> int:
        known = self._known.get(directory)
        if known is None:
            known = self._below.get(directory, 0)
            if directory:
                known = max(known, self._above(directory.rpartition(b"/")[0]))
            self._known[directory] = known
        return known
