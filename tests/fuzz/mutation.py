"""A small mutation fuzzer that needs only Python: where atheris has no wheel, and for the short run of the tests.

It has no coverage. What takes its place is the word that a check returns about what happened: an input that brings a
new one joins the pool, so that the next ones start from behind whatever it got past.
"""

from __future__ import annotations

import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.fuzz.targets import Target

CPU_LIMIT: Final = 2.0
"""Seconds of processor time for one input; the largest takes some 20 ms."""
MEMORY_LIMIT: Final = 256 << 20
"""Bytes of address space over what the process has when it begins; inputs have 32 KiB at most."""
_POOL: Final = 2000
_INTERESTING: Final = (b"\0", b"\xff", b"\x80", b"7", b"9", b"=", b" ", b"\n", b"/", b'"', b"-", b".", b"\\")


class Slow(BaseException):
    """An input took longer than `CPU_LIMIT`. Not an `Exception`, so that nothing takes it for one of its own."""


@dataclass(frozen=True, slots=True)
class Crash:
    """An input that breaks the law, and how."""

    data: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the fuzzer did."""

    inputs: int
    behaviours: int
    crash: Crash | None = None


def fuzz(target: Target, seeds: Sequence[bytes], seconds: float, seed: int = 0) -> Outcome:
    """Try the seeds, then mutations of them, for `seconds` of the clock or until one crashes."""
    chance = random.Random(seed)  # noqa: S311 - the same inputs for the same seed
    pool, seen, count = list(seeds) or [b""], set[str](), 0
    end = time.monotonic() + seconds
    with limited():
        for data in _inputs(target, pool, chance):
            if count >= len(seeds) and time.monotonic() > end:
                return Outcome(count, len(seen))
            count += 1
            word, crash = tried(target, data)
            if crash is not None:
                return Outcome(count, len(seen), crash)
            if word not in seen:
                seen.add(word)
                if count > len(seeds) and len(pool) < _POOL:
                    pool.append(data)
    raise AssertionError("there is always another input")


def _inputs(target: Target, pool: list[bytes], chance: random.Random) -> Iterator[bytes]:
    yield from list(pool)
    while True:
        data = chance.choice(pool)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
            data = chance.choice(MUTATIONS)(data, target, pool, chance)[: target.longest]
        yield target.repair(data) if chance.random() < 0.6 else data


def tried(target: Target, data: bytes) -> tuple[str, Crash | None]:
    """Return what the check said, and the crash when there was one."""
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT)
    try:
        return target.check(data), None
    except Slow:
        return "", Crash(data, f"more than {CPU_LIMIT} s of processor time")
    except Exception as error:  # anything at all is what is looked for
        return "", Crash(data, f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def limited() -> Iterator[None]:
    """Bound the memory of this process, and let `ITIMER_PROF` raise `Slow`."""

    def late(*_: object) -> None:
        raise Slow

    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, late)
    with open("/proc/self/statm", encoding="ascii") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGPROF, handler)


def smaller(target: Target, crash: Crash, seconds: float = 5.0) -> Crash:
    """Return a crash of the same kind with as much cut out of its input as the time allows."""
    kind = crash.why.partition(":")[0]
    end, size = time.monotonic() + seconds, len(crash.data) // 2
    with limited():
        while size:
            at = 0
            while at < len(crash.data) and time.monotonic() < end:
                shorter = crash.data[:at] + crash.data[at + size :]
                found = tried(target, shorter)[1]
                if found is not None and found.why.partition(":")[0] == kind:
                    crash = found
                else:
                    at += size
            size //= 2
    return crash


# Mutations: data, target, pool and chance in, data out.


def _flip(data: bytes, _: Target, __: list[bytes], chance: random.Random) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def _replace(data: bytes, target: Target, _: list[bytes], chance: random.Random) -> bytes:
    at, word = chance.randint(0, len(data)), _word(target, chance)
    return data[:at] + word + data[at + len(word) :]


def _insert(data: bytes, target: Target, _: list[bytes], chance: random.Random) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] + _word(target, chance) + data[at:]


def _cut(data: bytes, _: Target, __: list[bytes], chance: random.Random) -> bytes:
    at = chance.randint(0, len(data))
    size = chance.choice((1, 2, 8, 512, 1024, len(data)))
    return data[:at] + data[at + size :]


def _repeat(data: bytes, _: Target, __: list[bytes], chance: random.Random) -> bytes:
    at = chance.randint(0, len(data)) // 512 * 512 if chance.random() < 0.5 else chance.randint(0, len(data))
    size = chance.choice((1, 4, 20, 512, 1024))
    return data[: at + size] + data[at : at + size] * chance.choice((1, 1, 2, 30)) + data[at + size :]


def _splice(data: bytes, _: Target, pool: list[bytes], chance: random.Random) -> bytes:
    other = chance.choice(pool)
    step = chance.choice((1, 512))
    at, from_ = (chance.randint(0, len(one)) // step * step for one in (data, other))
    return data[:at] + other[from_:]


def _digit(data: bytes, _: Target, __: list[bytes], chance: random.Random) -> bytes:
    """Change a number: that is where sizes, lengths and ids are."""
    places = [at for at, byte in enumerate(data[:4096]) if 0x30 <= byte <= 0x39]
    if not places:
        return data
    at = chance.choice(places)
    return data[:at] + chance.choice((b"0", b"1", b"7", b"9", b"-", b"99999999")) + data[at + 1 :]


def _word(target: Target, chance: random.Random) -> bytes:
    return chance.choice((*target.words, *_INTERESTING, chance.randbytes(chance.choice((1, 2, 12)))))


MUTATIONS: Final[Sequence[Callable[[bytes, Target, list[bytes], random.Random], bytes]]] = (
    _flip, _replace, _insert, _cut, _repeat, _splice, _digit,
)  # fmt: skip
