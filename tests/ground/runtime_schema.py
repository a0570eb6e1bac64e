"""config.json against the JSON schema of the OCI runtime specification itself, as Debian packages it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

SCHEMA = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema/config-schema.json")


@cache
def validator() -> Draft4Validator:
    """Return the schema with the files that it refers to."""

    def load(uri: str) -> Resource[Any]:
        return Resource.from_contents(
            json.loads((SCHEMA.parent / Path(uri).name).read_text()), default_specification=DRAFT4
        )

    registry: Registry[Any] = Registry(retrieve=load)  # type: ignore[call-arg]
    return Draft4Validator(json.loads(SCHEMA.read_text()), registry=registry)


def faults(spec: Any) -> list[str]:
    """Return what is wrong with a runtime configuration, one line each."""
    return [f"{list(e.absolute_path)}: {e.message}" for e in validator().iter_errors(spec)]
