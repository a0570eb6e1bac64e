"""What a rootfs consists of, recorded while it is written, so that its mtree manifest needs no second look at it.

Effects: none but a temporary file without a name, for what does not fit into memory.

Everything that happens to the disk is told in the order in which it happens, and only noted down: a log of records,
each of a path. Runs of it are sorted by path (`mtree.order`), spilled, and merged at the end, where all records of a
path come together and a directory comes right before what is in it. So what a later layer replaced or removed need not
be looked for while layers are written, and a million entries cost some 25 MB.

Hard links have the attributes and the content of a path as it was at that moment, which a later layer may have replaced
since. A question, logged under that path, meets its answer in a first merge.
"""

from __future__ import annotations

import errno
import hashlib
import heapq
import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from appbox.oci import mtree
from appbox.oci.digest import Digest
from appbox.oci.tar import Kind

RUN: Final = 4 << 20
"""Bytes of records, as Python holds them, that are kept in memory: 15,000 usual ones."""
_OVERHEAD: Final = 96
"""Bytes that two bytes objects and their places in two lists take besides what they hold."""
_READ: Final = 1 << 15
"""Bytes read at once of a run; a million entries make some eighty runs."""
_WRITE: Final = 1 << 18
"""Bytes of lines that are written at once."""
TEMPORARY: Final = ".appbox-tmp"
"""Suffix of the file where there are no files without a name; for a moment it has one."""

_REMOVED: Final = b"-"
_EMPTIED: Final = b"~"
_LINK: Final = b"="
_QUESTION: Final = b"?"
"""How texts of records begin that are not about something made: a hard link and a question are followed by the number
of the link, in decimal."""

_HEAD: Final = struct.Struct("<HIQ")
"""A record in a run: the lengths of key and text, and its place in the log."""


class Record(NamedTuple):
    """One line of the log: the key of a path, when it was noted, and what happened."""

    key: bytes
    when: int
    text: bytes


_EMPTY: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Written:
    """A manifest that was written: the digest and size of its bytes, and how many things it lists."""

    digest: Digest
    size: int
    entries: int


class Recorder:
    """Takes note of everything made and removed, then writes the manifest. Not for several threads at once.

    Paths are relative to the root, free of symlinks and without `.` or `..`; the root is empty. Ids, modes, extended
    attributes and times are those on disk; a directory's is what it has at the end. What is made replaces what had the
    path, except that a directory over a directory keeps what is in it. `scratch_fd`, a directory on a disk, must stay
    open until `close`. OSError when the disk is full.
    """

    def __init__(self, scratch_fd: int) -> None:
        self._scratch = scratch_fd
        self._spill = _Spill()
        self._keys: list[bytes] = []
        self._texts: list[bytes] = []
        self._room = RUN
        self._first = 0  # the place in the log of the first record that is in memory
        self._links = 0
        self._prefixes: dict[tuple[Kind, int, int, int], str] = {}

    def close(self) -> None:
        """Let go of the temporary file."""
        self._spill.close()

    # What happens to the disk

    def file(  # noqa: PLR0917
        self,
        path: bytes,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        size: int,
        digest: bytes,
        xattrs: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        """A file was made. `mtime` is in nanoseconds since 1970, `digest` the 32 bytes of its content's SHA-256."""
        more = f" {mtree.attributes(xattrs)}" if xattrs else ""
        # Not mtree.time: this is done for every file, and the call would take a tenth of the time.
        self._note(
            path,
            f"{self._prefix(Kind.FILE, mode, uid, gid)}{mtime // 1_000_000_000}.{mtime % 1_000_000_000:09d}"
            f" size={size} sha256digest={digest.hex()}{more}",
        )

    def directory(  # noqa: PLR0917
        self, path: bytes, mode: int, uid: int, gid: int, mtime: int, xattrs: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        """A directory was made, or given these attributes."""
        more = f" {mtree.attributes(xattrs)}" if xattrs else ""
        self._note(path, f"{self._prefix(Kind.DIRECTORY, mode, uid, gid)}{mtree.time(mtime)}{more}")

    def symlink(self, path: bytes, uid: int, gid: int, mtime: int, target: bytes) -> None:
        """A symlink was made. Its mode is 0777, as Linux has it."""
        words = self._prefix(Kind.SYMLINK, 0o777, uid, gid)
        self._note(path, f"{words}{mtree.time(mtime)} link={mtree.escaped(target)}")

    def special(  # noqa: PLR0917
        self, path: bytes, kind: Kind, mode: int, uid: int, gid: int, mtime: int, major: int = 0, minor: int = 0
    ) -> None:
        """A device or a fifo was made."""
        more = "" if kind is Kind.FIFO else f" device={mtree.device(major, minor)}"
        self._note(path, f"{self._prefix(kind, mode, uid, gid)}{mtree.time(mtime)}{more}")

    def placeholder(  # noqa: PLR0917
        self, path: bytes, kind: Kind, mode: int, uid: int, gid: int, mtime: int, major: int = 0, minor: int = 0
    ) -> None:
        """An empty file was made in the place of a device or a fifo, which only root of the host may make."""
        words = f"{self._prefix(Kind.FILE, mode, uid, gid)}{mtree.time(mtime)} size=0 sha256digest={_EMPTY}"
        self._note(path, f"{words} {mtree.instead(kind, major, minor)}")

    def linked(self, path: bytes, target: bytes) -> None:
        """`path` was made as another name of what `target` is now, whatever becomes of `target` later."""
        number = b"%d" % self._links
        self._links += 1
        self._add(target, _QUESTION + number)
        self._add(path, _LINK + number)

    def removed(self, path: bytes) -> None:
        """`path` and everything below it is gone; it need not have been there."""
        self._add(path, _REMOVED)

    def emptied(self, path: bytes) -> None:
        """Everything below `path` is gone, and the directory itself stays."""
        self._add(path, _EMPTIED)

    # The log

    def _prefix(self, kind: Kind, mode: int, uid: int, gid: int) -> str:
        """Return the words before the time. An image has few different ones, unless it wants to be a nuisance."""
        wanted = (kind, mode, uid, gid)
        found = self._prefixes.get(wanted)
        if found is None:
            if len(self._prefixes) >= 1024:
                self._prefixes.clear()
            found = self._prefixes[wanted] = f"{mtree.common(kind, mode, uid, gid)} time="
        return found

    def _note(self, path: bytes, words: str) -> None:
        self._add(path, words.encode())

    def _add(self, path: bytes, text: bytes) -> None:
        self._keys.append(path.replace(b"/", b"\0"))  # mtree.order, without the call
        self._texts.append(text)
        self._room -= len(path) + len(text) + _OVERHEAD
        if self._room < 0:
            self._flush()

    def _flush(self) -> None:
        self._spill.add(self._scratch, self._sorted())
        self._first += len(self._keys)
        self._keys, self._texts, self._room = [], [], RUN

    def _sorted(self) -> Iterator[Record]:
        """Yield the records in memory by path, those of one path in their order (sorting is stable)."""
        keys, texts, first = self._keys, self._texts, self._first
        for index in sorted(range(len(keys)), key=keys.__getitem__):
            yield Record(keys[index], first + index, texts[index])

    def _merged(self) -> Iterator[Record]:
        """Yield all records by path, those of one path in their order."""
        runs = self._spill.runs()
        return heapq.merge(*runs, self._sorted()) if runs else self._sorted()

    # The manifest

    def write(self, fd: int) -> Written:
        """Write the manifest of what there is now to an empty file."""
        linked = _Links(self._merged(), self._links) if self._links else None
        if linked:
            for record in _living(self._merged()):
                linked.count(record)
        output = _Output(fd)
        output.line(mtree.HEADER)
        entries = 0
        for record in _living(self._merged()):
            key, _, text = record
            count = 1
            if linked:
                text, count = self._linked(record, linked)
            name = mtree.name(key.replace(b"\0", b"/"))
            if text.startswith(b"type=dir"):  # its number of links would depend on the file system
                output.line(b"%b %b\n" % (name, text))
            else:
                output.line(b"%b %b nlink=%d\n" % (name, text, count))
            entries += 1
        return Written(output.end(), output.size, entries)

    def _linked(self, record: Record, linked: _Links) -> tuple[bytes, int]:
        """Return the text and the number of names of what `record` describes, which may be a link."""
        origin = linked.origin(record)
        text = record.text if origin == record.when else self._text(origin)
        return text, linked.counts.get(origin, 1)

    def _text(self, when: int) -> bytes:
        """Return the text of a record by its place in the log."""
        return self._texts[when - self._first] if when >= self._first else self._spill.text(when)


def _living(records: Iterator[Record]) -> Iterator[Record]:
    """Yield, of all records by path, the one of each path that describes what is there at the end."""
    above: list[tuple[bytes, int]] = []  # how keys below a directory begin, and until when what was there is gone
    for key, group in groupby(records, itemgetter(0)):
        while above and not key.startswith(above[-1][0]):
            above.pop()
        gone = below = above[-1][1] if above else -1
        last = None
        for record in group:
            text = record[2]
            if text == _REMOVED:
                last, below = None, max(below, record[1])
            elif text == _EMPTIED:
                below = max(below, record[1])
            elif not text.startswith(_QUESTION):
                last = record
        if below > gone:
            above.append((key + b"\0" if key else b"", below))
        if last is not None and last[1] > gone:
            yield last


class _Links:
    """What the hard links are: for each, by its number, the place in the log of the record that made the file.

    `counts` has, by that place, how many names the file has at the end, once `count` has been told of all of them.
    """

    def __init__(self, records: Iterator[Record], number: int) -> None:
        self._origins = array("q", bytes(8 * number))
        for _, group in groupby(records, itemgetter(0)):
            self._answer(group)
        # A link to a link asked for an earlier one, whose origin is known by now.
        for index, origin in enumerate(self._origins):
            if origin < 0:
                self._origins[index] = self._origins[-origin - 1]
        self.counts = dict.fromkeys(self._origins, 0)

    def _answer(self, records: Iterator[Record]) -> None:
        answer: int | None = None
        for _, when, text in records:
            if text.startswith(_LINK):
                answer = -int(text[1:]) - 1
            elif not text.startswith(_QUESTION):
                answer = answer if text in (_REMOVED, _EMPTIED) else when
            elif answer is None:
                raise ValueError("a hard link to what was never made")
            else:
                self._origins[int(text[1:])] = answer

    def origin(self, record: Record) -> int:
        """Return the place in the log of the record that made what `record` describes."""
        return self._origins[int(record.text[1:])] if record.text.startswith(_LINK) else record.when

    def count(self, record: Record) -> None:
        """Count a name that is there at the end."""
        origin = self.origin(record)
        if origin in self.counts:
            self.counts[origin] += 1


class _Spill:
    """Sorted runs of records in a file without a name."""

    def __init__(self) -> None:
        self._fd = -1
        self._runs: list[tuple[int, int]] = []
        self._places = array("Q")  # where the records are, by their place in the log

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add(self, scratch: int, records: Iterator[Record]) -> None:
        """Append a run: all records since the last one."""
        if self._fd < 0:
            self._fd = _nameless(scratch)
        start = self._runs[-1][1] if self._runs else 0
        pieces: list[bytes] = []
        places: dict[int, int] = {}
        end = start
        for key, when, text in records:
            pieces += (_HEAD.pack(len(key), len(text), when), key, text)
            places[when] = end
            end += _HEAD.size + len(key) + len(text)
        _write_all(self._fd, b"".join(pieces))
        self._places.extend(places[when] for when in sorted(places))
        self._runs.append((start, end))

    def runs(self) -> list[Iterator[Record]]:
        """Return a reader of each run."""
        return [self._read(start, end) for start, end in self._runs]

    def text(self, when: int) -> bytes:
        """Return the text of a record by its place in the log."""
        place = self._places[when]
        key, size, _ = _HEAD.unpack(os.pread(self._fd, _HEAD.size, place))
        return os.pread(self._fd, size, place + _HEAD.size + key)

    def _read(self, at: int, end: int) -> Iterator[Record]:
        block, start = b"", 0
        while at < end:
            if len(block) < start + _HEAD.size:
                block, start = os.pread(self._fd, _READ, at), 0
            key, size, when = _HEAD.unpack_from(block, start)
            length = _HEAD.size + key + size
            if len(block) < start + length:
                block, start = os.pread(self._fd, max(_READ, length), at), 0
            middle = start + _HEAD.size + key
            yield Record(block[start + _HEAD.size : middle], when, block[middle : start + length])
            start += length
            at += length


class _Output:
    """Lines into a file, hashed on the way."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hash = hashlib.sha256()
        self._lines: list[bytes] = []
        self._pending = 0
        self.size = 0

    def line(self, text: bytes) -> None:
        """Write a line."""
        self._lines.append(text)
        self._pending += len(text)
        if self._pending > _WRITE:
            self._flush()

    def end(self) -> Digest:
        """Write what is pending, and return the digest of everything."""
        self._flush()
        return Digest("sha256", self._hash.hexdigest())

    def _flush(self) -> None:
        data = b"".join(self._lines)
        self._hash.update(data)
        _write_all(self._fd, data)
        self.size += len(data)
        self._lines, self._pending = [], 0


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _nameless(scratch: int) -> int:
    """Open a new file that nobody else can, in the directory `scratch`."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=scratch)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise  # those three say that file system or kernel have no such files
    name = f".{os.getpid()}{TEMPORARY}"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=scratch)
    os.unlink(name, dir_fd=scratch)
    return fd
