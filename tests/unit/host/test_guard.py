"""What waits for the death of its process, and does what that cannot do any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from appbox.host import process

DYING = """
import os, signal, sys
from appbox.host import process
with process.guard(["/bin/sh", "-c", "echo went on >" + sys.argv[1]]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_the_program_runs(tmp_path: Path) -> None:
    place = tmp_path / "said"
    done = subprocess.run([sys.executable, "-c", DYING, str(place)], check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while not (place.exists() and place.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert place.read_text() == "went on\n"


def test_after_the_block_it_does_not(tmp_path: Path) -> None:
    place = tmp_path / "said"
    before = len(os.listdir("/proc/self/fd"))
    with process.guard(["/bin/sh", "-c", f"echo no >{place}"]):
        pass
    assert not place.exists()
    assert len(os.listdir("/proc/self/fd")) == before
