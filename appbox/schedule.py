"""Calendar expressions: when a timed job runs. Text in, a `Calendar` out; nothing here knows an init system's files.

The language is the part of systemd.time(7), CALENDAR EVENTS, that people write: `[WEEKDAYS] [DATE] [TIME] [UTC]`, or
one of the words of `_WORDS`. WEEKDAYS are names, ranges with `..` and lists with `,`; DATE is `[YEAR-]MONTH-DAY`, with
`~` in place of the last dash counting days from the end of the month; TIME is `HOUR:MINUTE[:SECOND]`, midnight when it
is left out. A field is `*`, a number, a range `1..5`, a step `0/15` or `1..20/5`, or a list of these. A `*` with a step
is no field there either. What systemd reads besides (fractions of a second, other time zones, two-digit years) is
refused.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from appbox.fields import BadValueError, quoted, text

WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_WORDS: Final = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}

_EXPECTED: Final = "a calendar expression"
_EXAMPLES: Final = 'as in "daily", "03:30", "Mon..Fri 12:00" or "*-*-01 00/6:00"'
_LONGEST: Final = 200
"""Characters of an expression: a line of a crontab holds a thousand, and lists grow when they are written out."""

_FOUR_CENTURIES: Final = 400 * 366
"""Days after which the calendar begins anew."""


class Part(NamedTuple):
    """`start`, or every `step`th number from it to `stop` (None: to the end of what the field can be)."""

    start: int
    stop: int | None
    step: int

    def __str__(self) -> str:
        width = 4 if self.start > 999 else 2
        until = "" if self.stop is None else f"..{self.stop:0{width}d}"
        return f"{self.start:0{width}d}{until}{f'/{self.step}' if self.step else ''}"

    def numbers(self, high: int) -> range:
        """Return what the part stands for in a field that goes up to `high`."""
        if self.stop is None and not self.step:
            return range(self.start, self.start + 1)
        return range(self.start, (high if self.stop is None else self.stop) + 1, self.step or 1)


Field = tuple[Part, ...]
"""A list of parts; empty for `*`."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """When a job runs. An empty field is `*`; `weekdays` counts from Monday, 0, and is empty for all of them.

    `from_end`: days count from the last one of the month. `utc`: times are UTC's, not the host's.
    Prints as systemd's normalised form, but for numbers that it would join to ranges.
    """

    weekdays: tuple[int, ...] = ()
    years: Field = ()
    months: Field = ()
    days: Field = ()
    hours: Field = ()
    minutes: Field = ()
    seconds: Field = ()
    from_end: bool = False
    utc: bool = False

    def __str__(self) -> str:
        named = ",".join(WEEKDAYS[day] for day in self.weekdays)
        dates = f"{_text(self.years)}-{_text(self.months)}{'~' if self.from_end else '-'}{_text(self.days)}"
        times = ":".join(map(_text, (self.hours, self.minutes, self.seconds)))
        return " ".join(filter(None, (named, dates, times, "UTC" if self.utc else "")))


def _text(field: Field) -> str:
    return ",".join(map(str, field)) or "*"


class CronError(ValueError):
    """A crontab cannot say this; the message says what of it."""


def parse(value: object) -> Calendar:
    """Return the calendar that an expression means. Raises BadValueError, as the functions of `fields` do."""
    found = text(value, _EXPECTED, "")
    if len(found) > _LONGEST:
        raise BadValueError(f"a calendar expression of more than {_LONGEST} characters", _EXAMPLES)
    try:
        return _parsed(found)
    except _Misfit as misfit:
        message = f"{quoted(found)} is not a calendar expression" + (f": {misfit}" if str(misfit) else "")
        raise BadValueError(message, f"write it {_EXAMPLES}") from None


def expression(value: object) -> str:
    """Return a calendar expression of a manifest as it was written, "" for none; BadValueError if it is not one."""
    found = text(value, _EXPECTED, "")
    if found and _is_never(parse(found)):
        raise BadValueError(f"{quoted(found)} never comes: there is no such day", "name one that there is")
    return found


def _is_never(calendar: Calendar) -> bool:
    """Return whether none of its months ever has one of its days. Days beside weekdays and years are not looked at."""
    if not calendar.days or not calendar.months:
        return False
    longest = max(monthrange(2000, month)[1] for month in _numbers(calendar.months, 1, 12))
    return not _days_of(calendar.days, from_end=calendar.from_end, last=longest) & set(range(1, longest + 1))


class _Misfit(Exception):
    """What is wrong with a part of an expression."""


def _parsed(found: str) -> Calendar:
    words = found.split(" ")
    utc = len(words) > 1 and words[-1].upper() == "UTC"
    words = words[:-1] if utc else words
    if len(words) == 1 and (known := _WORDS.get(words[0].lower())):
        words = known.split(" ")
    weekdays: tuple[int, ...] = ()
    dates, times = "*-*-*", "00:00:00"
    if words and words[0][:1].isalpha():
        weekdays = _weekdays(words.pop(0))
    elif not words:
        raise _Misfit
    if words and ":" not in words[0]:
        dates = words.pop(0)
    if words:
        times = words.pop(0)
    if words:
        raise _Misfit(f"{quoted(words[0])} is too much" if words[0] else "a space is too much")
    years, months, days, from_end = _date(dates)
    hours, minutes, seconds = _time(times)
    return Calendar(weekdays, years, months, days, hours, minutes, seconds, from_end, utc)


def _weekdays(words: str) -> tuple[int, ...]:
    found: set[int] = set()
    for word in words.split(","):
        first, separator, last = word.partition("..")
        low = _weekday(first)
        high = _weekday(last) if separator else low
        if high < low:
            raise _Misfit(f"{quoted(word)} goes backwards; a week begins on Monday")
        found |= set(range(low, high + 1))
    return () if len(found) == len(WEEKDAYS) else tuple(sorted(found))


def _weekday(word: str) -> int:
    lower = word.lower()
    for number, (short, long) in enumerate(zip(WEEKDAYS, _LONG_WEEKDAYS, strict=True)):
        if lower in {short.lower(), long}:
            return number
    raise _Misfit(f"{quoted(word)} is no day of the week")


def _date(word: str) -> tuple[Field, Field, Field, bool]:
    from_end = "~" in word
    parts = word.replace("~", "-").split("-")
    if len(parts) not in {2, 3} or (from_end and "-" in word.partition("~")[2]):
        raise _Misfit(f"{quoted(word)} is no date")
    years = _field(parts[0], "year", 1970, 2199) if len(parts) > 2 else ()
    # Days from the end are those that every month has.
    days = _field(parts[-1], "day", 1, 28 if from_end else 31)
    if from_end and any(part.stop is not None for part in days):
        raise _Misfit("days from the end of the month are numbers, not ranges")
    return years, _field(parts[-2], "month", 1, 12), days, from_end and bool(days)


def _time(word: str) -> tuple[Field, Field, Field]:
    parts = word.split(":")
    if len(parts) not in {2, 3}:
        raise _Misfit(f"{quoted(word)} is no time")
    hours, minutes = _field(parts[0], "hour", 0, 23), _field(parts[1], "minute", 0, 59)
    return hours, minutes, _field(parts[2] if len(parts) > 2 else "0", "second", 0, 59)


def _field(word: str, what: str, low: int, high: int) -> Field:
    return () if word == "*" else tuple(_part(one, what, low, high) for one in word.split(","))


def _part(word: str, what: str, low: int, high: int) -> Part:
    found = re.fullmatch(r"([0-9]{1,4})(?:\.\.([0-9]{1,4}))?(?:/([0-9]{1,4}))?", word, re.ASCII)
    if not found:
        hint = f"; write {low if low < 2 else 2000}{word[1:]}" if re.fullmatch(r"\*/[0-9]+", word) else ""
        raise _Misfit(f"{quoted(word)} is no {what}{hint}")
    start, stop, step = int(found[1]), int(found[2]) if found[2] else None, int(found[3] or 0)
    for number in (start, stop):
        if number is not None and not low <= number <= high:
            raise _Misfit(f"a {what} goes from {low} to {high}")
    if stop is not None and stop < start:
        raise _Misfit(f"{quoted(word)} goes backwards")
    if found[3] and (not step or start + step > high):
        raise _Misfit(f"{quoted(word)} never steps")
    return Part(start, stop, step)


def _numbers(field: Field, low: int, high: int) -> list[int]:
    return sorted({n for part in field for n in part.numbers(high)}) if field else list(range(low, high + 1))


def after(calendar: Calendar, moment: datetime) -> datetime | None:
    """Return the first time of `calendar` after an aware `moment`, in the host's time zone; None when none comes."""
    zone = UTC if calendar.utc else None
    here = moment.astimezone(zone)
    hours, minutes, seconds = _clock(calendar)
    for day in _days(calendar, here.date()):
        for hour in hours:
            for minute in minutes if day > here.date() or hour >= here.hour else ():
                for second in seconds:
                    naive = datetime(day.year, day.month, day.day, hour, minute, second)  # noqa: DTZ001
                    found = naive.replace(tzinfo=UTC) if calendar.utc else naive.astimezone()
                    if found > moment:
                        return found.astimezone()
    return None


def _clock(calendar: Calendar) -> tuple[list[int], list[int], list[int]]:
    return (
        _numbers(calendar.hours, 0, 23),
        _numbers(calendar.minutes, 0, 59),
        _numbers(calendar.seconds, 0, 59),
    )


def _days(calendar: Calendar, first: date) -> Iterator[date]:
    """Yield the days of a calendar from `first` on."""
    years, months = _numbers(calendar.years, 1970, 2199), set(_numbers(calendar.months, 1, 12))
    for offset in range(_FOUR_CENTURIES):
        day = first + timedelta(days=offset)
        if day.year > years[-1]:
            return
        if calendar.weekdays and day.weekday() not in calendar.weekdays:
            continue
        known = bisect_right(years, day.year)
        if known and years[known - 1] == day.year and day.month in months and day.day in _month(calendar, day):
            yield day


def _month(calendar: Calendar, day: date) -> set[int]:
    return _days_of(calendar.days, calendar.from_end, monthrange(day.year, day.month)[1])


@lru_cache(maxsize=64)
def _days_of(days: Field, from_end: bool, last: int) -> set[int]:
    """Return which days of a month with `last` days are meant."""
    if not from_end:
        return set(_numbers(days, 1, 31))
    turned = tuple(Part(last + 1 - part.start, None, part.step) for part in days)
    return set(_numbers(turned, 1, last))


def cron(calendar: Calendar) -> str:
    """Return minute, hour, day, month and weekday as a crontab has them (crontab(5)); CronError if it cannot say it."""
    if [*_numbers(calendar.seconds, 0, 59)] != [0]:
        raise CronError("cron knows no seconds")
    if calendar.years:
        raise CronError("cron knows no years")
    if calendar.from_end:
        raise CronError("cron knows no days from the end of a month")
    if calendar.utc:
        raise CronError("cron runs by the time of the host")
    if calendar.weekdays and calendar.days:
        raise CronError("cron takes a weekday and a day of the month for either of them, not for both")
    fields = (
        _cron_field(_numbers(calendar.minutes, 0, 59), 60),
        _cron_field(_numbers(calendar.hours, 0, 23), 24),
        _cron_field(_numbers(calendar.days, 1, 31), 31),
        _cron_field(_numbers(calendar.months, 1, 12), 12),
        # Sunday is 0, and the days are written in that order.
        _cron_field(sorted((day + 1) % 7 for day in calendar.weekdays or range(7)), 7),
    )
    return " ".join(fields)


def _cron_field(numbers: list[int], all_of_them: int) -> str:
    """Return numbers as a list with ranges: `*` when they are all that there are."""
    if len(numbers) == all_of_them:
        return "*"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
