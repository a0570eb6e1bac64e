"""What people are told of an image."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from appbox.describing import _health, age

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("created", "words"),
    [
        ("2026-03-01T11:59:30Z", " (just now)"),
        ("2026-03-01T11:58:00Z", " (2 minutes ago)"),
        ("2026-03-01T10:59:00+00:00", " (1 hour ago)"),
        ("2026-02-27T11:00:00.123456789Z", " (2 days ago)"),
        ("2025-12-01T00:00:00Z", " (3 months ago)"),
        ("2024-01-01T00:00:00Z", " (2 years ago)"),
        ("1970-01-01T00:00:00Z", ""),
        ("0001-01-01T00:00:00Z", ""),
        ("2027-01-01T00:00:00Z", ""),
        ("2026-01-01T00:00:00", ""),
        ("yesterday", ""),
        ("", ""),
    ],
)
def test_age(created: str, words: str) -> None:
    assert age(created, NOW) == words


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (
            {"Test": ["CMD-SHELL", "ping"], "Interval": 30_000_000_000, "Timeout": 500_000_000, "Retries": 3},
            "CMD-SHELL ping, every 30 s, timeout 0.5 s, 3 retries",
        ),
        ({"Test": ["NONE"]}, "NONE"),
        ({"Test": 5, "Interval": "x", "Retries": None}, ""),
        ({"Test": [1, None], "Interval": -1}, "1 None"),
    ],
)
def test_health_checks_of_any_shape(check: dict[str, object], words: str) -> None:
    assert _health(check) == words
