"""Jobs in a table that is the administrator's: everything else in it stays, byte for byte."""

from __future__ import annotations

from pathlib import Path

from appbox.store import crontab
from appbox.store.root import Root
from appbox.units.files import marker

OWN = b"# m h\n*/15 * * * * run-parts /etc/periodic/15min\n\xff\xfe odd\x0c\n"


def lines(name: str, minute: int = 0) -> str:
    return f"{marker(name)}\n{minute} * * * * /opt/containers/{name}/run due\n"


def snapshots(name: str, minute: int = 0) -> str:
    return f"{marker(name)}\n{minute} * * * * /usr/bin/appbox --quiet snapshot --scheduled {name}\n"


def test_jobs_come_change_and_go(tmp_path: Path) -> None:
    table = tmp_path / "etc/crontabs/root"
    table.parent.mkdir(parents=True)
    table.write_bytes(OWN)
    table.chmod(0o640)
    with Root(str(tmp_path)) as root:
        for name in ("a", "a-b"):
            assert crontab.read(root, name) is None
            crontab.write(root, name, lines(name))
        assert table.read_bytes() == OWN + (lines("a") + lines("a-b")).encode()
        crontab.write(root, "a", lines("a", 5))
        assert crontab.read(root, "a") == lines("a", 5)
        assert table.stat().st_mode & 0o777 == 0o640
        crontab.write(root, "a", "")
        crontab.write(root, "a-b", "")
        crontab.write(root, "a-b", "")
    assert table.read_bytes() == OWN


def test_snapshots_change_and_go_like_jobs(tmp_path: Path) -> None:
    table = tmp_path / "etc/crontabs/root"
    table.parent.mkdir(parents=True)
    table.write_bytes(OWN)
    with Root(str(tmp_path)) as root:
        crontab.write(root, "a-b", snapshots("a-b"))
        for text in (snapshots("a"), snapshots("a", 5), lines("a"), snapshots("a")):
            crontab.write(root, "a", text)
            assert crontab.read(root, "a") == text
        assert table.read_bytes() == OWN + (snapshots("a-b") + snapshots("a")).encode()
        crontab.write(root, "a", "")
        crontab.write(root, "a-b", "")
    assert table.read_bytes() == OWN


def test_a_table_without_a_last_newline_keeps_its_last_line(tmp_path: Path) -> None:
    table = tmp_path / "etc/crontabs/root"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"0 0 * * * true")
    with Root(str(tmp_path)) as root:
        crontab.write(root, "a", lines("a"))
    assert table.read_bytes() == b"0 0 * * * true\n" + lines("a").encode()


def test_what_an_administrator_put_between_our_lines_or_in_their_place_stays(tmp_path: Path) -> None:
    table = tmp_path / "etc/crontabs/root"
    table.parent.mkdir(parents=True)
    named, due = lines("a").splitlines(keepends=True)
    theirs = "5 5 * * * backup\n"
    with Root(str(tmp_path)) as root:
        for text in (named + theirs + due, named + theirs):
            table.write_text(text)
            assert crontab.read(root, "a") == text.replace(theirs, "")
            crontab.write(root, "a", lines("a", 7))
            assert table.read_text() == lines("a", 7) + theirs
            crontab.write(root, "a", "")
            assert table.read_text() == theirs


def test_a_missing_table_is_made_for_nobody_else_to_read(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        assert crontab.read(root, "a") is None
        crontab.write(root, "a", lines("a"))
    table = tmp_path / "etc/crontabs/root"
    assert table.read_text() == lines("a")
    assert table.stat().st_mode & 0o777 == 0o600


def test_only_the_table_has_parts() -> None:
    assert crontab.split("/etc/crontabs/root:job") == "job"
    assert crontab.split("/etc/cron.d/appbox-job") == ""
