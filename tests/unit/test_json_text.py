"""JSON with indents: the same bytes as Python's own encoder makes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.json_text import indented

_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(_DATA, st.integers(1, 4), st.booleans())
def test_it_is_what_python_writes(data: object, indent: int, ascii_only: bool) -> None:
    assert indented(data, indent, ensure_ascii=ascii_only) == json.dumps(data, indent=indent, ensure_ascii=ascii_only)


def test_half_of_a_character_is_written_as_python_does() -> None:
    for ascii_only in (True, False):
        assert indented(["\udcff"], 1, ensure_ascii=ascii_only) == json.dumps(
            ["\udcff"], indent=1, ensure_ascii=ascii_only
        )


def test_what_json_has_no_word_for_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        indented({"a": [float("nan")]}, 2)
    with pytest.raises(TypeError):
        indented({"a": object()}, 2)
