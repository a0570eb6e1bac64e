"""Bad input at every place of a manifest: it arrives as it is or is refused with file, line and key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import tomli_w

from appbox import manifest as manifests
from appbox.errors import ManifestError, Problem, Refused
from appbox.schema import schema
from tests.ground import pure
from tests.ground.hostile import CASES, LONG, MARK, TEXTS, found_at, manifest_with

SCHEMA = schema()


def places(node: dict[str, Any], wanted: tuple[str, ...], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the places of a schema that take a value of the types `wanted`."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    for option in node.get("anyOf", ()):
        yield from places(option, wanted, at)
    if node.get("type") in wanted and "enum" not in node:
        yield at
    if "items" in node:
        yield from places(node["items"], wanted, (*at, "[]"))
    for key, inner in node.get("properties", {}).items():
        yield from places(inner, wanted, (*at, key))
    more = node.get("additionalProperties", "propertyNames" in node)
    if more is not False:
        if "string" in wanted:
            yield (*at, "<name>")
        yield from places(more if isinstance(more, dict) else {"type": "string"}, wanted, (*at, "*"))


def refused(text: str) -> list[Problem]:
    """Return the problems of a manifest, none when it is taken."""
    try:
        manifests.parse(text, file="job.toml")
    except ManifestError as error:
        return list(error.problems)
    return []


def test_there_is_a_case_for_every_place_that_holds_text() -> None:
    assert {".".join(place) for place in places(SCHEMA, ("string",))} == set(CASES)


@pytest.mark.parametrize("key", CASES)
def test_text_is_taken_as_it_is_or_refused_with_its_line_and_key(key: str) -> None:
    table = key.partition(".")[0]
    for text in TEXTS:
        data = tomli_w.dumps(manifest_with(key, text), multiline_strings=False)
        problems = refused(data)
        if CASES[key].takes(text):
            assert not problems, text
            parsed = manifests.parse(data, file="job.toml")
            again = tomli_w.dumps(manifests.as_table(parsed), multiline_strings=False)
            assert list(found_at(key, manifests.as_table(parsed))) == [text]
            assert manifests.parse(again, file="job.toml") == parsed
            continue
        assert problems or CASES[key].takes(text) is None, text
        assert all(problem.key.partition(".")[0] == table for problem in problems), text
        for problem in problems:
            assert (problem.file, problem.line > 0) == ("job.toml", True)
            assert len(str(problem)) < 1000 or "<name>" in key
            assert "\n" not in str(problem)
