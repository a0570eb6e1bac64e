"""The schema for editors agrees with what is parsed, as far as a schema can."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from appbox.schema import schema
from tests.unit.test_manifest import DEFAULTS, FULL, HEAD

SERVICES = sorted((Path(__file__).parents[2] / "services").rglob("*.toml"))
MADE = schema()
VALIDATOR = jsonschema.Draft202012Validator(MADE)


def test_it_is_a_schema_and_plain_json() -> None:
    jsonschema.Draft202012Validator.check_schema(MADE)
    assert json.loads(json.dumps(MADE)) == MADE == schema()


@pytest.mark.parametrize("text", [FULL, HEAD, HEAD + DEFAULTS])
def test_it_takes_what_is_parsed(text: str) -> None:
    VALIDATOR.validate(tomllib.loads(text))


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_takes_the_services(path: Path) -> None:
    VALIDATOR.validate(tomllib.loads(path.read_text()))


def tables() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", MADE
    yield from MADE["$defs"].items()


@pytest.mark.parametrize(("name", "table"), list(tables()), ids=[name or "manifest" for name, _ in tables()])
def test_every_key_is_described_and_every_table_closed(name: str, table: dict[str, Any]) -> None:
    assert table["additionalProperties"] is False, name
    for key, found in table["properties"].items():
        assert found.get("description"), key
        assert "title" not in found
        if "default" in found:
            jsonschema.Draft202012Validator(found | {"$defs": MADE["$defs"]}).validate(found["default"])


def test_it_says_what_is_not_supported_yet() -> None:
    assert "not supported yet" in MADE["properties"]["build"]["description"]
    assert "not supported yet" not in MADE["$defs"]["Process"]["properties"]["init"]["description"]
    assert "not supported yet" not in MADE["$defs"]["Process"]["properties"]["args"]["description"]
