"""What is wrong with a manifest's data, in the user's words. Turns pydantic's errors into findings; no positions here.

Nothing that pydantic says reaches the user: each kind of error has words of its own, and an unknown kind is a bug.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from appbox.fields import BadValueError, kind, nearest, quoted
from appbox.tables import Manifest
from appbox.toml_source import Path, dotted

# Looking for the nearest key takes a millisecond; nobody reads more hints than these.
_HINTS = 100
# What other tools call these keys.
_SYNONYMS = {
    "capabilities": "security.capabilities",
    "cap_add": "security.capabilities",
    "cap_drop": "security.capabilities",
    "cmd": "process.args",
    "command": "process.args",
    "content": "text",
    "cwd": "process.workdir",
    "depends_on": "service.requires",
    "destination": "path",
    "environment": "process.env",
    "extra_hosts": "network.hosts",
    "files": "config",
    "healthcheck": "health",
    "host_path": "source",
    "mounts": "volumes",
    "network_mode": "network.mode",
    "readonly": "read_only",
    "stop_grace_period": "process.stop_timeout",
    "tag": "version",
    "target": "path",
    "variables": "vars",
    "working_dir": "process.workdir",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong at `path`. It follows from `because` as well, where other keys are part of it."""

    path: Path
    message: str
    hint: str = ""
    because: tuple[Path, ...] = ()


def findings(error: ValidationError, data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each error of the validation of `data`."""
    for count, detail in enumerate(error.errors(include_url=False)):
        yield _finding(detail, _path(detail["loc"], data), helpful=count < _HINTS)


def _path(loc: tuple[int | str, ...], data: object) -> Path:
    """Return `loc` without the marks that pydantic puts behind the key of a mapping."""
    path: list[int | str] = []
    for part in loc:
        inside = _inside(data, part)
        if inside is None and part == "[key]":
            break
        data = inside
        path.append(part)
    return tuple(path)


def _inside(data: object, part: int | str) -> object:
    """Return what stands at `part` of `data`; None for nothing, which TOML has no value for."""
    if isinstance(data, Mapping):
        return data.get(part)
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None


def _finding(detail: ErrorDetails, path: Path, *, helpful: bool) -> Finding:
    found, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return _own(context["error"], path)
        case "missing":
            return Finding(path, "is missing", _missing_hint(path))
        case "extra_forbidden":
            return Finding(path, "unknown key", _unknown_hint(path) if helpful else "")
        case "literal_error":
            return _literal(found, context["expected"], path)
        case "bool_type":
            wish = found.lower() if isinstance(found, str) else ""
            hint = f"write {wish}" if wish in ("true", "false") else ""
            return Finding(path, f"expected true or false, got {kind(found)}", hint)
        case "tuple_type":
            hint = f"write [{quoted(found)}]" if isinstance(found, str) else ""
            return Finding(path, f"expected a list, got {kind(found)}", hint)
        case "model_type" | "model_attributes_type" | "dict_type" | "mapping_type":
            return Finding(path, f"expected a table, got {kind(found)}", _table_hint(path, found))
        case other:
            msg = f"no words for pydantic's {other}"
            raise AssertionError(msg)


def _own(error: BadValueError, path: Path) -> Finding:
    return Finding((*path, *error.at), error.message, error.hint)


def _literal(found: object, expected: str, path: Path) -> Finding:
    # pydantic writes 'a', 'b' or 'c'.
    choices = expected.replace(" or ", ", ").replace("'", "").split(", ")
    listed = ", ".join(quoted(choice) for choice in choices)
    if not isinstance(found, str):
        return Finding(path, f"expected one of {listed}, got {kind(found)}")
    return Finding(path, f"{quoted(found)} is not one of {listed}", nearest(found, choices))


def _missing_hint(path: Path) -> str:
    examples: dict[Path, str] = {
        ("name",): 'name the service, as in name = "valkey"',
        ("version",): 'give the image\'s tag, as in version = "9.0.0"',
    }
    if path[0] == "volumes" and path[-1] == "path":
        return 'say where it is mounted in the container, as in path = "/data"'
    return examples.get(path, "")


def _table_hint(path: Path, found: object) -> str:
    if isinstance(found, list):
        return "write [table] with single brackets" if found and isinstance(found[0], Mapping) else ""
    if path[0] == "volumes" and len(path) == 2:
        return f"write [{dotted(path)}] and its path"
    if path[0] == "config" and len(path) == 2:
        return f"write [{dotted(path)}] and its text, file or template"
    return f"write [{dotted(path)}]" if len(path) == 1 else ""


def _unknown_hint(path: Path) -> str:
    """Say which key was meant: one of the same name elsewhere, the nearest here, or another tool's word for it."""
    key = str(path[-1])
    here = _keys_at(path[:-1])
    if instead := _SYNONYMS.get(key):
        last = instead.rpartition(".")[2]
        return f"did you mean {quoted(last if last in here else instead)}?"
    places = [place for place in _PLACES.get(key, ()) if place != _pattern(path[:-1])]
    if places:
        return f"it belongs {_place(places)}"
    if close := nearest(key, here):
        return close
    if far := nearest(key, _PLACES):
        return far
    return f"known here: {', '.join(sorted(here))}" if here else ""


def _place(places: list[Path]) -> str:
    if () in places:
        return "at the top, before the first [table]"
    named = (tuple("NAME" if part == "*" else part for part in place) for place in places)
    return " or ".join(f"in [{dotted(place)}]" for place in named)


def _pattern(path: Path) -> Path:
    """Return `path` with the names that the user chooses replaced by `*`."""
    return tuple("*" if n == 1 and path[0] in ("volumes", "config", "secrets") else p for n, p in enumerate(path))


def _keys_at(path: Path) -> frozenset[str]:
    return _TABLES.get(_pattern(path), frozenset())


def _model_of(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    """Return the table that a field holds, and whether it holds several by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    arguments = getattr(annotation, "__args__", ())
    several = getattr(annotation, "__origin__", None) is Mapping
    for argument in arguments[-1:] if several else arguments:
        model, _ = _model_of(argument)
        if model:
            return model, several
    return None, False


def _tables(model: type[BaseModel], path: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """Yield each table's path and its keys."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    yield path, frozenset(fields)
    for key, field in fields.items():
        inner, several = _model_of(field.annotation)
        if inner:
            yield from _tables(inner, (*path, key, "*") if several else (*path, key))


_TABLES = dict(_tables(Manifest, ()))
_PLACES: dict[str, list[Path]] = {}
for _where, _known in _TABLES.items():
    for _word in _known:
        _PLACES.setdefault(_word, []).append(_where)
