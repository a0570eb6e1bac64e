"""Where inputs to begin with, and those that once crashed, are kept: `corpus/TARGET/NAME`, gzipped where NAME says so.

A crash that was found goes in there as `crash-…`: from then on every run of the tests tries it.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from tests.fuzz.mutation import Crash

CORPUS = Path(__file__).parent / "corpus"


def seeds(target: str, folder: Path = CORPUS) -> dict[str, bytes]:
    """Return the inputs of a target by their names."""
    files = sorted(path for path in (folder / target).glob("*") if path.is_file())
    return {path.name.removesuffix(".gz"): read(path) for path in files}


def read(path: Path) -> bytes:
    """Return an input as it is meant."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def keep(target: str, crash: Crash, folder: Path = CORPUS) -> Path:
    """Write a crash to the corpus in `folder` and return its path."""
    path = folder / target / f"crash-{hashlib.sha256(crash.data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(crash.data)
    return path
