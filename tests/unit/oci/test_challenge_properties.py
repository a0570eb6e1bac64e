"""Laws of the challenge parser: any header gives challenges without an error, and quickly; good ones come back."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.oci.challenge import Challenge, parse_challenges

TOKEN = st.from_regex(r"[a-z][a-z0-9!#$%&'*+.^_`|~-]{0,9}", fullmatch=True)
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
CHALLENGES = st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN, VALUE, min_size=1, max_size=4)), min_size=1, max_size=4)


def written(scheme: str, parameters: dict[str, str], comma: str) -> str:
    escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in parameters.items()}
    return f"{scheme} " + comma.join(f'{name}="{value}"' for name, value in escaped.items())


@given(CHALLENGES, st.sampled_from([",", ", ", " ,\t", ",,"]))
def test_challenges_of_one_header_or_of_several_come_back(made: list[tuple[str, dict[str, str]]], comma: str) -> None:
    wanted = tuple(Challenge(scheme, parameters) for scheme, parameters in made)
    headers = [written(scheme, parameters, comma) for scheme, parameters in made]
    for found in (parse_challenges(headers), parse_challenges([comma.join(headers)])):
        assert [(one.scheme, dict(one.parameters)) for one in found] == [
            (one.scheme, dict(one.parameters)) for one in wanted
        ]


@given(st.text(max_size=200) | st.text(alphabet='Bearer realm="a,b\\=; \t', max_size=200))
def test_any_header_is_read_without_an_error(text: str) -> None:
    for challenge in parse_challenges([text]):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize(
    "text",
    [
        "Bearer " + 'a="' * 20_000,
        "Bearer " + "\\" * 60_000,
        'Bearer a="' + "\\" * 60_000,
        "Bearer " + "a" * 60_000,
        "a " * 30_000,
        "," * 60_000,
        "Bearer " + " " * 60_000 + "x",
        "Basic " + "a=" * 30_000,
        'Bearer realm="' + "x" * 60_000,
        "Bearer " + ",".join(f'p{number}="v"' for number in range(6_000)),
    ],
)
def test_time_does_not_explode(text: str) -> None:
    """Headers are bounded to 64 KiB; the parser's own share of that must not grow with the square of it."""
    start = time.process_time()
    parse_challenges([text])
    assert time.process_time() - start < 0.5
