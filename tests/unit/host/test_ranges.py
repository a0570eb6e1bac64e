"""Ranges of ids: one for each service, never two for one id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import AppboxError
from appbox.host import ranges
from appbox.host.facts import IdRange, Taken
from appbox.host.ranges import END, FIRST, SIZE


def test_the_lowest_free_range_is_given() -> None:
    assert ranges.allocate("a", {}, ()) == at(0)
    assert ranges.allocate("a", {"b": at(0)}, ()) == at(1)
    assert ranges.allocate("a", {"b": at(1)}, ()) == at(0)
    assert ranges.allocate("a", {"a": at(7)}, [IdRange(FIRST, END - FIRST)]) == at(7)


def at(number: int) -> IdRange:
    return IdRange(FIRST + number * SIZE, SIZE)


def test_a_fixed_range_is_nobody_s_else() -> None:
    fixed = IdRange(FIRST + SIZE - 1, 2)
    assert ranges.allocate("a", {"b": fixed}, ()) == at(2)
    assert ranges.allocate("b", {"b": fixed}, ()) == at(2)  # it is not fixed any more
    assert ranges.holder("a", fixed, {"a": fixed}, ()) == ""
    assert ranges.holder("a", IdRange(200_000, 10), {"b": IdRange(200_009, 1)}, ()) == (
        "the service b (ids 200009 to 200009)"
    )
    taken = [*ranges.parse_subids("alice:100000:65536\nnone:7:0\n"), *ranges.parse_users("bob:x:5:5\n", "/etc/group")]
    assert ranges.holder("a", IdRange(165_535, 1), {}, taken) == "alice in /etc/subuid (ids 100000 to 165535)"
    assert ranges.holder("a", IdRange(1, 10), {}, taken) == "bob in /etc/group (ids 5 to 5)"
    assert ranges.holder("a", IdRange(165_536, 1), {}, taken) == ""


@pytest.mark.parametrize("taken", [IdRange(FIRST, 1), IdRange(FIRST + SIZE - 1, 1), IdRange(0, FIRST + 1)])
def test_ids_of_the_host_s_users_are_left_alone(taken: IdRange) -> None:
    assert ranges.allocate("a", {}, [taken]) == at(1)


def test_there_is_an_end() -> None:
    full = {str(n): at(n) for n in range(4096)}
    with pytest.raises(AppboxError, match="a: no free range of user ids is left; remove --purge"):
        ranges.allocate("a", full, ())


_RANGES = st.lists(
    st.builds(IdRange, st.integers(FIRST - SIZE, FIRST + 20 * SIZE), st.integers(0, 3 * SIZE)), max_size=5
)


@given(_RANGES, st.integers(1, 12))
def test_ranges_never_overlap(taken: list[IdRange], services: int) -> None:
    given: dict[str, IdRange] = {}
    for number in range(services):
        given[str(number)] = ranges.allocate(str(number), given, taken)
    found = list(given.values())
    assert all((r.base - FIRST) % SIZE == 0 and FIRST <= r.base < END for r in found)
    for index, one in enumerate(found):
        assert not any(one.overlaps(other) for other in [*found[:index], *(t for t in taken if t.size)])


@given(st.integers(0, 50), st.integers(0, 9), st.integers(0, 50), st.integers(0, 9))
def test_overlap_is_sharing_an_id(a: int, n: int, b: int, m: int) -> None:
    shares = bool(set(range(a, a + n)) & set(range(b, b + m)))
    assert not shares or IdRange(a, n).overlaps(IdRange(b, m))
    if n and m:
        assert IdRange(a, n).overlaps(IdRange(b, m)) is shares


def test_tables_of_the_host_are_read_carefully() -> None:
    text = "a:100000:65536\n\n# x\nb:1\nc:x:5\nd:1:-2\ne:99999999999:1\n f:7:8 \ng:²:1\n"
    assert ranges.parse_subids(text) == [
        Taken(100000, 65536, "a in /etc/subuid"),
        Taken(7, 8, "f in /etc/subuid"),
    ]
    text = "root:x:0:0::/:/bin/sh\nbroken\nbig:x:99999999999:\n+:::\nx:x:1879048192:\n"
    assert ranges.parse_users(text) == [
        Taken(0, 1, "root in /etc/passwd"),
        Taken(1879048192, 1, "x in /etc/passwd"),
    ]
