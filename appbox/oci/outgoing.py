"""A blob on its way out: read from any place as often as it is sent, and verified. Not here: HTTP.

Memory holds one block of it. What a stream gives is hashed the first time that it goes by; of a second time, after a
cut, the registry's own check is the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Self

from appbox.errors import AppboxError, Refused
from appbox.oci.model import Descriptor

_BLOCK: Final = 1 << 20  # bytes read, hashed and sent at a time


class Outgoing:
    """The bytes of one blob, read from any place again and again, and hashed the first time that they go by."""

    def __init__(
        self,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        report: Callable[[int], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.descriptor, self.report = descriptor, report
        self._source, self._stopped = source, stopped
        self._stream: BinaryIO | None = None
        self._at = self._hashed = 0
        self._hash = descriptor.digest.hasher()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end`; raise `Refused` instead of the last ones of a wrong blob."""
        size = self.descriptor.size
        self._seek(start)
        while self._at < end:
            data = self._next(end - self._at)
            if self._at == size and (self._hash.hexdigest() != self.descriptor.digest.hex or self._more()):
                raise self._wrong("what was read does not have its size and digest")
            yield data
            self.report(self._at)

    def verify(self) -> None:
        """Raise `Refused` unless the blob is what its descriptor says, as far as it was not read yet."""
        for _ in self.read(self._hashed, self.descriptor.size):
            pass
        if self.descriptor.size == 0 and (self._hash.hexdigest() != self.descriptor.digest.hex or self._more()):
            raise self._wrong("what was read does not have its size and digest")

    def _next(self, most: int) -> bytes:
        if self._stopped():
            raise AppboxError("cancelled", where=str(self.descriptor.digest))
        assert self._stream is not None  # noqa: S101  (`_seek` has opened it)
        data = self._stream.read(min(most, _BLOCK))
        if not data:
            raise self._wrong(f"there are only {self._at} of {self.descriptor.size} bytes")
        new = self._at + len(data) - self._hashed
        if new > 0:
            self._hash.update(data[-new:])
            self._hashed += new
        self._at += len(data)
        return data

    def _seek(self, start: int) -> None:
        """Go to `start`; everything before it is read if the hash has not seen it yet."""
        if self._stream is None or start < self._at:
            if self._stream is not None:
                self._stream.close()
            self._stream, self._at = self._source(), 0
        if self._at < min(start, self._hashed) and self._stream.seekable():
            self._at = self._stream.seek(min(start, self._hashed))
        while self._at < start:
            self._next(start - self._at)

    def _more(self) -> bool:
        return self._stream is not None and bool(self._stream.read(1))

    def _wrong(self, why: str) -> Refused:
        return Refused("the blob is not what its descriptor says", where=str(self.descriptor.digest), why=why)


class Part:
    """A part of a blob as the body of a request that may be sent twice."""

    def __init__(self, blob: Outgoing, start: int, end: int) -> None:
        self._blob, self._start, self._end = blob, start, end

    def __iter__(self) -> Iterator[bytes]:
        """Begin again."""
        return self._blob.read(self._start, self._end)
