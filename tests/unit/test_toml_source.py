"""The line scanner against tomllib: whatever document it is, every key is found, and on its line."""

from __future__ import annotations

import time
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.toml_source import Path, SourceError, dotted, line_of, load, positions

KEYS = st.one_of(
    st.sampled_from(["a", "b", "c", "d-e", "1", "x_y"]),
    st.sampled_from(['"a.b"', "'c d'", '"\\u0061"', '"é"', '"#"', "'['", '""', '"x\\ty"']),
)
BARE = st.sampled_from(["1", "-0.5", "true", "1979-05-27 07:32:00Z", "0x1F", "nan", "1_000", "07:32:00"])
STRINGS = st.sampled_from(
    [
        '"x"',
        "'y'",
        '"# no = comment"',
        '"\\"quoted\\" \\\\"',
        "''",
        '""',
        '"""\n[a]\nb = 1\n"""',
        "'''\n[[c]]\n# x\n'''",
        '"""a\\\n  b"""',
        '""""two""""" ',
        "''''quotes'''''",
        '"""\\"""" ',
        '"]"',
        "'}'",
        '"""\r\n\r\n"""',
    ]
)
SPACE = st.sampled_from(["", " ", "\t", "  "])
BREAK = st.sampled_from(["", "\n", " # , ] x = 1\n", "\n\n  ", "\r\n"])


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    items: list[str] = draw(st.lists(values, max_size=3))
    pieces = [f"{draw(BREAK)}{item}{draw(BREAK)}" for item in items]
    last = draw(st.sampled_from(["", ","])) if items else ""
    return f"[{','.join(pieces)}{last}{draw(BREAK)}]"


@st.composite
def inlines(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    keys = draw(st.lists(KEYS, max_size=3, unique=True))
    return "{ " + ", ".join(f"{key}{draw(SPACE)}={draw(SPACE)}{draw(values)}" for key in keys) + " }"


VALUES = st.recursive(st.one_of(BARE, STRINGS), lambda inner: st.one_of(arrays(inner), inlines(inner)), max_leaves=6)


@st.composite
def lines(draw: st.DrawFn) -> str:
    key = f"{draw(SPACE)}.{draw(SPACE)}".join(draw(st.lists(KEYS, min_size=1, max_size=3)))
    match draw(st.sampled_from(["key", "key", "key", "table", "array", "blank"])):
        case "table":
            return f"[{draw(SPACE)}{key}{draw(SPACE)}]"
        case "array":
            return f"[[{draw(SPACE)}{key}{draw(SPACE)}]] # [x]"
        case "blank":
            return draw(st.sampled_from(["", "# [a]", "  # b = 1"]))
    return f"{draw(SPACE)}{key}{draw(SPACE)}={draw(SPACE)}{draw(VALUES)}{draw(st.sampled_from(['', ' # c']))}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A document in which each line is kept that leaves it valid."""
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    text = ""
    for line in draw(st.lists(lines(), max_size=8)):
        try:
            tomllib.loads(text + line + ending)
        except tomllib.TOMLDecodeError:
            continue
        text += line + ending
    return text


def leaves(value: Any, path: Path = ()) -> set[Path]:
    """Return the paths of all tables, keys and list elements of `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return ({path} if path else set()).union(*(leaves(found, (*path, key)) for key, found in inner))


@given(documents())
def test_every_key_is_found(text: str) -> None:
    found = positions(text)
    assert found.keys() == leaves(tomllib.loads(text))
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


@given(documents(), documents(), st.sampled_from(["here = 1", '"here".x.y = []', "[here]", "[[here]]", "[here.there]"]))
def test_a_key_is_found_on_its_line(before: str, after: str, line: str) -> None:
    # An assignment belongs to the table above it, so it stands first; a header may follow anything.
    text = before + line + "\n" if line.startswith("[") else line + "\n"
    whole = text if line.startswith("[") else text + before
    try:
        tomllib.loads(whole + after)
        whole += after
    except tomllib.TOMLDecodeError:
        pass
    expected = text.count("\n")
    assert positions(whole)["here",] == expected


def test_elements_and_nested_keys_have_lines() -> None:
    text = 'a = [\n  1,\n  [ 2,\n  3 ],\n  { b = 4, c = """\n""", d = 5 },\n]\n[x]\ny.z = 1\n'
    found = positions(text + "[[t]]\nu = 1\n[[t]]\nu = 2\n[t.v]\nw = 3\n")
    assert found["a",] == 1
    assert (found["a", 0], found["a", 1], found["a", 1, 1], found["a", 2, "b"], found["a", 2, "d"]) == (2, 3, 4, 5, 6)
    assert (found["x", "y"], found["x", "y", "z"]) == (9, 9)
    assert (found["t",], found["t", 0, "u"], found["t", 1], found["t", 1, "u"], found["t", 1, "v", "w"]) == (
        10,
        11,
        12,
        13,
        15,
    )


def test_a_header_tells_more_than_what_only_implies_a_table() -> None:
    assert positions("[a.b]\n[a]\n")["a",] == 2


def test_the_nearest_line_is_taken() -> None:
    found = positions("\n[a]\nb = 1\n")
    assert line_of(found, ("a", "c")) == 2
    assert line_of(found, ("z", "c")) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("process", "args", 1), "process.args[1]"),
        (("config", "/etc/a b", "mode"), 'config."/etc/a b".mode'),
        (("vars", 'a"\\'), 'vars."a\\"\\\\"'),
        (("vars", ""), 'vars.""'),
    ],
)
def test_dotted(path: Path, text: str) -> None:
    assert dotted(path) == text


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a = 1\nb = \n", 2, "not valid TOML: invalid value"),
        ("a = 1\nb = [1\n", 2, "not valid TOML: unclosed array"),
        ('a = 1\n\nb = "x\n', 3, "not valid TOML: illegal character"),
        ("a = 1\na = 2\n", 2, "key given twice"),
        ("a.b = 1\n[a]\n", 2, "not valid TOML: cannot declare ('a',) twice"),
        ("x = {a = 1, a = 2}\n", 1, "key given twice"),
        ('[a]\n[b]\n["a"]\n', 3, "table given twice"),
        ("a = 1\nb = " + "9" * 5000, 2, "too many digits"),
        ("a = 1\nb = " + "[" * 50_000, 2, "nested too deeply"),
        ("a = 1\nb = " + "[" * 50_000 + "]" * 50_000, 2, "nested too deeply"),
        ("a = 1\nb = " + "{a=" * 50_000, 2, "nested too deeply"),
        ("a = 1\n" + "a." * 100_000 + "a = 1", 2, "a key of too many parts"),
        ("a = 1\n[" + "a." * 100_000 + "a]", 2, "a key of too many parts"),
        ("a = 1\nb = {" + "a." * 100_000 + "a = 1}", 2, "a key of too many parts"),
    ],
    ids=range(14),
)
def test_what_is_not_toml_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    began = time.monotonic()
    with pytest.raises(SourceError) as refused:
        load(text)
    assert words in refused.value.message
    assert refused.value.line == line
    assert time.monotonic() - began < 2


def test_dots_in_texts_are_no_key() -> None:
    assert load(f'a = "{"x." * 1000}"\nb = """\n{"y." * 1000}\n"""')["a"].startswith("x.x")


@given(st.text(alphabet="ab.=[]{}\"'#,\\ \n\r1t\t", max_size=60))
def test_no_text_surprises(text: str) -> None:
    """Whatever it is, there is a document with all its lines or a refusal."""
    line = 1
    try:
        data = load(text)
    except SourceError as error:
        line = error.line
    else:
        assert positions(text).keys() == leaves(data)
    assert 1 <= line <= text.count("\n") + 1
