"""When to try again and how long to wait. Pure: the clock and the dice are handed in."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from appbox.oci.settings import Timing

# 408 429 5xx that pass by themselves, and what proxies and CDNs say for "later" (as go-containerregistry does).
RETRY_STATUSES = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 522})


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, section 10.2.3); None when it says nothing."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):  # also years and zones beyond all bounds
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def delay(attempt: int, wished: float | None, timing: Timing, dice: float) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 0).

    A server's wish is obeyed up to `longest_delay`; without one the wait doubles each time. `dice`, from 0 to 1,
    spreads the waits of many clients that failed together: up to half as much again.
    """
    pause = timing.first_delay * 2**attempt if wished is None else wished
    return min(pause * (1 + dice / 2), timing.longest_delay)
