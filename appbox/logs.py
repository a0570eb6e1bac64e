"""What a service wrote, the same from systemd's journal and from the log files that a run script keeps under OpenRC.

A line of a file begins with its time, RFC 3339 in UTC; one without was written by the supervisor, right after the line
before. Memory is bounded, however much there is to read: what is shown goes out as it comes in.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO, Final

from appbox import owner
from appbox.errors import AppboxError, printable
from appbox.host import process, services
from appbox.store import paths

_STAMP: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z ")
_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
_BLOCK: Final = 1 << 16
_LONGEST: Final = 1 << 20
"""Bytes of a line that are shown in one piece."""
_KEPT: Final = 1000
"""The most log files that a manifest may ask for."""
_PAUSE: Final = 0.2
"""Seconds between two looks at a file that is followed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show: the last `lines` (None: all), none before `since` (seconds since 1970), then what is to come."""

    lines: int | None = 100
    since: float | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its time, "" if nobody knows; `data` ends with a newline unless the rest of it comes next.

    `resumed` says that it goes on with the line before.
    """

    time: str
    data: bytes
    resumed: bool = False


def from_files(name: str, wanted: Wanted, path: str = "") -> Iterator[Line]:
    """Return what the log files of a service have, or those at `path`; AppboxError without any, unless it follows."""
    path = path or paths.log_file(name)
    while not os.path.exists(path):
        if not wanted.follow:
            raise AppboxError("has not written anything yet", where=name, why=f"{path} does not exist")
        time.sleep(_PAUSE)
    return read(path, wanted)


def read(path: str, wanted: Wanted) -> Iterator[Line]:
    """Return what is in a log file and the older ones beside it: PATH.1, PATH.2 and so on."""
    return _younger(_stamped(_pieces(path, wanted)), wanted.since)


def _younger(lines: Iterator[Line], since: float | None) -> Iterator[Line]:
    """Leave out lines from before `since`, which counts in whole seconds."""
    first = datetime.fromtimestamp(since, UTC).strftime(_FORMAT) if since is not None else ""
    return (line for line in lines if line.time >= first)


def _stamped(pieces: Iterator[bytes]) -> Iterator[Line]:
    """Tell times and texts of lines apart."""
    stamp, whole = "", True
    for piece in pieces:
        found = _STAMP.match(piece) if whole else None
        if found:
            stamp = found[0][:-1].decode()
        yield Line(stamp, piece[found.end() :] if found else piece, resumed=not whole)
        whole = piece.endswith(b"\n")


def _pieces(path: str, wanted: Wanted) -> Iterator[bytes]:
    """Yield lines, or parts of very long ones, from the first that is wanted on."""
    with contextlib.ExitStack() as stack:
        opened = _open_all(path, stack)
        first, offset = _start(opened, wanted.lines)
        for file in opened[first:]:
            file.seek(offset)
            offset = 0
            yield from _lines(file)
        if wanted.follow and opened:
            last = opened.pop()
            # The older ones are read, and would take their space from the disk for as long as they are open.
            for file in opened:
                file.close()
            yield from _following(path, last)


def _open_all(path: str, stack: contextlib.ExitStack) -> list[BinaryIO]:
    """Open the log files, the oldest first. A file that is renamed meanwhile is found once."""
    found: list[BinaryIO] = []
    seen: set[int] = set()
    for number in range(_KEPT):
        try:
            file = open(f"{path}.{number}" if number else path, "rb")  # noqa: SIM115 - the stack closes it
        except FileNotFoundError:
            if number:
                break
            continue
        stack.callback(file.close)
        inode = os.fstat(file.fileno()).st_ino
        if inode not in seen:
            found.insert(0, file)
        seen.add(inode)
    return found


def _start(opened: list[BinaryIO], lines: int | None) -> tuple[int, int]:
    """Return the file, and the place in it, where the last `lines` begin. Only what they need is read, from the end."""
    if lines is None:
        return 0, 0
    left = lines + 1  # the newline before the first of them, too
    for index in range(len(opened) - 1, -1, -1):
        file = opened[index]
        end = file.seek(0, os.SEEK_END)
        # A line that is being written has no newline yet.
        if index == len(opened) - 1 and end and _at(file, end - 1, 1) != b"\n":
            left -= 1
        while end > 0 and left > 0:
            begin = max(0, end - _BLOCK)
            block = _at(file, begin, end - begin)
            count = block.count(b"\n")
            if count >= left:
                place = len(block)
                for _ in range(left):
                    place = block.rindex(b"\n", 0, place)
                return index, begin + place + 1
            left -= count
            end = begin
        # The newline before the first line of a file is the last one of the file before.
    return 0, 0


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.readline(_LONGEST):
        yield piece


def _following(path: str, file: BinaryIO) -> Iterator[bytes]:
    """Yield what comes after the end of `file`, and of every file that takes its place."""
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: file.close())  # noqa: PLW0108 - the file of then, not of now
        while True:
            place = file.tell()
            piece = file.readline(_LONGEST)
            if piece.endswith(b"\n") or len(piece) == _LONGEST:
                yield piece
                continue
            # Half a line is read again when the rest is there, unless its file has been replaced: then that was all.
            file.seek(place)
            later = _successor(path, file)
            if later is None:
                yield b""
                time.sleep(_PAUSE)
                continue
            yield from _lines(file)
            file.close()
            file = later


def _successor(path: str, file: BinaryIO) -> BinaryIO | None:
    """Return the file that came after `file`, open, None while it is the newest."""
    inode = os.fstat(file.fileno()).st_ino
    with contextlib.ExitStack() as stack:
        opened = _open_all(path, stack)
        inodes = [os.fstat(one.fileno()).st_ino for one in opened]
        if not opened or inodes[-1] == inode:
            return None
        later = inodes.index(inode) + 1 if inode in inodes else 0
        return open(f"/proc/self/fd/{opened[later].fileno()}", "rb")


def from_journal(name: str, wanted: Wanted) -> Iterator[Line]:
    """Yield what systemd's journal has of the output of the service and of its health check.

    The check says there what it does about the service, as it does in the log files under OpenRC. HostLacks without
    journalctl.
    """
    argv = [process.need("journalctl", "systemd keeps the logs"), "--no-pager", "--quiet", "--all", "--output", "json"]
    argv += ["--output-fields=MESSAGE", f"--lines={'all' if wanted.lines is None else wanted.lines}"]
    # With both, journalctl before systemd 254 shows the first lines since then, not the last ones.
    argv += [f"--since=@{int(wanted.since)}"] if wanted.since is not None and wanted.lines is None else []
    argv += ["--follow"] if wanted.follow else []
    field = services.journal_field("UNIT")
    units = [f"{field}={unit}.service" for unit in (name, f"{name}:health")]  # either matches
    own = owner.current()
    if own is not None and not own.by_root:
        # Of a process that has ended meanwhile, the journal no longer knows which unit of a user it was in.
        units += ["+", f"_UID={own.uid}", f"SYSLOG_IDENTIFIER={name}", "_TRANSPORT=stdout"]
    with process.stream([*argv, *units]) as output:
        yield from _younger(map(_entry, output), wanted.since)


def _entry(text: bytes) -> Line:
    """Return an entry of the journal (systemd's JSON: a message that is no UTF-8 is a list of numbers)."""
    entry = json.loads(text)
    message = entry.get("MESSAGE") or ""
    data = bytes(message) if isinstance(message, list) else str(message).encode("utf-8", "surrogatepass")
    stamp = datetime.fromtimestamp(int(entry.get("__REALTIME_TIMESTAMP", 0)) // 1_000_000, UTC)
    return Line(stamp.strftime(_FORMAT), data + b"\n")


def show(lines: Iterator[Line], *, stamps: bool, as_json: bool) -> None:
    """Write lines to standard output: what a terminal might obey is made visible, anything else gets every byte."""
    terminal = sys.stdout.isatty()
    out = sys.stdout.buffer
    for line in lines:
        if not line.data:
            out.flush()
        elif as_json:
            text = line.data.removesuffix(b"\n").decode("utf-8", "backslashreplace")
            out.write(json.dumps({"time": line.time, "line": text}).encode() + b"\n")
        else:
            stamp = f"{line.time} ".encode() if stamps and line.time and not line.resumed else b""
            data = printable(line.data.decode("utf-8", "backslashreplace")).encode() if terminal else line.data
            out.write(stamp + data)
        if terminal:
            out.flush()
    out.flush()
