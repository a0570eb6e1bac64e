"""An empty directory to unpack into, which notices whatever happens beside it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import Refused
from appbox.oci import unpack
from appbox.oci.unpack import IdMap, Layer, Limits

IDENTITY = IdMap(0, 65536)


class Root:
    """An empty directory beside things that must not change."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "root"
        self.path.mkdir()
        (place / "secret").write_text("outside")
        (place / "outside").mkdir()
        (place / "outside/file").write_text("outside")
        self.fd = os.open(self.path, os.O_RDONLY)

    def unpack(self, *layers: Layer, idmap: IdMap = IDENTITY, limits: Limits | None = None) -> unpack.Report:
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        before = snapshot(self.place, self.path)
        try:
            return unpack.unpack(layers, self.fd, idmap, limits=limits or Limits(), durable=False)
        finally:
            assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (descriptors, threads)
            assert snapshot(self.place, self.path) == before

    def refuse(self, words: str, *layers: Layer) -> None:
        with pytest.raises(Refused, match=words):
            self.unpack(*layers)

    def names(self) -> list[str]:
        found = [Path(top, name) for top, below, files in os.walk(self.path) for name in below + files]
        return sorted(str(path.relative_to(self.path)) for path in found)

    def empty(self) -> None:
        """Remove everything, for another try."""
        for name in os.listdir(self.path):
            unpack.remove_tree(self.fd, name)

    def close(self) -> None:
        os.close(self.fd)

    def stat(self, name: str) -> os.stat_result:
        return os.lstat(self.path / name)

    def read(self, name: str) -> str:
        return (self.path / name).read_text()


def snapshot(place: Path, leave_out: Path) -> list[tuple[str, int, int, int, int]]:
    """Return everything about `place` except what is in one directory of it."""
    seen = []
    for top, below, files in os.walk(place):
        below[:] = [name for name in below if Path(top, name) != leave_out]
        for path in [Path(top), *(Path(top, name) for name in files)]:
            status = os.lstat(path)
            if path != place:
                seen.append((str(path), status.st_mode, status.st_uid, status.st_mtime_ns, status.st_size))
    return seen


@contextlib.contextmanager
def mounted(place: Path, kind: str, options: str = "rw", source: Path | str = "none") -> Iterator[None]:
    subprocess.run(["mount", "-t", kind, "-o", options, str(source), str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)
