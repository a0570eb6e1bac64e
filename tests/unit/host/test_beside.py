"""Work that a copy of the process does while this one goes on."""

from __future__ import annotations

import os
import signal
import time

import pytest

from appbox.host.beside import beside


def test_what_the_copy_returns_arrives_however_much_it_is() -> None:
    with beside(lambda: {"pid": os.getpid(), "text": "x" * 5_000_000}) as result:
        found = result()
    assert found is not None
    assert found["pid"] != os.getpid()
    assert found["text"] == "x" * 5_000_000


def test_what_the_copy_changes_is_not_changed_here() -> None:
    here: list[int] = []
    with beside(lambda: here.append(1) or here) as result:  # type: ignore[func-returns-value]
        assert result() == [1]
    assert here == []


def test_a_copy_that_fails_says_nothing_and_returns_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise ValueError("of no interest here")

    with beside(fail) as result:
        assert result() is None
    with beside(lambda: os.kill(os.getpid(), signal.SIGKILL)) as killed:
        assert killed() is None
    with beside(lambda: lambda: "no function can be handed over") as handed:
        assert handed() is None
    assert capfd.readouterr() == ("", "")


def test_a_copy_for_which_nobody_waits_ends_with_the_statement() -> None:
    read, write = os.pipe()

    def forever() -> None:
        os.write(write, str(os.getpid()).encode())
        time.sleep(600)

    with beside(forever):
        process = int(os.read(read, 20))
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    os.close(read)
    os.close(write)
