"""Which tags answer a constraint, and which of them is taken."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import constraints
from appbox.constraints import ConstraintError, beyond, is_constraint, parse
from appbox.oci.reference import TAG_PATTERN
from appbox.tag_order import newest_last

WORDS = """
    latest edge bookworm 8 8.1 8.1.4 9 9.0 9.0.0-beta1 9.0.0-rc1 9.0.0-rc.2 9.0.0 9.0.1 v9.0.2 9.0.1-alpine
    9.0.2-alpine3.22 9.1.0 9.1.1-rc2 9.1.1-rc2-alpine 10 10.0.0-beta1 10.0 20250101 sha-4f1c0de 9.0.1.RELEASE
"""
TAGS = WORDS.split()
NO_CONSTRAINTS = [
    *["", ",", "~", ">=", ">=9,", ",~9", "9", "1,2", "9.*", "~9.*", "9.0.x,>1", ">=9 <10", "> =9", "=>9", "~~9"],
    *["~latest", "~9.0+x", "*9", "**", "*-", "!*", ">=10,<9", "~9.0,>=9.1", "=9,=10", ">=9-alpine,<10-slim", "~9\n"],
    "~9" * 200,
]


@pytest.mark.parametrize(
    ("text", "newest", "takes"),
    [
        ("~9.0", "v9.0.2", "9.0 9.0.0 9.0.1 v9.0.2"),
        ("~v9.0", "v9.0.2", "9.0 9.0.0 9.0.1 v9.0.2"),
        ("~9.0.1", "v9.0.2", "9.0.1 v9.0.2"),
        ("~9", "9.1.0", "9 9.0 9.0.0 9.0.1 v9.0.2 9.1.0"),
        ("^9.0", "9.1.0", "9 9.0 9.0.0 9.0.1 v9.0.2 9.1.0"),
        ("^9.1", "9.1.0", "9.1.0"),
        ("*", "10.0", "8 8.1 8.1.4 9 9.0 9.0.0 9.0.1 v9.0.2 9.1.0 10 10.0"),
        (">=9,<10", "9.1.0", "9 9.0 9.0.0 9.0.1 v9.0.2 9.1.0"),
        (" >= 9 , < 10 ", "9.1.0", "9 9.0 9.0.0 9.0.1 v9.0.2 9.1.0"),
        (">9", "10.0", "10 10.0"),
        (">9.0", "10.0", "9.1.0 10 10.0"),
        ("<9", "8.1.4", "8 8.1 8.1.4"),
        ("<9.0.1", "9.0.0", "8 8.1 8.1.4 9.0.0"),
        ("<=9", "9.1.0", "8 8.1 8.1.4 9 9.0 9.0.0 9.0.1 v9.0.2 9.1.0"),
        ("=9.0", "v9.0.2", "9.0 9.0.0 9.0.1 v9.0.2"),
        ("==9.0.1", "9.0.1", "9.0.1"),
        ("!=9,!=8", "10.0", "10 10.0"),
        (">=9.0,!=9.1,<10", "v9.0.2", "9.0 9.0.0 9.0.1 v9.0.2"),
        ("~9.0-alpine", "9.0.1-alpine", "9.0.1-alpine"),
        ("*-alpine", "9.0.1-alpine", "9.0.1-alpine"),
        (">=9-alpine,<10", "9.0.1-alpine", "9.0.1-alpine"),
        ("*-alpine3.22", "9.0.2-alpine3.22", "9.0.2-alpine3.22"),
        ("=9.0.0-rc1", "9.0.0-rc1", "9.0.0-rc1"),
        (">=9.0.0-rc1,<9.1", "v9.0.2", "9.0 9.0.0-rc1 9.0.0-rc.2 9.0.0 9.0.1 v9.0.2"),
        (">9.0.0-rc1,<=9.0.0", "9.0.0", "9.0.0-rc.2 9.0.0"),
        ("<9.0.0-rc1", "9.0.0-beta1", "8 8.1 8.1.4 9.0.0-beta1"),
        ("~9.1.1-rc1-alpine", "9.1.1-rc2-alpine", "9.1.1-rc2-alpine"),
        (">=20240101", "20250101", "20250101"),
        ("~7", None, ""),
    ],
)
def test_what_a_constraint_takes(text: str, newest: str | None, takes: str) -> None:
    found = parse(text)
    assert [tag for tag in TAGS if found.allows(tag)] == [tag for tag in TAGS if tag in takes.split()]
    assert found.newest(TAGS) == found.newest(TAGS[::-1]) == newest


@pytest.mark.parametrize(
    ("text", "low", "below"),
    [
        ("^1.2.3", "1.2.3", "2.0.0"),
        ("^0.3.1", "0.3.1", "0.4.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0.0", "0.0.0", "0.1.0"),
        ("^0", "0.0.0", "1.0.0"),
        ("~1.2.3", "1.2.3", "1.3.0"),
        ("~1.2", "1.2.0", "1.3.0"),
        ("~1", "1.0.0", "2.0.0"),
    ],
)
def test_ranges_are_those_of_npm_and_cargo(text: str, low: str, below: str) -> None:
    """The bounds are those of node-semver's documentation for ~ and ^."""
    found = parse(text)
    assert found.allows(low)
    assert not found.allows(below)
    first = [*map(int, below.split("."))]
    last = next(n for n in (2, 1, 0) if first[n])
    before = [*first[:last], first[last] - 1, *([99] * (2 - last))]
    assert found.allows(".".join(map(str, before)))


@pytest.mark.parametrize(
    "text",
    NO_CONSTRAINTS,
)
def test_no_constraints(text: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        parse(text)
    assert caught.value.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (">=9 <10", "put a comma between its parts"),
        ("9.0.*", 'write "=9.0", all versions that begin with 9.0'),
        ("~9.x", 'write "=9", all versions that begin with 9'),
        ("1,2", 'write "=1", "~1" or ">=1"'),
    ],
)
def test_what_people_write_elsewhere_is_recognised(text: str, hint: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        parse(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("current", "tags", "newest"),
    [
        ("9.0.0", "9 9.0 9.0.1 10 10.1.2 11.0.0-rc1 latest 20250101", "10.1.2"),
        ("17", "16 17 17.6 18 18.1", "18"),
        ("17-alpine", "17.6 18 18.1 18-alpine 18.1-alpine 18.1-alpine3.22", "18-alpine"),
        ("9.0.0-rc1", "9.0.0-rc2 9.1.0-rc1", "9.0.0-rc2"),
        ("9.0.0-rc1", "9.0.0-rc2 9.0.0 9.1.0-rc1", "9.0.0"),
        ("v3.1.0", "v3.1.0 v3.2.0 3.2.0", "v3.2.0"),
        ("20250101", "20250101 20250108 3.22", "20250108"),
        ("10.1.2", "9 10 10.1 10.1.2 latest", None),
        ("latest", "9 10", None),
    ],
)
def test_what_comes_after_a_version(current: str, tags: str, newest: str | None) -> None:
    assert beyond(current, tags.split()) == newest


NUMBERS = st.lists(st.integers(0, 30), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
VERSIONS = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["", "v"]),
    NUMBERS,
    st.sampled_from(["", "", "-rc1", "-beta.2", "a3"]),
    st.sampled_from(["", "", "-alpine"]),
)
CONSTRAINTS = st.lists(
    st.builds(lambda *parts: "".join(parts), st.sampled_from(["~", "^", ">", ">=", "<", "<=", "=", "!="]), VERSIONS),
    min_size=1,
    max_size=3,
).map(",".join)


@given(CONSTRAINTS, st.lists(VERSIONS))
def test_the_newest_is_one_of_those_that_answer(text: str, tags: list[str]) -> None:
    try:
        found = parse(text)
    except ConstraintError:
        return
    fitting = [tag for tag in tags if found.allows(tag)]
    newest = found.newest(tags)
    assert newest in fitting if fitting else newest is None
    assert re.search(constraints.PATTERN, text), "the schema would refuse it"
    if newest and not any(constraints.version(tag).stage for tag in fitting):  # type: ignore[union-attr]
        assert newest.removeprefix("v") == newest_last(tag.removeprefix("v") for tag in fitting)[-1]


@given(
    st.lists(st.sampled_from(["~", "^", ">", ">=", "<", "<=", "=", "!="]), min_size=2, max_size=2), NUMBERS, VERSIONS
)
def test_all_parts_must_hold(operators: list[str], numbers: str, tag: str) -> None:
    parts = [f"{operator}{numbers}" for operator in operators]
    try:
        both = parse(",".join(parts)).allows(tag)
    except ConstraintError:
        both = False
    assert both is all(parse(part).allows(tag) for part in parts)


@given(NUMBERS, NUMBERS)
def test_a_version_lies_before_in_or_after_another(numbers: str, tag: str) -> None:
    """What is exact enough to be told apart is in exactly one of three; what moves may be in none."""
    found = [parse(f"{operator}{numbers}").allows(tag) for operator in ("<", "=", ">")]
    assert sum(found) == 1 or (sum(found) == 0 and tag.count(".") < numbers.count("."))
    assert parse(f">={numbers}").allows(tag) >= (found[1] or found[2])
    assert parse(f"!={numbers}").allows(tag) is (found[0] or found[2])


@given(st.text(max_size=40))
def test_any_text_is_a_constraint_or_is_refused_in_words(text: str) -> None:
    with contextlib.suppress(ConstraintError):
        parse(text)
    if re.fullmatch(TAG_PATTERN, text):
        assert not is_constraint(text)


@given(st.from_regex(TAG_PATTERN, fullmatch=True), st.from_regex(TAG_PATTERN, fullmatch=True))
def test_any_tag_can_be_looked_at(tag: str, other: str) -> None:
    parse("*").newest([tag, other])
    assert not (beyond(tag, [other]) and beyond(other, [tag])), "one of them is older"
