"""Tags in the order of versions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appbox.tag_order import newest_last

WORDS = """
    alpine latest 8 8-alpine 8.1 8.1.4-rc1 8.1.4-rc2 8.1.4-rc10 8.1.4 8.1.4-alpine 8.1.4-alpine3.9 8.1.4-alpine3.22
    8.1.4-bookworm v8.2 9.0.0-alpha 9.0.0-beta 9.0.0 10.0 20250101
"""
ORDER = WORDS.split()


def test_versions() -> None:
    assert newest_last(reversed(ORDER)) == ORDER
    assert newest_last(ORDER[::3] + ORDER[1::3] + ORDER[2::3]) == ORDER


def test_ways_to_write_the_same_are_in_a_fixed_order() -> None:
    assert newest_last(["v1.0", "1.00", "1.0"]) == ["1.0", "1.00", "v1.0"]


@given(st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True), unique=True))
def test_any_tags_have_one_order(tags: list[str]) -> None:
    assert newest_last(tags[::-1]) == newest_last(tags)
