"""The measured values of a manifest: sizes, times, ports, signals, ranges of ids. Nothing here knows a table.

Like `fields`, each function takes what TOML gave and returns a value or raises `BadValueError`. Every value
class prints as the text that is parsed to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from appbox.fields import BadValueError, address, kind, matching, quoted, text

DAY = 86400
SIZE_LIMIT = 2**63 - 1
# awk, which counts a log file's bytes, has floating-point numbers.
LOG_LIMIT = 2**53
SIZE_PATTERN = r"^[0-9]{1,19}[KMGT]?$"
RESTART_LIMIT_PATTERN = r"^[0-9]{1,5}/[0-9]{1,5}(s|m|h)?$"
PORT_PATTERN = r"^((\[[0-9A-Fa-f:.]+\]|[0-9.]+):)?[0-9]{1,5}:[0-9]{1,5}(/(tcp|udp))?$"
SIGNAL_PATTERN = r"^((SIG)?(RTMIN(\+[0-9]{1,2})?|RTMAX(-[0-9]{1,2})?|[A-Z]+[0-9]?)|[0-9]{1,2})$"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS = {"s": 1, "m": 60, "h": 3600}
# signal(7), the numbers that x86, arm, riscv, s390 and power share; the real-time range is the C libraries' (the
# kernel's first two are theirs).
_SIGNAL_NAMES = """
HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU
URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS
"""
_SIGNALS = dict(enumerate(_SIGNAL_NAMES.split(), start=1))
_NUMBERS = {name: number for number, name in _SIGNALS.items()} | {"IOT": 6, "POLL": 29, "CLD": 17}
RTMIN, RTMAX = 34, 64
# The addresses of a published port that mean all of the host's.
ANYWHERE = ("", "0.0.0.0", "::")
# runc run keeps SIGCHLD and SIGURG to itself (signals.go), and SIGSTOP cannot be caught: none of them would arrive.
_NOT_FORWARDED = frozenset({17, 19, 23})


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal by its canonical name, such as SIGTERM or SIGRTMIN+3, and its number on Linux."""

    name: str
    number: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class RestartLimit:
    """At most `count` starts within `seconds`."""

    count: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.count}/{self.seconds}s"


@dataclass(frozen=True, slots=True)
class Port:
    """A published port: `host_port` of the host, on `address` ("" for all), goes to `container_port`."""

    address: str
    host_port: int
    container_port: int
    protocol: str

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.host_port}:{self.container_port}/{self.protocol}".lstrip(":")


@dataclass(frozen=True, slots=True)
class IdRange:
    """The ids of the host that a user namespace maps to: `size` of them from `base` on."""

    base: int
    size: int


def whole(value: object, low: int, high: int, expected: str = "a whole number") -> int:
    """A whole number from `low` to `high`; true, false and decimals are none."""
    if type(value) is not int:
        hint = f"write {value}" if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value) else ""
        raise BadValueError(f"expected {expected}, got {kind(value)}", hint)
    if not low <= value <= high:
        raise BadValueError(f"{shown(value)} is out of range", f"it goes from {low} to {high}")
    return value


def shown(number: int) -> str:
    """Return `number` in digits; Python refuses to print thousands of them, and nobody would read them."""
    return str(number) if abs(number) < 10**20 else "this number"


def seconds(value: object, low: int = 0, high: int = DAY) -> int:
    """A time in whole seconds, at most a day."""
    if isinstance(value, str) and (found := re.fullmatch(r"([0-9]{1,9})\s*(s|m|h)", value)):
        instead = int(found[1]) * _SECONDS[found[2]]
        raise BadValueError("expected a whole number of seconds, got a string", f"write {instead}")
    return whole(value, low, high, "a whole number of seconds")


def number(value: object, low: float, high: float, expected: str) -> float:
    """A whole or decimal number above `low` and at most `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValueError(f"expected {expected}, got {kind(value)}")
    # Not a number is not more than anything either.
    if not low < value <= high:
        raise BadValueError("is out of range", f"it is more than {low:g} and at most {high:g}")
    return value


def size(value: object, low: int = 1, high: int = SIZE_LIMIT) -> int:
    """A size in bytes: a whole number, or digits with K, M, G or T for powers of 1024."""
    expected = 'a size (bytes, or as in "64M" with K, M, G or T)'
    if type(value) is int:
        return whole(value, low, high, expected)
    found = matching(value, SIZE_PATTERN, expected, _size_hint(value))
    digits, unit = (found[:-1], found[-1]) if found[-1] in _UNITS else (found, "")
    return whole(int(digits) * _UNITS[unit], low, high)


def _size_hint(value: object) -> str:
    found = (
        re.fullmatch(r"([0-9]{1,19})\s*([kmgt])?(i?b)?", value.strip(), re.IGNORECASE)
        if isinstance(value, str)
        else None
    )
    return f'write "{found[1]}{(found[2] or "").upper()}"' if found else ""


def restart_limit(value: object) -> RestartLimit:
    """So many starts in such a time: "5/60s"; m and h are minutes and hours."""
    found = matching(value, RESTART_LIMIT_PATTERN, 'a limit of restarts (as in "5/60s": five in sixty seconds)')
    count, _, window = found.partition("/")
    digits, unit = (window[:-1], window[-1]) if window[-1] in _SECONDS else (window, "s")
    return RestartLimit(whole(int(count), 1, 10000), whole(int(digits) * _SECONDS[unit], 1, DAY))


def port_number(value: object) -> int:
    """A port of TCP or UDP."""
    return whole(value, 1, 65535, "a port number")


def port(value: object) -> Port:
    """A published port: [ADDRESS:]HOST_PORT:CONTAINER_PORT[/tcp|/udp]."""
    found = text(value, "a port mapping", PORT_PATTERN)
    single = re.fullmatch(r"([0-9]{1,5})(/tcp|/udp)?", found)
    hint = f'write "{single[1]}:{found}"' if single else 'write it as in "127.0.0.1:8080:80/tcp"'
    matching(found, PORT_PATTERN, "a port mapping", hint)
    rest, _, protocol = found.partition("/")
    host, inner = rest.rsplit(":", 2)[-2:]
    bound = rest[: -len(f"{host}:{inner}")].rstrip(":") if rest.count(":") > 1 else ""
    where = address(bound.strip("[]")) if bound else ""
    return Port(where, port_number(int(host)), port_number(int(inner)), protocol or "tcp")


def signal(value: object) -> Signal:
    """A signal by name (with or without SIG) or number, in its canonical form."""
    if type(value) is int:
        return _signal_numbered(value)
    found = text(value, "the name of a signal", "")
    upper = found.upper()
    if not re.fullmatch(SIGNAL_PATTERN, upper):
        raise BadValueError(f"{quoted(found)} is not a signal", 'write it as in "SIGTERM"')
    return _signal_numbered(int(upper)) if upper.isdigit() else _signal_named(upper.removeprefix("SIG"), found)


def _signal_named(bare: str, found: str) -> Signal:
    if real_time := re.fullmatch(r"RTMIN(?:\+([0-9]+))?|RTMAX(?:-([0-9]+))?", bare):
        offset = int(real_time[1] or real_time[2] or 0)
        value = RTMIN + offset if bare.startswith("RTMIN") else RTMAX - offset
        if not RTMIN <= value <= RTMAX:
            raise BadValueError(f"{quoted(found)} is not a signal", "real-time signals go from SIGRTMIN to SIGRTMIN+30")
        return _signal_numbered(value)
    if bare not in _NUMBERS:
        raise BadValueError(f"{quoted(found)} is not a signal", 'write it as in "SIGTERM"')
    return _signal_numbered(_NUMBERS[bare])


def _signal_numbered(value: int) -> Signal:
    if RTMIN <= value <= RTMAX:
        return Signal(f"SIGRTMIN+{value - RTMIN}" if value > RTMIN else "SIGRTMIN", value)
    if value not in _SIGNALS:
        raise BadValueError(f"{shown(value)} is not the number of a signal", 'write it as in "SIGTERM"')
    if value in _NOT_FORWARDED:
        raise BadValueError(f"SIG{_SIGNALS[value]} never reaches a container", "take a signal that ends the program")
    return Signal(f"SIG{_SIGNALS[value]}", value)


def id_range(value: object) -> IdRange:
    """A range of ids of the host, as a table of base and size. Id 0 is the host's root and never in it."""
    if not isinstance(value, Mapping):
        raise BadValueError(f'expected "auto", "host" or a table of base and size, got {kind(value)}')
    for key in value:
        if key not in ("base", "size"):
            raise BadValueError("unknown key", "a range of ids has base and size", at=(key,))
    for key in ("base", "size"):
        if key not in value:
            raise BadValueError(f"{key} is missing", "write { base = 200000, size = 65536 } with your numbers")
    base = _ranged(value["base"], "base", 1, 2**32 - 2)
    return IdRange(base, _ranged(value["size"], "size", 1, 2**32 - 1 - base))


def _ranged(value: object, key: str, low: int, high: int) -> int:
    try:
        return whole(value, low, high)
    except BadValueError as error:
        raise BadValueError(error.message, error.hint, at=(key,)) from None
