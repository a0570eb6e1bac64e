"""Reading log files: the last lines, times, and files that are replaced while they are read."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from appbox.logs import Line, Wanted, read


def stamped(number: int) -> str:
    return f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z line {number}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log of 300 lines in three files."""
    path = tmp_path / "x.log"
    for name, first in (("x.log.2", 0), ("x.log.1", 100), ("x.log", 200)):
        (tmp_path / name).write_text("".join(stamped(n) for n in range(first, first + 100)))
    return path


@pytest.mark.parametrize("lines", [0, 1, 2, 99, 100, 101, 199, 200, 250, 299, 300, 1000, None])
def test_the_last_lines_come_from_as_many_files_as_they_are_in(log: Path, lines: int | None) -> None:
    shown = list(read(str(log), Wanted(lines)))
    first = 0 if lines is None else max(0, 300 - lines)
    assert [line.data for line in shown] == [f"line {n}\n".encode() for n in range(first, 300)]
    assert all(line.time for line in shown)


def test_a_line_that_is_being_written_counts(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"one\ntwo\nthr")
    assert [line.data for line in read(str(tmp_path / "x.log"), Wanted(2))] == [b"two\n", b"thr"]


def test_only_what_is_younger_is_shown(log: Path) -> None:
    since = 1767225600.0 + 250  # 2026-01-01T00:04:10Z
    assert next(read(str(log), Wanted(None, since))).data == b"line 250\n"
    assert list(read(str(log), Wanted(None, since + 1000))) == []


def test_lines_without_a_time_have_that_of_the_line_before(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"bare\n2026-01-01T00:00:00Z \xff\0\x1b[31m\nappbox: x: died\n")
    shown = list(read(str(path), Wanted()))
    assert shown == [
        Line("", b"bare\n"),
        Line("2026-01-01T00:00:00Z", b"\xff\0\x1b[31m\n"),
        Line("2026-01-01T00:00:00Z", b"appbox: x: died\n"),
    ]


def test_a_very_long_line_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"2026-01-01T00:00:00Z " + b"x" * (3 << 20) + b"\nnext\n")
    shown = list(read(str(path), Wanted()))
    assert b"".join(line.data for line in shown) == b"x" * (3 << 20) + b"\nnext\n"
    assert [line.resumed for line in shown] == [False, True, True, True, False]


def test_following_goes_on_through_new_files(log: Path) -> None:
    def turn(text: str) -> None:
        (log.parent / "x.log.2").unlink()
        (log.parent / "x.log.1").rename(log.parent / "x.log.2")
        log.rename(log.parent / "x.log.1")
        log.write_text(text)

    lines = (line for line in read(str(log), Wanted(1, follow=True)) if line.data)
    assert next(lines).data == b"line 299\n"
    with log.open("a") as file:
        file.write(stamped(300))
    assert next(lines).data == b"line 300\n"
    with log.open("a") as file:
        file.write(stamped(301))
    turn(stamped(302))
    turn(stamped(303) + "half")
    assert [line.data for line in itertools.islice(lines, 3)] == [f"line {n}\n".encode() for n in (301, 302, 303)]
    with log.open("a") as file:
        file.write(" a line\n")
    assert next(lines).data == b"half a line\n"
