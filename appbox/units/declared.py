"""Units of the system that run an ordinary user's service say what they were made from.

Root writes such a unit for a user whom it does not trust, and an init script is a program that root executes. So the
first file of it ends in a line with the values of its `Unit`, and root takes nothing but what these, checked again, are
rendered to. Pure.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, fields
from typing import Any, Final

from appbox.units.model import Check, RestartLimit, StopSignal, Unit, When

_BEGIN: Final = "# "
_LIMIT: Final = 16_384
_PLAIN: Final[dict[str, type]] = {"str": str, "int": int, "bool": bool}


def line(unit: Unit) -> str:
    """Return the line that declares a unit, which every init system takes for a comment; it ends in a newline."""
    return f"{_BEGIN}{json.dumps(asdict(unit), ensure_ascii=True, sort_keys=True)}\n"


def unit_of(text: str) -> Unit:
    """Return the unit that a text of a file declares; ValueError when it declares none."""
    last = text.rstrip("\n").rpartition("\n")[2]
    if not last.startswith(f"{_BEGIN}{{") or len(last) > _LIMIT:
        raise ValueError("it does not say what it was made from")
    try:
        found = _unit(json.loads(last.removeprefix(_BEGIN)))
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("it does not say what it was made from") from error
    if line(found) != f"{last}\n":  # something left out, said twice, or written otherwise
        raise ValueError("it does not say what it was made from as appbox does")
    return found


def user_of(text: str) -> str:
    """Return whom a unit file of the system was made for, "" for one of root's or of somebody else's.

    Only root writes it, so that it is believed: after an administrator's change, and by another version of appbox.
    """
    for one in reversed(text.split("\n")):
        if one.startswith(f"{_BEGIN}{{") and len(one) <= _LIMIT:
            with contextlib.suppress(ValueError, KeyError, RecursionError):
                return str(json.loads(one.removeprefix(_BEGIN))["user"])
    return ""


def _unit(data: dict[str, Any]) -> Unit:
    if data.keys() != {field.name for field in fields(Unit)}:
        raise ValueError("it was made by another version of appbox")
    for field in fields(Unit):
        _refuse_other_kind(str(field.type), field.name, data[field.name])
    made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    made["restart_limit"] = RestartLimit(**data["restart_limit"])
    made["stop_signal"] = StopSignal(**data["stop_signal"])
    for name in ("schedule", "cron", "snapshots", "snapshots_cron"):
        made[name] = None if data[name] is None else When(**data[name])
    if data["check"] is not None:
        made["check"] = Check(**{**data["check"], "limit": RestartLimit(**data["check"]["limit"])})
    return Unit(**made)


def _refuse_other_kind(kind: str, name: str, value: Any) -> None:
    """Raise ValueError for a value that is of another type than its field; the values with types of their own look."""
    if kind == "tuple[str, ...]":
        right = isinstance(value, list) and all(isinstance(one, str) for one in value)
    else:
        right = kind not in _PLAIN or type(value) is _PLAIN[kind]
    if not right:
        raise ValueError(f"{name} cannot be {str(value)[:80]!r}")
