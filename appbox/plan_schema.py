"""The JSON Schema of `appbox plan --json`, made from the actions themselves. Pure."""

from __future__ import annotations

import types
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from appbox.actions import Action
from appbox.plan_data import SCHEMA

_TEXT = {"type": "string"}
_SIMPLE: dict[object, dict[str, Any]] = {
    str: _TEXT,
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}
_ANY = {"type": "array", "items": _TEXT}
_RESULTS = ("done", "unchanged", "failed", "not begun", "removed")


def schema() -> dict[str, Any]:
    """Return the schema as JSON data (draft 2020-12)."""
    # A class with slots is made twice, and the first one is there until it is collected.
    kinds = [kind for _, kind in sorted({kind.kind: kind for kind in _kinds(Action)}.items())]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "appbox plan",
        **_object(
            {
                "schema": {"const": SCHEMA},
                "changes": {"type": "boolean", "description": "Whether there is anything to do."},
                "facts": {"type": "object", "description": "The host that the plan was made for."},
                "services": {"type": "array", "items": {"$ref": "#/$defs/service"}},
                "actions": {"description": "All actions in the order in which they are done.", **_list_of("action")},
                "notes": {"type": "object", "additionalProperties": _ANY, "description": "Notes by service."},
                "host_notes": _ANY,
                "signed_by": {"type": "object", "description": "Who signed the images, by service."},
                "silent": {"type": "object", "description": "Registries that did not answer, and why."},
                "locks": {"type": "object", "additionalProperties": _ANY, "description": "Notes on locks by service."},
                "failed": {"type": "object", "description": "Services that cannot be planned, and why."},
                "done": {"type": "boolean", "description": "With apply: whether all was done."},
                "results": {"type": "array", "items": {"$ref": "#/$defs/result"}},
                "error": {"type": "object", "description": "The first failure."},
            },
            optional={"signed_by", "silent", "locks", "failed", "done", "results", "error"},
        ),
        "$defs": {
            "action": {"oneOf": [{"$ref": f"#/$defs/{kind.kind}"} for kind in kinds]},
            "service": _service(),
            "version": _object({"version": _TEXT, "digest": _TEXT, "generation": {"type": "integer"}}),
            "image": _object({"version": _TEXT, "image": _TEXT, "digest": _TEXT}),
            "result": _result(),
            **{kind.kind: _action(kind) for kind in kinds},
        },
    }


def _service() -> dict[str, Any]:
    return _object(
        {
            "name": _TEXT,
            "version": _TEXT,
            "file": {"type": ["string", "null"], "description": "The manifest."},
            "from": {"description": "What is current now.", **_or_null("version")},
            "to": {"description": "What will be current; null for a service that is removed.", **_or_null("image")},
            "actions": _list_of("action"),
            "restarts": {"type": "boolean", "description": "Whether it is stopped while it runs."},
            "downtime": {**_TEXT, "description": "What its users notice; a sentence about the service."},
            "data": _object(
                {"how": {"enum": ["none", "stays", "move", "clone", "copy"]}, "rollback": _TEXT},
            ),
        }
    )


def _result() -> dict[str, Any]:
    error = {"type": ["object", "null"], "description": "exit, what, where, why and hint, or exit and problems."}
    return _object({"name": _TEXT, "result": {"enum": list(_RESULTS)}, "error": error, "why": _TEXT})


def _action(kind: type[Action]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    own = {field.name: _type(hints[field.name]) for field in fields(kind)}
    words = {"kind": {"const": kind.kind}, "sentence": {**_TEXT, "description": "What is done, for people."}}
    return {"description": (kind.__doc__ or "").strip(), **_object({**words, **own})}


def _kinds(parent: type[Any]) -> list[type[Action]]:
    return [found for kind in parent.__subclasses__() for found in (kind, *_kinds(kind))]


def _type(hint: object) -> dict[str, Any]:
    """Return the schema of a field; TypeError for a type that no action has had so far."""
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(inside)}
    if origin in {types.UnionType, Union}:
        return {"anyOf": [_type(one) for one in inside]}
    if origin is tuple and inside[1:] == (...,):
        return {"type": "array", "items": _type(inside[0])}
    raise TypeError(f"no schema for {hint}")


def _object(properties: dict[str, Any], optional: set[str] | None = None) -> dict[str, Any]:
    required = [name for name in properties if name not in (optional or set())]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}


def _or_null(name: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]}
