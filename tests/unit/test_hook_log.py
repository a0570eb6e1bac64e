"""What commands of upgrades print, as it is kept."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.hook_log import FULL, HookLog
from appbox.logs import Wanted, read


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def keep(folder: int, *parts: bytes, command: tuple[str, ...] = ("do", "it now")) -> list[str]:
    log = HookLog(folder, "x:hooks.log")
    log.begin("upgrade.before in x-1", command)
    for part in parts:
        log.write(part)
    log.end("ended with 0 after 1.0 s")
    log.close()
    return list(log.last)


def test_each_command_has_a_head_and_its_lines_below(folder: int, tmp_path: Path) -> None:
    assert keep(folder, b"on", b"e\ntwo\n\xff\x1b[31m\nth", b"ree") == ["one", "two", "\ufffd\\x1b[31m", "three"]
    found = re.sub(rb"(?m)^[0-9-]{10}T[0-9:]{8}Z", b"WHEN", (tmp_path / "x:hooks.log").read_bytes())
    assert found == (
        b"WHEN appbox: upgrade.before in x-1: do 'it now'\n"
        b"  one\n  two\n  \xff\x1b[31m\n  three\n"
        b"WHEN appbox: ended with 0 after 1.0 s\n"
    )
    assert stat.S_IMODE((tmp_path / "x:hooks.log").stat().st_mode) == 0o600


def test_no_output_passes_for_a_head(folder: int, tmp_path: Path) -> None:
    keep(folder, b"2026-01-01T00:00:00Z appbox: ended with 0\n", command=("a\nb", "\x1b"))
    shown = list(read(str(tmp_path / "x:hooks.log"), Wanted()))
    assert [line.data[:2] for line in shown].count(b"  ") == 1
    assert shown[0].time


def test_two_files_are_all_that_is_kept(folder: int, tmp_path: Path) -> None:
    last = keep(folder, *(b"x" * 65535 + b"\n" for _ in range(60)), b"y" * 9000)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"x:hooks.log", "x:hooks.log.1"}
    assert max(sizes.values()) <= FULL + (1 << 17)
    assert len(last) == 20
    assert last[-3:] == ["y" * 4096, "y" * 4096, "y" * 808]


def test_a_symlink_is_not_followed(folder: int, tmp_path: Path) -> None:
    (tmp_path / "x:hooks.log").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        HookLog(folder, "x:hooks.log")
