"""Manifests that must be refused. Each says in `## expect: LINE KEY WORDS` what is found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from appbox import manifest, schema, toml_source
from appbox.errors import ManifestError, Problem

CORPUS = sorted((Path(__file__).parent / "manifests").glob("*.toml"))
VALIDATOR = jsonschema.Draft202012Validator(schema.schema())


def expected(path: Path) -> list[tuple[int, str, str]]:
    """Return what `path` expects; `-` stands for no key."""
    lines = path.read_bytes().decode().split("\n")
    found = [line.removeprefix("## expect: ").split(" ", 2) for line in lines if line.startswith("## expect: ")]
    return [(int(line), "" if key == "-" else key, words) for line, key, words in found]


def problems(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(ManifestError) as refused:
        manifest.parse_bytes(path.read_bytes(), file=path.name)
    return refused.value.problems


def test_there_is_a_corpus() -> None:
    assert len(CORPUS) > 100
    assert all(expected(path) for path in CORPUS)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_problem_is_found_where_it_is(path: Path) -> None:
    found = problems(path)
    for line, key, words in expected(path):
        assert any((p.line, p.key) == (line, key) and words in f"{p.message}; {p.hint}" for p in found), found
    assert len(found) == len(expected(path)), [str(p) for p in found]
    for problem in found:
        assert problem.file == path.name
        assert "\n" not in str(problem)
        assert "pydantic" not in str(problem).lower()
        assert "Input should" not in str(problem)
        assert not problem.message.endswith(".")


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_schema_refuses_what_it_can_tell(path: Path) -> None:
    text = path.read_bytes().decode()
    try:
        data = toml_source.load(text)
    except toml_source.SourceError:
        return
    if "## the schema cannot tell" not in text:
        assert not VALIDATOR.is_valid(data)
