"""Variables of templates are plain data, frozen."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.fields import BadValueError
from appbox.variables import variables

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(alphabet=st.characters(exclude_characters="\0")),
)
DATA = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=9)


def thawed(value: object) -> object:
    if isinstance(value, dict):
        return {key: thawed(found) for key, found in value.items()}
    return [thawed(found) for found in value] if isinstance(value, tuple) else value


@given(DATA)
def test_values_are_kept_and_cannot_change(value: object) -> None:
    found = variables({"x": value})
    assert thawed(found) == {"x": value}
    hash(found)


@pytest.mark.parametrize("name", ["", "a-b", "1a", "é", "a.b", "loop", "None", "vars", "facts", "a\n"])
def test_names_are_those_of_templates(name: str) -> None:
    with pytest.raises(BadValueError) as refused:
        variables({name: 1})
    assert refused.value.at == (name,)


@pytest.mark.parametrize(
    "value", [datetime.date(2025, 1, 1), datetime.time(1), float("nan"), float("-inf"), 2**63, "a\0b"], ids=repr
)
def test_values_that_do_not_print_are_refused_where_they_stand(value: object) -> None:
    with pytest.raises(BadValueError) as refused:
        variables({"a": [{"b": [1, value]}]})
    assert refused.value.at == ("a", 0, "b", 1)
