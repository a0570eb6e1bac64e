"""A layer as it comes in: read, verified, inflated and verified again, each in its own thread.

    open() -> reader (digest, size) -> inflater (ratio) -> consumer, the thread that iterates
                                                     `-> hasher (diff_id)

Hashing, inflating and writing leave Python's lock to the others, so two cores are used without a second process. The
blocks in flight are bounded. Nothing that was yielded is to be trusted before `verify` has returned.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Final

from appbox.errors import Refused, Unavailable
from appbox.oci.digest import Digest
from appbox.oci.inflate import inflate
from appbox.oci.layer import MEDIA_TYPES
from appbox.oci.limits import Limits

_READ: Final = 1 << 18
"""Bytes read at once: an inflated block needs about as many."""
_AHEAD: Final = 12
"""Blocks waiting at each of the three hand-overs; with those in the stages' hands some 30 MB."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to be read: `open` gives its compressed bytes, `size` counts them. Digests as the image states them."""

    digest: str
    diff_id: str
    media_type: str
    size: int
    open: Callable[[], BinaryIO]

    @property
    def short(self) -> str:
        """What messages call it."""
        return f"layer {self.digest[:19]}"


class _Stopped(Exception):
    """The other end of a pipe was closed."""


class _Pipe:
    """A bounded queue of blocks with two ends. The producer holds it in a `with`, which hands its error on."""

    def __init__(self) -> None:
        self._blocks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()
        return True

    def put(self, block: bytes) -> None:
        """Hand a block over; wait while there are too many. Raises `_Stopped` when nobody wants it."""
        with self._changed:
            while len(self._blocks) >= _AHEAD and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise _Stopped
            self._blocks.append(block)
            self._changed.notify_all()

    def stop(self) -> None:
        """Tell the producer that nobody listens any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks; raise the producer's error at their end."""
        while True:
            with self._changed:
                while not (self._blocks or self._ended or self._stopped):
                    self._changed.wait()
                if self._stopped:
                    raise _Stopped
                if not self._blocks:
                    break
                block = self._blocks.popleft()
                self._changed.notify_all()
            yield block
        if self._error is not None:
            raise self._error


class Stream:
    """The uncompressed bytes of a layer. A context manager: leaving it ends its threads and closes the file.

    `before` are the compressed and uncompressed bytes of the layers before this one, for the limits of the image.
    Iterating raises `Refused`, and whatever `layer.open` and its file raise.
    """

    def __init__(self, layer: Layer, limits: Limits, before: tuple[int, int] = (0, 0)) -> None:
        self.layer = layer
        self.consumed = 0
        self.produced = 0
        self._limits = limits
        self._before = before
        self._compression = MEDIA_TYPES.get(layer.media_type)
        if self._compression is None:
            raise Refused("the media type of a layer is not known", where=layer.short, why=layer.media_type[:100])
        self._digest = Digest.parse(layer.digest)
        self._diff_id = Digest.parse(layer.diff_id)
        self._compressed = self._digest.hasher()
        self._uncompressed = self._diff_id.hasher()
        self._raw, self._clear, self._hashed = _Pipe(), _Pipe(), _Pipe()
        self._threads = [
            threading.Thread(target=stage, daemon=True) for stage in (self._read, self._inflate, self._hash)
        ]
        self._hasher = self._threads[-1]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._raw, self._clear, self._hashed):
            pipe.stop()
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._clear)

    def verify(self) -> None:
        """Compare both digests; only to be called after the last block. Raises `Refused`."""
        self._hasher.join()
        for what, hasher, wanted in (
            ("digest", self._compressed, self._digest),
            ("diff_id", self._uncompressed, self._diff_id),
        ):
            if hasher.hexdigest() != wanted.hex:
                raise Refused(
                    f"the {what} of a layer is wrong",
                    where=self.layer.short,
                    why=f"{wanted.algorithm}:{hasher.hexdigest()} instead of {wanted}",
                )

    def _read(self) -> None:
        with self._raw as pipe:
            try:
                self._pump(pipe)
            except OSError as error:
                why = error.strerror or str(error)
                raise Unavailable("a layer cannot be read", where=self.layer.short, why=why) from error

    def _pump(self, pipe: _Pipe) -> None:
        with self.layer.open() as file:
            while block := file.read(_READ):
                self.consumed += len(block)
                if self.consumed > self.layer.size:
                    raise Refused("a layer is longer than its manifest says", where=self.layer.short)
                self._compressed.update(block)
                pipe.put(block)
            if self.consumed != self.layer.size:
                why = f"{self.consumed} of {self.layer.size} bytes"
                raise Refused("a layer is shorter than its manifest says", where=self.layer.short, why=why)

    def _inflate(self) -> None:
        with self._hashed as hashed, self._clear as clear:
            for block in inflate(self._compression or "", self._raw):
                self.produced += len(block)
                self._check()
                hashed.put(block)
                clear.put(block)

    def _check(self) -> None:
        compressed, uncompressed = (self._before[0] + self.consumed, self._before[1] + self.produced)
        if uncompressed > self._limits.size:
            raise Refused("the image is larger than the limit", why=f"more than {self._limits.size} bytes")
        if uncompressed > max(self._limits.ratio_from, self._limits.ratio * compressed):
            raise Refused("the image expands like a bomb", why=f"{uncompressed} bytes from {compressed}")

    def _hash(self) -> None:
        with _Pipe():
            for block in self._hashed:
                self._uncompressed.update(block)
