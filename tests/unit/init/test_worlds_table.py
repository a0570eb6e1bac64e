"""The table of worlds: the last outcome of a test counts, and what failed is in no README."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.init import table

CASE = '<testcase classname="tests.init.test_x" name="{}">{}</testcase>'


def report(path: Path, **cases: str) -> Path:
    """Write a report; `cases` are names without what is not allowed there, and what went wrong."""
    names = {"root": "test_a[systemd-server]", "user": "test_a[systemd-user-crun]", "own": "test_b[openrc-user-own]"}
    body = "".join(CASE.format(names[name], f"<{bad}/>" if bad else "") for name, bad in cases.items())
    path.write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
    return path


def test_what_was_run_again_counts_as_it_came_out_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = report(tmp_path / "1.xml", root="", user="failure")
    second = report(tmp_path / "2.xml", user="", own="")
    assert table.main([str(first)]) == 1
    assert "systemd-user-crun: 1 failed" in capsys.readouterr().err
    assert table.main([str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5] == [
        "| systemd | root | runc | 1 |",
        "| systemd | a user | crun | 1 |",
        "| OpenRC ≥ 0.60, the user's own | a user | runc | 1 |",
    ]
    assert table.main([str(second), str(first)]) == 1


def test_it_is_saved_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("above\n{}\nold\n{}\nbelow\n".format(*table.MARKS))
    monkeypatch.setattr(table, "README", readme)
    assert table.main(["--save", str(report(tmp_path / "1.xml", root="skipped"))]) == 1
    assert "old" in readme.read_text()
    assert table.main(["--save", str(report(tmp_path / "2.xml", root=""))]) == 0
    text = readme.read_text()
    assert "old" not in text
    assert text.startswith(f"above\n{table.MARKS[0]}\n| init |")
    assert text.endswith(f"{table.MARKS[1]}\nbelow\n")
