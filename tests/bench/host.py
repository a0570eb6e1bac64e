"""What was measured on, in words: figures without it say nothing."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.bench import disk
from tests.bench.peers import Peer
from tests.ground import cache, debian


def describe() -> str:
    """Return the machine, its system and the day."""
    system = debian.os_release().get("PRETTY_NAME", platform.system())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    hardware = f"{os.cpu_count()} × {processor()}, {memory:.0f} GiB"
    files = f"each run on a new {disk.KIND} on a loop device, {file_system()} below it"
    return f"{hardware}; {system}, Linux {platform.release()}; {files}; {today}"


def processor() -> str:
    """Return the model of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return " ".join(value.split())
    return platform.machine()


def file_system() -> str:
    """Return the type of the file system that holds the files of loop devices."""
    words = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(cache.root())]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def versions(peers: Iterable[Peer]) -> Iterator[str]:
    """Yield programs and their versions, each once."""
    yield from dict.fromkeys(version for peer in peers for version in peer.versions())
    yield f"Python {platform.python_version()}"
