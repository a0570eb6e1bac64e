"""Moments in the past as people write them for `--since`, as journalctl(1) takes them. Text in, seconds out."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from appbox.errors import UsageError

_UNITS: Final = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN: Final = re.compile(r"-?((?:[0-9]{1,9}\s*(?:sec|min|[smhdw])\s*)+)(?:ago)?", re.ASCII)
_ONE: Final = re.compile(r"([0-9]{1,9})\s*(sec|min|[smhdw])", re.ASCII)
_CLOCK: Final = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?", re.ASCII)


def moment(text: str, now: datetime) -> float:
    """Return which second since 1970 is meant; times without a zone are those of `now`.

    Raises UsageError for what is neither a time nor a span before `now`.
    """
    found = text.strip()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    words = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if found in words:
        return words[found].timestamp()
    try:
        if span := _SPAN.fullmatch(found):
            return now.timestamp() - sum(int(n) * _UNITS[unit] for n, unit in _ONE.findall(span[1]))
        if re.fullmatch(r"@[0-9]{1,11}", found, re.ASCII):
            return float(found[1:])
        when = datetime.fromisoformat(f"{midnight:%Y-%m-%d} {found}" if _CLOCK.fullmatch(found) else found)
        return (when if when.tzinfo else when.replace(tzinfo=now.tzinfo)).timestamp()
    except (ValueError, OverflowError):
        hint = 'write it as in "10m", "1h30m", "today", "14:30" or "2026-01-31T14:30:00Z"'
        raise UsageError(f"{text!r} is no time", where="--since", hint=hint) from None
