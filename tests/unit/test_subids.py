"""/etc/subuid and /etc/subgid: whose a range is, what is none, and which one is free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import subids
from appbox.host.facts import IdRange
from appbox.subids import FIRST, LAST, LEAST, Entry, Fault

TEXT = "# given by useradd\nalice:100000:65536\n\nbob:165536:65536\n1000:300000:1000\nalice:500000:10\n"


def test_ranges_go_by_name_and_by_number() -> None:
    assert subids.parse(TEXT, "alice", 1000) == (IdRange(100000, 65536), IdRange(300000, 1000), IdRange(500000, 10))
    assert subids.parse(TEXT, "bob", 1001) == (IdRange(165536, 65536),)
    assert subids.parse(TEXT, "carol", 1002) == ()
    assert subids.parse("01000:5:7\n", "x", 1000) == (IdRange(5, 7),)


def test_a_user_without_a_password_entry_has_what_his_number_has() -> None:
    assert subids.parse(TEXT, "", 1000) == (IdRange(300000, 1000),)
    assert subids.parse(":1:1\n", "", 1) == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("garbage", "'garbage' is not of the form user:first id:count"),
        ("a:1", "'a:1' is not of the form"),
        ("a:1:2:3", "not of the form"),
        (":1:2", "not of the form"),
        ("a:x:2", "the range of a does not consist of two numbers"),
        ("a:1:-2", "two numbers"),
        ("a:²:2", "two numbers"),
        ("a:12345678901:2", "two numbers"),
        ("a:1:0", "the range of a is empty"),
        ("a:4294967000:296", "ends beyond the last id, 4294967294"),
        ("x" * 5000, "…' is not"),
        ("\0\x1b[31m", "'\\x00\\x1b[31m' is not"),
    ],
)
def test_garbage_is_named_with_its_line(line: str, why: str) -> None:
    found = subids.table(f"bob:1:2\n{line}\n", "/etc/subgid")
    assert found.entries == (Entry(1, 2, "bob", 1),)
    (fault,) = found.faults
    assert (fault.file, fault.line) == ("/etc/subgid", 2)
    assert why in fault.why
    assert len(fault.why) < 200


def test_the_last_id_belongs_to_nobody() -> None:
    assert subids.table("a:4294967000:295\n").entries == (Entry(4294967000, 295, "a", 1),)


def test_blanks_make_another_name() -> None:
    """newuidmap(1) compares the name as it stands there; others still must not get the ids."""
    found = subids.table(" bob:7:8\n")
    assert found.entries == (Entry(7, 8, " bob", 1),)
    assert found.faults == (Fault("/etc/subuid", 1, "the blanks around ' bob' make it another user's name"),)
    assert subids.parse(" bob:7:8\n", "bob", 5) == ()


def test_carriage_returns_are_no_part_of_a_number() -> None:
    assert subids.parse("bob:7:8\r\n", "bob", 5) == (IdRange(7, 8),)


def test_overlaps_are_those_of_different_users() -> None:
    text = "a:100:100\nb:150:10\na:160:10\nc:199:1\nd:200:5\n"
    pairs = [(one.owner, other.owner) for one, other in subids.overlaps(subids.table(text))]
    assert pairs == [("a", "b"), ("a", "c")]
    assert not list(subids.overlaps(subids.table("a:1:10\na:5:10\n")))


def test_a_free_range_lies_between_those_of_others() -> None:
    assert subids.free(()) == IdRange(FIRST, LEAST)
    assert subids.free([IdRange(FIRST, LEAST)]) == IdRange(FIRST + LEAST, LEAST)
    assert subids.free([IdRange(FIRST + LEAST, 5), IdRange(0, 7)]) == IdRange(FIRST, LEAST)
    assert subids.free([IdRange(FIRST + LEAST - 1, 2)]) == IdRange(FIRST + LEAST + 1, LEAST)
    assert subids.free([IdRange(FIRST, LAST - FIRST)]) is None


@given(st.lists(st.builds(IdRange, st.integers(0, FIRST + 9 * LEAST), st.integers(0, 3 * LEAST)), max_size=6))
def test_what_is_free_is_nobody_s_and_the_lowest(taken: list[IdRange]) -> None:
    found = subids.free(taken)
    assert found is not None
    assert not any(found.overlaps(one) for one in taken if one.size)
    assert found.base == FIRST or any(one.end == found.base for one in taken)


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    found = subids.table(text)
    assert all(one.size and one.end < 2**32 for one in found.entries)
    assert all(str(one).startswith("/etc/subuid:") for one in found.faults)


def test_sizes_are_summed_up() -> None:
    assert subids.together([IdRange(1, 5), IdRange(9, 7)]) == 12


@given(st.lists(st.builds(IdRange, st.integers(0, 60), st.integers(0, 20)), max_size=6))
def test_what_is_given_twice_counts_once(ranges: list[IdRange]) -> None:
    """The kernel maps no id twice; which id of a container an id is does not change when it is given once more."""
    kept = subids.apart(ranges)
    ids = [number for one in kept for number in range(one.base, one.end)]
    given_ = dict.fromkeys(number for one in ranges for number in range(one.base, one.end))
    assert ids == list(given_)
    assert subids.together(ranges) == len(ids)
