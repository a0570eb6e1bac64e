"""Calendar expressions: what is read, what is refused, when they come, and what a crontab makes of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from appbox.fields import BadValueError
from appbox.schedule import CronError, after, cron, expression, parse


# What systemd-analyze calendar 252 prints as the normalised form.
@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("daily", "*-*-* 00:00:00"),
        ("weekly", "Mon *-*-* 00:00:00"),
        ("quarterly", "*-01,04,07,10-01 00:00:00"),
        ("Daily UTC", "*-*-* 00:00:00 UTC"),
        ("03:30", "*-*-* 03:30:00"),
        ("*:0/5", "*-*-* *:00/5:00"),
        ("Mon,Wed..Fri *-*-* 10:00", "Mon,Wed,Thu,Fri *-*-* 10:00:00"),
        ("monday,Tue", "Mon,Tue *-*-* 00:00:00"),
        ("*-*-01..07/2 1:2:3", "*-*-01..07/2 01:02:03"),
        ("*-02~03", "*-02~03 00:00:00"),
        ("01-01", "*-01-01 00:00:00"),
        ("2026-01-01", "2026-01-01 00:00:00"),
        ("*-*-* *:*:0/20", "*-*-* *:*:00/20"),
    ],
)
def test_expressions_are_read_as_systemd_reads_them(text: str, normal: str) -> None:
    assert str(parse(text)) == normal
    assert str(parse(normal)) == normal


@pytest.mark.parametrize(
    "text",
    [
        " daily", "daily ", "10", "*", "*:*/5", "*-*-*/2", "24:00", "Fri..Mon", "5..1:00", "*-*-0", "*-13-1", "26-1-1",
        "3000-1-1", "10:00:00.5", "10:00 Europe/Berlin", "Mon, 10:00", "*-*-1/40", "00:00/99", "*:*:0/0", "1-2-3-4",
        "@0", "never", "daily\n", "daily\0", "$(id)", "%H", "٣:٠٠", "*-*~1..3", "*-*~29", "1:2:3:4", "UTC", "a" * 300,
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(BadValueError):
        parse(text)


def test_no_expression_is_no_job() -> None:
    assert expression("") == ""
    assert expression("daily") == "daily"
    with pytest.raises(BadValueError, match="whole number"):
        expression(5)


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("*-*-* 04:00 UTC", "2024-02-28T04:00:00"),
        ("*-02-29 UTC", "2024-02-29T00:00:00"),
        ("*-02~01 12:00 UTC", "2024-02-29T12:00:00"),
        ("Mon UTC", "2024-03-04T00:00:00"),
        ("Mon *-02-29 UTC", "2044-02-29T00:00:00"),
        ("*:*:0/20 UTC", "2024-02-28T03:59:40"),
        ("2024-02-28 03:59:21 UTC", "2024-02-28T03:59:21"),
    ],
)
def test_the_next_time_comes_after_now(text: str, then: str) -> None:
    now = datetime(2024, 2, 28, 3, 59, 20, tzinfo=UTC)
    assert after(parse(text), now) == datetime.fromisoformat(then).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["2020-01-01 UTC", "*-02-30", "1999-*-*"])
def test_some_times_never_come(text: str) -> None:
    assert after(parse(text), datetime(2024, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize("text", ["*-02-30", "*-04,06-31 03:30", "Mon 2028-2-30..31"])
def test_a_manifest_s_time_has_to_come_some_year(text: str) -> None:
    with pytest.raises(BadValueError, match="never comes"):
        expression(text)
    assert expression(text.replace("30", "28").replace("31", "29"))


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("minutely", "* * * * *"),
        ("daily", "0 0 * * *"),
        ("weekly", "0 0 * * 1"),
        ("Sat,Sun 04:05", "5 4 * * 0,6"),
        ("*:0/15", "0,15,30,45 * * * *"),
        ("*-01,07-1..3 8..18/2:30", "30 8,10,12,14,16,18 1-3 1,7 *"),
        ("Mon..Sun 1:00", "0 1 * * *"),
    ],
)
def test_a_crontab_has_the_same_times(text: str, fields: str) -> None:
    assert cron(parse(text)) == fields


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("*:*:30", "seconds"),
        ("*:*:*", "seconds"),
        ("2026-01-01", "years"),
        ("*-*~1", "end of a month"),
        ("daily UTC", "time of the host"),
        ("Mon *-*-1..7", "weekday and a day"),
    ],
)
def test_what_a_crontab_cannot_say_is_named(text: str, why: str) -> None:
    with pytest.raises(CronError, match=why):
        cron(parse(text))
