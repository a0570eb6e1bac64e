"""Moments for --since."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from appbox.errors import UsageError
from appbox.since import moment

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("now", "2026-03-04T12:30:00"),
        ("today", "2026-03-04T00:00:00"),
        ("yesterday", "2026-03-03T00:00:00"),
        ("10m", "2026-03-04T12:20:00"),
        ("1h30m", "2026-03-04T11:00:00"),
        ("-2d", "2026-03-02T12:30:00"),
        ("10 min ago", "2026-03-04T12:20:00"),
        ("08:15", "2026-03-04T08:15:00"),
        ("2026-03-01", "2026-03-01T00:00:00"),
        ("2026-03-01 01:02:03", "2026-03-01T01:02:03"),
        ("2026-03-01T01:02:03Z", "2026-03-01T01:02:03"),
        ("2026-03-01T01:02:03+01:00", "2026-03-01T00:02:03"),
        ("@1772627400", "2026-03-04T12:30:00"),
    ],
)
def test_moments(text: str, then: str) -> None:
    assert moment(text, NOW) == datetime.fromisoformat(then).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["", "soon", "10", "10x", "25:00", "2026-13-01", "9999-99-99", "@", "1h30"])
def test_what_is_no_time_is_a_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="no time"):
        moment(text, NOW)
