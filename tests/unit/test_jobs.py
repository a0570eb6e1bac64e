"""The record of a job's last run, and what its operator is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from appbox import jobs, manifest
from appbox.host.facts import EXAMPLE
from appbox.jobs import Result


def test_a_record_says_when_and_how() -> None:
    found = jobs.result(b"1767225600 1250 7\n")
    assert found == Result("2025-12-31T23:59:47Z", "2026-01-01T00:00:00Z", 12.5, "7")
    assert jobs.result(b"5 1 KILL\n") == Result("1970-01-01T00:00:04Z", "1970-01-01T00:00:05Z", 0.01, "KILL")


@pytest.mark.parametrize("record", [b"", b"1 2", b"a b c", b"-1 2 0", b"1 2 3 4", b"\xff" * 20, b"999999999999999 1 0"])
def test_anything_else_is_no_record(record: bytes) -> None:
    assert jobs.result(record) is None


def test_the_next_time_is_utc() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert jobs.next_time("*-*-* 13:00 UTC", now) == "2026-01-01T13:00:00Z"
    assert jobs.next_time("2020-01-01", now) == ""
    assert jobs.next_time("nonsense", now) == ""


@pytest.mark.parametrize(
    ("init", "said"), [("systemd", "its journal"), ("openrc", "not made up for"), ("none", "nothing starts it")]
)
def test_each_init_has_its_note(init: str, said: str) -> None:
    text = 'name = "j"\nimage = "docker.io/x/y"\nversion = "1"\n[service]\nschedule = "daily"\nlog = { keep = 2 }\n'
    parsed = manifest.parse_bytes(text.encode(), file="j.toml")
    notes = [*jobs.notes(parsed, replace(EXAMPLE, init=init))]  # type: ignore[arg-type]
    assert len(notes) == 1
    assert said in notes[0]
