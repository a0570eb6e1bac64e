"""Tar archives of images, written: the same members always make the same bytes. Not here: layers.

The headers are plain ustar, and GNU's base 256 for a size from 8 GiB on, which every reader of images takes. Owner is
root and time is zero: neither is a part of an image.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_BLOCK: Final = 512


class TarWriter:
    """Writes members to the regular file `fd`, which it does not close."""

    def __init__(self, fd: int, mode: int) -> None:
        self._fd, self._mode, self._at = fd, mode, 0

    def add(self, name: str, data: bytes) -> None:
        """Write a file that is at hand."""
        with self.member(name) as write:
            write(data)

    def directory(self, name: str) -> None:
        """Write a directory."""
        self._header(self._info(name, tarfile.DIRTYPE, 0o755))

    def link(self, name: str, target: str) -> None:
        """Write a symlink."""
        info = self._info(name, tarfile.SYMTYPE, 0o777)
        info.linkname = target
        self._header(info)

    @contextmanager
    def member(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """Yield what takes the bytes of a file; its size need not be known before, as its header is written last."""
        start = self._at
        info = self._info(name, tarfile.REGTYPE, self._mode)
        self._header(info)  # a long name takes more than one block, whatever the size will be
        begin = self._at

        def write(data: bytes) -> None:
            self._write(data)
            info.size = self._at - begin

        yield write
        self._write(bytes(-info.size % _BLOCK))
        end, self._at = self._at, start
        self._header(info)
        self._at = end

    def finish(self) -> None:
        """Write the end: two empty blocks."""
        self._write(bytes(2 * _BLOCK))

    @staticmethod
    def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.mode = kind, mode
        return info

    def _header(self, info: tarfile.TarInfo) -> None:
        self._write(info.tobuf(tarfile.GNU_FORMAT))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, self._at)
            view = view[count:]
            self._at += count
