"""Layers become a rootfs, in one streaming pass over each. Effects.

Everything is verified before `unpack` returns, and written before it is verified: the caller unpacks into a directory
of its own that nobody else can enter, publishes that afterwards, and removes it when anything was raised. The rules are
in `tar` (the format), `layer` (what a member means), `limits` and `writer` (what happens on disk).
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from appbox.errors import AppboxError, HostLacks, Refused
from appbox.host import syscalls
from appbox.host.inside import locate, read_inside, remove_tree
from appbox.oci import limits
from appbox.oci.flush import Flusher
from appbox.oci.hidden import Hidden
from appbox.oci.ids import IdMap
from appbox.oci.layer import Entry, Whiteout, interpret
from appbox.oci.limits import Limits
from appbox.oci.stream import Layer, Stream, Totals
from appbox.oci.tar import Archive
from appbox.oci.writer import LinkToHiddenError, Writer

if TYPE_CHECKING:
    from appbox.oci.listing import Listing
    from appbox.oci.recorder import Recorder

__all__ = ["IdMap", "Layer", "Limits", "Report", "list_image", "locate", "read_inside", "remove_tree", "unpack"]

Progress = Callable[[Layer, int], object]
"""Is told, in the caller's thread, how many compressed bytes of a layer have been read so far."""

_SWITCH: Final = 0.0005
"""Seconds after which a thread that wants Python's lock gets it, instead of 5 ms: the threads here need it often and
for microseconds, and would otherwise wait for one another."""

_KEPT: Final = 64 << 20
"""Bytes of freed memory that are used again rather than given back: every block would be zeroed pages otherwise."""

_WHOLE: Final = IdMap(0, 1 << 32)
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_HOSTILE: Final = frozenset((errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG))


@dataclass(frozen=True, slots=True)
class Report:
    """What was unpacked, and what is not as in the image.

    `entries` counts members, whiteouts included; `size` bytes of the uncompressed layers. `replaced` are devices and
    fifos that became empty files; `dropped_xattrs` names extended attributes that are never kept.
    """

    entries: int
    size: int
    replaced: tuple[str, ...]
    dropped_xattrs: tuple[str, ...]


def unpack(
    layers: Sequence[Layer],
    root_fd: int,
    idmap: IdMap,
    *,
    limits: Limits = Limits(),  # noqa: B008 - a frozen value
    progress: Progress | None = None,
    durable: bool = True,
    devices: Literal["create", "empty"] = "create",
    recorder: Callable[[], Recorder] | None = None,
    share: int = 1,
) -> Report:
    """Write the layers, lowest first, into the empty directory `root_fd`, owners shifted by `idmap`.

    `root_fd` is opened for reading, not O_PATH. `durable`: return only when the disk has it all. `recorder` makes what
    is told everything that is made and removed; when it is called again, what the one before was told is void. `share`
    says how many images are unpacked at once: the blocks in flight of all are bounded like those of one. Raises
    `Refused`, `HostLacks`, `Unavailable` (a layer that cannot be read), `AppboxError` (disk full); the directory then
    holds leftovers, which are the caller's to remove.
    """
    with _in_words(), _SWITCHING.quick():
        if os.listdir(root_fd):
            raise AppboxError("the directory to unpack into is not empty", hint="unpack into a new directory")
        unpacking = _Unpacking(layers, root_fd, idmap, limits, progress, devices == "empty", recorder, share)
        try:
            report = unpacking.write(save=True)
        except LinkToHiddenError:
            for name in os.listdir(root_fd):
                remove_tree(root_fd, name)
            report = unpacking.write(save=False)
        if durable:
            syscalls.syncfs(root_fd)
        return report


@dataclass(frozen=True, slots=True)
class _Unpacking:
    """An image to be unpacked, maybe more than once."""

    layers: Sequence[Layer]
    root_fd: int
    idmap: IdMap
    limits: Limits
    progress: Progress | None
    placeholders: bool
    recorder: Callable[[], Recorder] | None
    share: int

    def write(self, *, save: bool) -> Report:
        """Write all layers; `save`: leave out what is known not to be seen."""
        with (
            contextlib.closing(Flusher(self.root_fd)) as flusher,
            contextlib.closing(
                _Run(self.layers, self.limits, self.progress, self.idmap, passed=flusher.add, share=self.share)
            ) as run,
        ):
            hidden = run.look_ahead() if save else None
            recorder = self.recorder() if self.recorder else None
            with contextlib.closing(
                Writer(self.root_fd, self.idmap, placeholders=self.placeholders, hidden=hidden, recorder=recorder)
            ) as writer:
                for number in range(len(self.layers)):
                    writer.begin()
                    run.each(number, writer.apply)
                    writer.end()
                writer.finish()
                return Report(run.entries, run.uncompressed(), tuple(writer.replaced), tuple(sorted(run.dropped)))


def list_image(
    layers: Sequence[Layer],
    wanted: Collection[str] = (),
    *,
    limits: Limits = Limits(),  # noqa: B008
    digests: bool = False,
) -> Listing:
    """Return what the layers hold, verified, without writing anything; `wanted` are paths of files to be read.

    A wanted file that is reached through symlinks of directories takes a second pass. `digests`: hash every file.
    Raises as `unpack` does.
    """
    from appbox.oci.listing import Listing  # noqa: PLC0415 - unpacking does without

    with _in_words(), _SWITCHING.quick():
        listing = Listing(wanted, digests=digests)
        _list(layers, listing, limits)
        if missed := listing.missed():
            listing = Listing(wanted, also=missed, digests=digests)
            _list(layers, listing, limits)
        return listing


def _list(layers: Sequence[Layer], listing: Listing, limits: Limits) -> None:
    with contextlib.closing(_Run(layers, limits, None, _WHOLE)) as run:
        for number in range(len(layers)):
            listing.begin()
            run.each(number, listing.apply)


class _Run:
    """Goes through the layers one by one, the next one already being inflated, and counts what the limits are about.

    `passed` is told how many uncompressed bytes are through.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        limits: Limits,
        progress: Progress | None,
        idmap: IdMap,
        *,
        passed: Callable[[int], object] | None = None,
        share: int = 1,
    ) -> None:
        self._limits = limits
        self._progress = progress
        self._idmap = idmap
        self._passed = passed
        self._totals = Totals(limits)
        self._share = share
        self._streams = [Stream(layer, self._totals, share) for layer in layers]
        self.entries = 0
        self.dropped: set[str] = set()

    def close(self) -> None:
        """End everything that is still under way."""
        for stream in self._streams:
            stream.close()

    def uncompressed(self) -> int:
        """Return the bytes of the layers so far."""
        return self._totals.uncompressed()

    def look_ahead(self) -> Hidden:
        """Read small upper layers into memory, and return what they hide of those below.

        They are inflated once either way, so that knowing it costs next to nothing.
        """
        hidden = Hidden()
        for stream in self._streams[:1]:
            stream.start()  # which is what comes next
        compressed, room = limits.HELD_COMPRESSED, limits.HELD // self._share
        for number, stream in sorted(enumerate(self._streams[1:], 1), key=lambda item: item[1].layer.size):
            compressed -= stream.layer.size
            if compressed < 0:
                break
            with _about(stream.layer):
                stream.start()
                blocks = stream.hold(room)
                if blocks is None:
                    break
                room -= sum(map(len, blocks))
                archive = Archive(blocks, self._limits.size)
                hidden.learn(number, (interpret(member, self._idmap) for member in archive))
        return hidden

    def each(self, number: int, act: Callable[[Entry | Whiteout, Iterator[tuple[bytes, int, int]]], object]) -> None:
        """Call `act` with every change of a layer and its data; return when the layer is verified."""
        stream = self._streams[number]
        for ahead in self._streams[number : number + 2]:
            ahead.start()
        with _about(stream.layer):
            archive = Archive(self._watched(stream), self._limits.size)
            for member in archive:
                self.entries += 1
                if self.entries > self._limits.entries:
                    why = f"more than {self._limits.entries}"
                    raise Refused("the image has more entries than the limit", why=why, hint=limits.RAISE)
                change = interpret(member, self._idmap)
                if isinstance(change, Entry):
                    if change.xattrs.dropped:
                        self.dropped.update(change.xattrs.dropped)
                    if change.sparse is not None:
                        self._totals.leave_out(change.sparse.size - change.size)
                act(change, archive.data())
            stream.verify()
        stream.close()

    def _watched(self, stream: Stream) -> Iterator[bytes]:
        for block in stream:
            if self._progress:
                self._progress(stream.layer, stream.consumed)
            yield block
            if self._passed:
                self._passed(len(block))


@contextlib.contextmanager
def _about(layer: Layer) -> Iterator[None]:
    """Name the layer in what is refused about it."""
    try:
        yield
    except Refused as error:
        if layer.short in error.where:
            raise
        where = ": ".join(part for part in (layer.short, error.where) if part)
        raise Refused(error.what, where=where, why=error.why, hint=error.hint) from error


class _Switching:
    """How quickly threads take turns: for the whole process, and so until the last one that unpacks has done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._usual = 0.0

    @contextlib.contextmanager
    def quick(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                syscalls.keep_freed_memory(_KEPT)
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(_SWITCH)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    sys.setswitchinterval(self._usual)


_SWITCHING: Final = _Switching()


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Put what the kernel says into words."""
    try:
        yield
    except OSError as error:
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        why = error.strerror or str(error)
        if error.errno in _FULL:
            raise AppboxError("no space left for unpacking", where=where, why=why, hint="free some space") from error
        if error.errno in (errno.EPERM, errno.EACCES):
            raise HostLacks("unpacking is not permitted", where=where, why=why, hint="run as root") from error
        if error.errno in _HOSTILE:
            raise Refused("an entry cannot be made inside the root", where=where, why=why) from error
        raise AppboxError("unpacking failed", where=where, why=why) from error
