"""Sizes, times, ports, signals and ranges: parsing, printing and bounds."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import quantities
from appbox.fields import BadValueError
from appbox.quantities import IdRange, Port, RestartLimit, Signal

# Python refuses to print it.
HUGE = 10**5000
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.from_regex(r"[0-9:/.\[\]A-Za-z]+"), st.dates()
)


@pytest.mark.parametrize(
    ("size", "amount"),
    [(1, 1), ("1", 1), ("64M", 64 << 20), ("1K", 1024), ("2G", 2 << 30), ("3T", 3 << 40), (4096, 4096)],
)
def test_sizes(size: object, amount: int) -> None:
    assert quantities.size(size) == amount


@pytest.mark.parametrize(
    ("size", "hint"),
    [("64MB", 'write "64M"'), ("64m", 'write "64M"'), ("64 MiB", 'write "64M"'), ("1.5G", "")],
)
def test_sizes_of_others(size: str, hint: str) -> None:
    with pytest.raises(BadValueError) as refused:
        quantities.size(size)
    assert refused.value.hint == hint


@pytest.mark.parametrize("size", ["-1", "", "9" * 30, "0", True, 0, -1, 2**63, 1.0, None, HUGE], ids=range(11))
def test_no_sizes(size: object) -> None:
    with pytest.raises(BadValueError):
        quantities.size(size)


def test_zero_is_a_size_where_it_means_something() -> None:
    assert quantities.size("0", low=0) == 0


@pytest.mark.parametrize("seconds", [0, 1, 86400])
def test_seconds(seconds: int) -> None:
    assert quantities.seconds(seconds) == seconds


@pytest.mark.parametrize("seconds", [-1, 86401, True, 1.0, "1", "10s", None, HUGE], ids=range(8))
def test_no_seconds(seconds: object) -> None:
    with pytest.raises(BadValueError, match=r"seconds|out of range"):
        quantities.seconds(seconds)


@pytest.mark.parametrize(
    ("text", "limit"), [("5/60s", RestartLimit(5, 60)), ("5/60", RestartLimit(5, 60)), ("3/2m", RestartLimit(3, 120))]
)
def test_restart_limits(text: str, limit: RestartLimit) -> None:
    assert quantities.restart_limit(text) == limit
    assert quantities.restart_limit(str(limit)) == limit


@pytest.mark.parametrize("text", ["", "5", "5/", "/60s", "0/60s", "5/0s", "5/25h", "5/60d", "-5/60s", "5/60s\n", 5])
def test_no_restart_limits(text: object) -> None:
    with pytest.raises(BadValueError):
        quantities.restart_limit(text)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("127.0.0.1:6379:6379/tcp", Port("127.0.0.1", 6379, 6379, "tcp")),
        ("80:8080", Port("", 80, 8080, "tcp")),
        ("53:53/udp", Port("", 53, 53, "udp")),
        ("[::1]:80:81", Port("::1", 80, 81, "tcp")),
        ("[0:0::1]:80:81", Port("::1", 80, 81, "tcp")),
    ],
)
def test_ports(text: str, port: Port) -> None:
    assert quantities.port(text) == port
    assert quantities.port(str(port)) == port


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "80:",
        ":80",
        "0:80",
        "80:65536",
        "a:80:80",
        "::1:80:80",
        "80:80/sctp",
        "[::1]:80",
        "8:8:8:8",
        "80:80\n",
        80,
    ],
)
def test_no_ports(text: object) -> None:
    with pytest.raises(BadValueError):
        quantities.port(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SIGTERM", Signal("SIGTERM", 15)),
        ("term", Signal("SIGTERM", 15)),
        (15, Signal("SIGTERM", 15)),
        ("15", Signal("SIGTERM", 15)),
        ("SIGPOLL", Signal("SIGIO", 29)),
        ("RTMIN", Signal("SIGRTMIN", 34)),
        ("SIGRTMIN+3", Signal("SIGRTMIN+3", 37)),
        ("SIGRTMAX-1", Signal("SIGRTMIN+29", 63)),
        (64, Signal("SIGRTMIN+30", 64)),
    ],
)
def test_signals(text: object, found: Signal) -> None:
    assert quantities.signal(text) == found
    assert quantities.signal(str(found)) == found


@pytest.mark.parametrize("text", ["", "FOO", "SIG", "SIGSIGTERM", 0, 32, 65, -15, "STOP", "CHLD", "URG", 19, "RTMIN-1"])
def test_no_signals(text: object) -> None:
    with pytest.raises(BadValueError):
        quantities.signal(text)


def test_the_numbers_are_those_of_this_machine() -> None:
    for known in signal.Signals:
        if known.value < 32 and known.name not in ("SIGSTOP", "SIGCHLD", "SIGCLD", "SIGURG"):
            assert quantities.signal(known.name).number == known.value


def test_id_ranges() -> None:
    assert quantities.id_range({"base": 200000, "size": 65536}) == IdRange(200000, 65536)
    wrongs: list[object] = [{}, [], {"base": 1}, {"base": 0, "size": 1}, {"base": 2**32 - 2, "size": 2}]
    for wrong in [*wrongs, {"base": "1", "size": 1}]:
        with pytest.raises(BadValueError):
            quantities.id_range(wrong)


PARSERS: list[Callable[[object], object]] = [
    quantities.size,
    quantities.seconds,
    quantities.restart_limit,
    quantities.port,
    quantities.port_number,
    quantities.signal,
    quantities.id_range,
    lambda value: quantities.number(value, 0, 10, "a number"),
]


@pytest.mark.parametrize("parse", PARSERS)
@given(value=ANYTHING)
def test_whatever_is_given_is_taken_or_refused_in_words(parse: Callable[[object], object], value: object) -> None:
    with contextlib.suppress(BadValueError):
        parse(value)
