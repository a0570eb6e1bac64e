"""The variables that a manifest gives to templates: plain data of any shape, frozen. Nothing here renders."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from appbox.fields import BadValueError, FrozenMap, kind, text

VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
DEPTH_LIMIT = 16
# Jinja2's grammar takes the first ones for itself, so a variable of that name could never be read; the last two are
# what appbox puts beside the variables.
_WORDS = """
and caller elif else false False if import in is kwargs loop none None not or recursive self super true True varargs
vars facts
"""
_TEMPLATE_WORDS = frozenset(_WORDS.split())


def variables(value: object) -> FrozenMap[str, Any]:
    """The variables of templates: strings, numbers, true and false, and lists and tables of these."""
    if not isinstance(value, Mapping):
        raise BadValueError(f"expected a table, got {kind(value)}")
    for key in value:
        _variable_name(key)
    return FrozenMap({key: _variable(found, (key,)) for key, found in value.items()})


def _variable_name(key: str) -> None:
    if not re.fullmatch(VARIABLE_PATTERN, key):
        hint = f"write {re.sub('[^A-Za-z0-9_]', '_', key)}" if re.match("[A-Za-z_]", key) else ""
        raise BadValueError("is not a variable name (letters, digits and _ after the first)", hint, at=(key,))
    if key in _TEMPLATE_WORDS:
        raise BadValueError("is a name that templates have already", "take another name", at=(key,))


def _variable(value: object, at: tuple[str | int, ...]) -> object:
    if len(at) > DEPTH_LIMIT:
        raise BadValueError(f"is nested more than {DEPTH_LIMIT} deep", "flatten it", at=at)
    if isinstance(value, Mapping):
        return FrozenMap({key: _variable(found, (*at, key)) for key, found in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_variable(found, (*at, i)) for i, found in enumerate(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise BadValueError("is not a finite number", "write it as a string", at=at)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise BadValueError("is out of range for a whole number of 64 bits", "write it as a string", at=at)
    if isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        raise BadValueError("is a date or time, which templates do not take", "write it as a string", at=at)
    try:
        return text(value)
    except BadValueError as error:
        raise BadValueError(error.message, error.hint, at=at) from None
