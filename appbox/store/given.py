"""What one run gives to services: ranges of user ids and addresses on a bridge, each written down before its use."""

from __future__ import annotations

import os

from appbox.addresses import Attachment, Record
from appbox.host.facts import IdRange
from appbox.store import addresses, paths, ranges
from appbox.store.root import Root

_Mark = tuple[int, int, int]
"""A file as it was left: its inode and time, and its size."""


class Given:
    """The ranges and addresses that are given out while the lock is held.

    Each file is read once, and again only when it is not the one that was written here: somebody else frees what a
    removed service had. Reading them for every service of a thousand, with all bundles that they are held against,
    would take longer than all the rest.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._ranges: tuple[_Mark | None, dict[str, IdRange]] = (None, {})
        self._addresses: tuple[_Mark | None, Record] = (None, Record())

    def range(self, service: str, wanted: IdRange) -> bool:
        """Write down that a service has a range; False, and nothing is written, when another one has some of it."""
        path = f"{paths.STATE}/{paths.RANGES}"
        mark, table = self._ranges
        known = mark is not None and mark == self._mark(path)
        if not known:
            table = ranges.load(self._root)
        if any(found.overlaps(wanted) for name, found in table.items() if name != service):
            return False
        table = {**table, service: wanted}
        ranges.save(self._root, table, sound=known)
        self._ranges = (self._mark(path), table)
        return True

    def address(self, service: str, attachment: Attachment) -> bool:
        """Write down that a service has its address; False, and nothing is written, when another one has it."""
        path = f"{paths.STATE}/{paths.ADDRESSES}"
        mark, record = self._addresses
        known = mark is not None and mark == self._mark(path)
        if not known:
            record = addresses.load(self._root)
        if any(place.address == attachment.address for name, place in record.places.items() if name != service):
            return False
        record = record.with_(service, attachment)
        addresses.save(self._root, record, sound=known)
        self._addresses = (self._mark(path), record)
        return True

    def _mark(self, path: str) -> _Mark | None:
        try:
            fd = self._root.open(path, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            info = os.fstat(fd)
        finally:
            os.close(fd)
        return info.st_ino, info.st_mtime_ns, info.st_size
