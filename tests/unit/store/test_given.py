"""Ranges and addresses that one run gives out: written down at once, read again only when somebody else wrote."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from appbox.addresses import Attachment, Network, Record
from appbox.host.facts import IdRange
from appbox.host.ranges import FIRST, SIZE
from appbox.store import addresses, ranges
from appbox.store.given import Given
from appbox.store.root import Root

NETWORK = Network("appbox", IPv4Network("10.89.0.0/24"))


def span(number: int) -> IdRange:
    return IdRange(FIRST + number * SIZE, SIZE)


def place(number: int) -> Attachment:
    return Attachment(NETWORK, IPv4Address(f"10.89.0.{number}"))


def test_what_is_given_is_written_down(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        given = Given(root)
        assert given.range("a", span(0))
        assert given.range("b", span(1))
        assert given.address("a", place(2))
        assert given.address("b", place(3))
        assert ranges.load(root) == {"a": span(0), "b": span(1)}
        assert {name: str(one.address) for name, one in addresses.load(root).places.items()} == {
            "a": "10.89.0.2",
            "b": "10.89.0.3",
        }


def test_what_another_service_has_is_not_given(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        given = Given(root)
        assert given.range("a", span(0))
        assert not given.range("b", span(0))
        assert given.range("a", span(0))
        assert given.address("a", place(2))
        assert not given.address("b", place(2))
        assert ranges.load(root) == {"a": span(0)}
        assert list(addresses.load(root).places) == ["a"]


def test_what_somebody_else_has_written_meanwhile_counts(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        given = Given(root)
        assert given.range("a", span(0))
        assert given.address("a", place(2))
        ranges.save(root, {"c": span(1)})
        addresses.save(root, Record().with_("c", place(3)))
        assert not given.range("b", span(1))
        assert not given.address("b", place(3))
        assert given.range("b", span(0))
        assert given.address("b", place(2))
        assert ranges.load(root) == {"b": span(0), "c": span(1)}
        assert sorted(addresses.load(root).places) == ["b", "c"]


def test_a_file_that_was_broken_meanwhile_is_kept_beside_it(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        given = Given(root)
        assert given.range("a", span(0))
        (tmp_path / "var/lib/appbox/uid-ranges.toml").write_text("no toml", encoding="utf-8")
        assert given.range("b", span(1))
    assert (tmp_path / "var/lib/appbox/uid-ranges.toml.broken").read_text(encoding="utf-8") == "no toml"


def test_what_was_written_here_is_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "var/lib/appbox/uid-ranges.toml"
    with Root(str(tmp_path)) as root:
        given = Given(root)
        assert given.range("a", span(0))
        info = file.stat()
        with file.open("r+b") as there:  # as long, in the same place and as old: only who reads it can tell
            there.write(b"x")
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
        assert given.range("b", span(1))
        assert ranges.load(root) == {"a": span(0), "b": span(1)}
    assert not file.with_name("uid-ranges.toml.broken").exists()
