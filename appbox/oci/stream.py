"""A layer as it comes in: read, verified, inflated and verified again, in threads of its own.

    open() -> inflater (digest, size, ratio) -> consumer, the thread that iterates
                                            `-> hasher (diff_id)

Hashing, inflating and writing leave Python's lock to the others, so two cores are used without a second process. The
blocks in flight are bounded. Nothing that was yielded is to be trusted before `verify` has returned.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO, Final

from appbox.errors import Refused, Unavailable
from appbox.oci.arrival import Incoming
from appbox.oci.digest import Digest
from appbox.oci.inflate import inflate
from appbox.oci.layer import MEDIA_TYPES
from appbox.oci.limits import RAISE, Limits
from appbox.oci.pipe import Pipe

_READ: Final = 1 << 18
"""Bytes read at once: an inflated block needs about as many."""
_AHEAD: Final = 8
"""Blocks waiting at each of the two hand-overs. Two layers are under way at once, so with those in the stages' hands
some 40 MB in the worst case."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to be read: `open` gives its compressed bytes, `size` counts them. Digests as the image states them.

    `open` may be called again, by a second pass. A read may wait for bytes that are still on their way.
    """

    digest: str
    diff_id: str
    media_type: str
    size: int
    open: Callable[[], BinaryIO]

    @property
    def short(self) -> str:
        """What messages call it."""
        return f"layer {self.digest[:19]}"


class Totals:
    """What all layers of an image have come to so far, held against the limits of the image."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: list[Stream] = []
        self._holes = 0

    def leave_out(self, size: int) -> None:
        """Count the holes of a sparse file: they take no room, but whoever reads the file gets that many bytes."""
        self._holes += size
        self.check()

    def join(self, stream: Stream) -> None:
        """Count a layer."""
        self._streams.append(stream)

    def uncompressed(self) -> int:
        """Return the bytes of all layers so far."""
        return sum(stream.produced for stream in self._streams)

    def check(self) -> None:
        """Raise `Refused` when the image has gone over a limit."""
        limits, uncompressed = self._limits, self.uncompressed()
        if uncompressed + self._holes > limits.size:
            raise Refused("the image is larger than the limit", why=f"more than {limits.size} bytes", hint=RAISE)
        if uncompressed > limits.ratio_from:
            compressed = sum(stream.consumed for stream in self._streams)
            if uncompressed > limits.ratio * compressed:
                why = f"{uncompressed} bytes from {compressed}"
                raise Refused("the image expands like a bomb", why=why, hint=RAISE)


class Stream:
    """The uncompressed bytes of a layer. `start` starts its threads; `close` ends them and closes the file.

    `share` images are unpacked at once, and have to share the memory that one may take.

    Iterating raises `Refused`, and whatever `layer.open` and its file raise.
    """

    def __init__(self, layer: Layer, totals: Totals, share: int = 1) -> None:
        self.layer = layer
        self.consumed = 0
        self.produced = 0
        self._totals = totals
        self._compression = MEDIA_TYPES.get(layer.media_type)
        if self._compression is None:
            raise Refused("the media type of a layer is not known", where=layer.short, why=layer.media_type[:100])
        self._digest = Digest.parse(layer.digest)
        self._diff_id = Digest.parse(layer.diff_id)
        self._compressed = self._digest.hasher()
        self._uncompressed = self._diff_id.hasher()
        self._checked = False
        self._file: BinaryIO | None = None
        self._closing = False
        ahead = max(_AHEAD // share, 2)
        self._clear, self._hashed = Pipe(ahead), Pipe(ahead)
        self._inflater = threading.Thread(target=self._inflate, daemon=True)
        self._hasher = threading.Thread(target=self._hash, daemon=True)
        self._started = False
        self._held: list[bytes] = []
        totals.join(self)

    def start(self) -> None:
        """Begin to read ahead, as far as the blocks in flight are bounded. Nothing happens the second time."""
        if not self._started:
            self._started = True
            self._inflater.start()
            self._hasher.start()

    def close(self) -> None:
        """End the threads, whether the stream was read to its end or not."""
        if not self._started:
            return
        self._closing = True
        if isinstance(self._file, Incoming):
            self._file.cancel()
        for pipe in (self._clear, self._hashed):
            pipe.stop()
        for thread in (self._inflater, self._hasher):
            thread.join()
        self._held = []

    def hold(self, most: int) -> Sequence[bytes] | None:
        """Read all of the layer into memory and return it, or None when it has more than `most` bytes.

        Iterating yields the same blocks either way.
        """
        size = 0
        for block in self._clear:
            self._held.append(block)
            size += len(block)
            if size > most:
                return None
        return self._held

    def __iter__(self) -> Iterator[bytes]:
        return chain(_consumed(self._held), self._clear)

    def verify(self) -> None:
        """Compare both digests; only to be called after the last block. Raises `Refused`."""
        self._hasher.join()
        if not self._checked:
            self._compare("digest", self._compressed.hexdigest(), self._digest)
        self._compare("diff_id", self._uncompressed.hexdigest(), self._diff_id)

    def _compare(self, what: str, found: str, wanted: Digest) -> None:
        if found != wanted.hex:
            why = f"{wanted.algorithm}:{found} instead of {wanted}"
            raise Refused(f"the {what} of a layer is wrong", where=self.layer.short, why=why)

    def _inflate(self) -> None:
        with self._hashed as hashed, self._clear as clear, contextlib.closing(self._read()) as compressed:
            for block in inflate(self._compression or "", compressed):
                self.produced += len(block)
                self._totals.check()
                hashed.put(block)
                clear.put(block)

    def _read(self) -> Generator[bytes]:
        try:
            with contextlib.closing(self._pieces()) as pieces:
                yield from pieces
        except OSError as error:
            why = error.strerror or str(error)
            raise Unavailable("a layer cannot be read", where=self.layer.short, why=why) from error

    def _pieces(self) -> Generator[bytes]:
        with self.layer.open() as file:
            self._file = file
            while not self._closing and (block := file.read(_READ)):
                self._checked = getattr(file, "checked", False)
                self.consumed += len(block)
                if self.consumed > self.layer.size:
                    raise Refused("a layer is longer than its manifest says", where=self.layer.short)
                if not self._checked:
                    self._compressed.update(block)
                yield block
            if self.consumed != self.layer.size:
                why = f"{self.consumed} of {self.layer.size} bytes"
                raise Refused("a layer is shorter than its manifest says", where=self.layer.short, why=why)

    def _hash(self) -> None:
        with Pipe(0):
            for block in self._hashed:
                self._uncompressed.update(block)


def _consumed(held: list[bytes]) -> Iterable[bytes]:
    """Yield the blocks, and let go of each."""
    held.reverse()
    while held:
        yield held.pop()
