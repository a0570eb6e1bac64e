"""Programs whose output is handed on as it comes."""

from __future__ import annotations

import time

import pytest

from appbox.errors import AppboxError, HostLacks
from appbox.host import process


def follow(script: str, timeout: float = 20) -> tuple[int, bytes]:
    found: list[bytes] = []
    return process.follow(["/bin/sh", "-c", script], found.append, timeout=timeout), b"".join(found)


def test_both_outputs_come_together_and_the_code_is_its_own() -> None:
    assert follow("echo one; echo two >&2; exit 7") == (7, b"one\ntwo\n")
    assert follow("kill -9 $$") == (-9, b"")


def test_what_it_leaves_behind_is_not_waited_for() -> None:
    began = time.monotonic()
    assert follow("sleep 3 & echo done") == (0, b"done\n")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("script", ["sleep 30", "exec >&- 2>&-; sleep 30", "sleep 30 & wait"])
def test_one_that_takes_too_long_is_stopped(script: str) -> None:
    began = time.monotonic()
    with pytest.raises(AppboxError, match=r"longer than 0\.3 s"):
        follow(script, 0.3)
    assert time.monotonic() - began < 5


def test_what_is_no_program_is_an_error() -> None:
    with pytest.raises(HostLacks):
        process.follow(["/nonexistent/program"], lambda _: None, timeout=1)
