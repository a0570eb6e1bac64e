"""The JSON Schema of a manifest, for editors. It says what a schema can say; `appbox check` says the rest.

Taplo and others read it behind `#:schema FILE` in the first line of a manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from appbox.support import NOT_YET, every_value
from appbox.tables import Manifest

_ONE_OF = {
    "Config": ("text", "file", "template", "directory"),
    "Secret": ("file", "command", "age"),
    "Health": ("exec", "tcp", "http"),
    "Build": ("packages", "containerfile"),
}
_VOLUME = {
    "if": {"properties": {"tmpfs": {"const": True}}, "required": ["tmpfs"]},
    "then": {"properties": {"source": False, "seed": {"const": "never"}, "read_only": {"const": False}}},
    "else": {"properties": {"size": False, "mode": False}},
}


class _Generate(GenerateJsonSchema):
    # An empty table is the default of many keys, and says nothing.
    ignored_warning_kinds = frozenset({"non-serializable-default", "skipped-choice"})  # type: ignore[assignment]


def schema() -> dict[str, Any]:
    """Return the schema as JSON data (draft 2020-12)."""
    made = Manifest.model_json_schema(by_alias=True, schema_generator=_Generate)
    tables = made["$defs"]
    for table in (made, *tables.values()):
        _tidy(table)
    for name, keys in _ONE_OF.items():
        tables[name]["oneOf"] = [{"required": [key]} for key in keys]
    tables["Volume"] |= _VOLUME
    for pattern, test in NOT_YET.items():
        for key in _properties(made, tables, pattern.split(".")):
            some = "" if test is every_value else "; some values"
            key["description"] = f"{key.get('description', '')} (not supported yet{some})".strip()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "appbox manifest",
        "oneOf": [{"required": ["image"]}, {"required": ["build"]}],
        **{key: made[key] for key in sorted(made) if key != "title"},
    }


def _tidy(table: dict[str, Any]) -> None:
    """Take out what pydantic derives from Python: titles, null as a value, and defaults that are whole tables."""
    table.pop("title", None)
    for key in table.get("properties", {}).values():
        key.pop("title", None)
        options = [option for option in key.get("anyOf", ()) if option != {"type": "null"}]
        if len(options) == 1:
            del key["anyOf"]
            key |= {**options[0], **key}
        elif options:
            key["anyOf"] = options
        for pattern, inner in key.pop("patternProperties", {}).items():
            key["propertyNames"] = {"pattern": pattern}
            key["additionalProperties"] = inner
        default = key.pop("default", None)
        if isinstance(default, int) and key.get("type") == "string":
            default = f"{default:04o}"  # permissions, which a manifest writes in octal
        if default not in (None, "") and not isinstance(default, dict):
            key["default"] = default


def _properties(top: dict[str, Any], tables: dict[str, Any], pattern: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the property that `pattern` names."""
    table, key = top, top
    for part in pattern:
        if part == "*":
            key = table = _table(key["additionalProperties"], tables)
        else:
            key = table["properties"][part]
            table = _table(key, tables)
    yield key


def _table(key: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    return tables[key["$ref"].rpartition("/")[2]] if "$ref" in key else key
