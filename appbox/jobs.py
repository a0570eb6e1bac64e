"""Timed jobs: what became of their last run, and what their operators should know. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from appbox import schedule
from appbox.host.facts import Facts
from appbox.manifest import Manifest

RFC3339 = "%Y-%m-%dT%H:%M:%SZ"
LIMIT = 4096
"""Bytes of the record of a run that are read."""


@dataclass(frozen=True, slots=True)
class Result:
    """How the last run of a job went: times of UTC as RFC 3339 has them, seconds, and its exit status or a signal."""

    started: str
    ended: str
    seconds: float
    status: str


def result(record: bytes) -> Result | None:
    """Return what the run script wrote of a job, three words: when it ended, hundredths of a second, status.

    None for anything else.
    """
    words = record.decode("ascii", "replace").split()
    if len(words) != 3 or not (words[0].isdecimal() and words[1].isdecimal() and len(words[0]) < 12):
        return None
    ended, seconds = int(words[0]), int(words[1]) / 100
    started = max(0.0, ended - seconds)
    return Result(_time(started), _time(ended), seconds, words[2][:20])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(RFC3339)


def next_time(expression: str, now: datetime) -> str:
    """Return when a job runs next, as RFC 3339 has times of UTC; "" for never, or for what is no expression."""
    try:
        found = schedule.after(schedule.parse(expression), now)
    except ValueError:
        return ""
    return found.astimezone(UTC).strftime(RFC3339) if found else ""


def notes(manifest: Manifest, facts: Facts) -> Iterator[str]:
    """Yield what works otherwise under this init system than under another."""
    service = manifest.service
    if facts.init == "systemd" and "log" in service.model_fields_set:
        yield "service.log has no effect under systemd: its journal keeps the logs, as journald.conf(5) bounds them"
    if service.schedule and facts.init == "openrc":
        yield "cron starts it: a time at which the host is off is not made up for"
    if service.schedule and facts.init == "none":
        yield "without an init system nothing starts it at its times"
