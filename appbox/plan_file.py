"""A plan written down, to be read by somebody and carried out later: text in, a `PlanFile` out, and back. Pure.

Whoever carries it out plans again and compares. Nothing of the text is done because it says so, but that the manifests
are read which it names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, cast

from appbox.errors import AppboxError, Refused
from appbox.oci.json_document import parse_object
from appbox.plan_values import Observed, Plan
from appbox.store.installed import Installed

SIZE_LIMIT: Final = 64 << 20
"""Bytes of a plan file: a thousand new services come to some 30 MB."""

MARK: Final = b'{\n "appbox_plan": 1'
"""How a plan file begins."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_INITS: Final = ("auto", "systemd", "openrc", "none")


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for: the manifests and directories, in a plan file by absolute paths, and how to plan them."""

    manifests: tuple[str, ...]
    root: str = "/"
    init: str = "auto"
    start: bool = True
    prune: bool = False
    locked: bool = False
    verify: bool = False
    retry: bool = False


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan with what it was made from.

    `files` maps what was read for it to SHA-256 digests, `state` what was found, in words, to the same. `plan` is its
    JSON data, see `plan_data`.
    """

    wish: Wish
    files: Mapping[str, str]
    state: Mapping[str, str]
    plan: Mapping[str, Any]


def text(file: PlanFile) -> bytes:
    """Return what is written down."""
    wish = {field.name: getattr(file.wish, field.name) for field in fields(Wish)}
    data = {"appbox_plan": 1, "wish": wish, "files": file.files, "state": file.state, "plan": file.plan}
    return f"{json.dumps(data, indent=1)}\n".encode("ascii")


def parse(data: bytes, where: str) -> PlanFile:
    """Return the plan file that `data` is; AppboxError when it is none."""
    try:
        found = parse_object(data, "the file", limit=SIZE_LIMIT)
    except Refused as error:
        raise _none(where, error.why or error.what) from error
    if set(found) != {"appbox_plan", "wish", "files", "state", "plan"} or found["appbox_plan"] != 1:
        raise _none(where, "it was not written by this version of appbox plan -o")
    for key in ("files", "state"):
        table = found[key]
        if not isinstance(table, dict) or not all(isinstance(v, str) and _SHA256.fullmatch(v) for v in table.values()):
            raise _none(where, f"{key} are not names with digests")
    if not isinstance(found["plan"], dict):
        raise _none(where, "it holds no plan")
    return PlanFile(_wish(found["wish"], where), found["files"], found["state"], found["plan"])


def _wish(table: Any, where: str) -> Wish:
    if not isinstance(table, dict) or set(table) != {field.name for field in fields(Wish)}:
        raise _none(where, "it does not say what was asked for")
    manifests = table["manifests"]
    if not isinstance(manifests, list) or not manifests or not all(map(_is_path, manifests)):
        raise _none(where, "its manifests are not absolute paths")
    flags = [table[name] for name in ("start", "prune", "locked", "verify", "retry")]
    if not _is_path(table["root"]) or table["init"] not in _INITS or not all(type(flag) is bool for flag in flags):
        raise _none(where, "what it asks for is not known")
    return Wish(tuple(manifests), table["root"], table["init"], *flags)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/") and "\0" not in value and len(value) < 4096


def _none(where: str, why: str) -> AppboxError:
    return AppboxError("is no plan", where=where, why=why, hint="make one with appbox plan -o FILE")


def differences(was: PlanFile, now: PlanFile) -> Iterator[str]:
    """Yield what is another one by now, in words; nothing when the same would be done from the same."""
    for path in sorted({*was.files, *now.files}):
        if how := _changed(was.files.get(path), now.files.get(path)):
            yield f"{path} {how}"
    changed = [name for name in sorted({*was.state, *now.state}) if was.state.get(name) != now.state.get(name)]
    # What is looked at only where something changes differs for that alone, and need not be said then.
    causes = [name for name in changed if not name.startswith(_FOLLOWING)]
    if shown := causes or (changed if was.files == now.files else []):
        yield f"the host has changed since: {', '.join(_telling(shown))}"
    elif not changed and (before := _doing(was.plan)) != (after := _doing(now.plan)):
        both = zip([*before, "nothing"], [*after, "nothing"], strict=False)
        one, other = next((pair for pair in both if pair[0] != pair[1]), ("", ""))
        yield f"what would be done is not the same: {_sentence(other)} instead of {_sentence(one)}"


def _telling(names: list[str]) -> list[str]:
    """Return what differs without the files of generations that are other ones by now: they go without saying."""
    whose = tuple(name.removeprefix("generation") for name in names if name.startswith("generation of "))
    return [name for name in names if name.startswith("generation of ") or not name.endswith(whose)]


def _changed(was: str | None, now: str | None) -> str:
    if was == now:
        return ""
    return "is new" if was is None else "is gone" if now is None else "has changed since"


def _doing(plan: Mapping[str, Any]) -> list[Any]:
    """Return the actions of a plan as JSON has them, from where they may be anything."""
    found = plan.get("actions")
    actions = cast("list[Any]", json.loads(json.dumps(found))) if isinstance(found, list) else []
    for action in actions:
        # A service that runs goes on writing.
        if isinstance(action, dict) and action.get("kind") == "copy-data":
            action |= {"size": -1, "sentence": str(action.get("how"))}
    return actions


def _sentence(action: object) -> str:
    return str(action.get("sentence", "?"))[:200] if isinstance(action, dict) else str(action)[:200]


def fingerprint(plan: Plan, facts: Mapping[str, str | int]) -> dict[str, str]:
    """Return what a plan was made from on its host, part by part: names for people, and digests."""
    found = {f"the host's {name}": _digest(facts[name]) for name in ("hostname", "init", "architecture")}
    for service in plan.services:
        name, desired = service.desired.name, service.desired
        found[f"image of {name}"] = _digest([desired.digest, desired.reference])
        wanted = [(f.path, f.mode, f.owner, _digest(f.data)) for f in desired.files]
        found[f"what the manifest of {name} comes to here"] = _digest([wanted, desired.units, desired.volumes])
        found |= _observed(name, service.observed)
    for removal in plan.removals:
        found |= _installed(removal.installed)
    return found


def _observed(name: str, observed: Observed) -> dict[str, str]:
    found: dict[str, str] = {}
    for version in (observed.current, observed.target):
        found |= _installed(version) if version is not None else {}
    found |= {f"unit {path.rpartition('/')[2]}": _digest(unit) for path, unit in observed.units.items()}
    rest = {f.name: getattr(observed, f.name) for f in fields(Observed) if f.name not in _ELSEWHERE}
    found |= {f"{_WORDS.get(part, part)} of {name}": _digest(value) for part, value in rest.items()}
    found[f"current version of {name}"] = _digest(observed.current.directory if observed.current else "")
    return found


_WORDS: Final = {
    "links": "start at boot",
    "running": "container",
    "armed": "timer",
    "stale": "age of the container",
    "unseen": "files in the container",
    "kept": "place of the data",
    "data": "volumes",
    "new_address": "address",
    "modes": "modes of the units",
    "newest": "newest generation",
    "versions": "generations",
    "cloning": "way to copy data",
    "own": "data in the way",
    "format": "format of the data",
    "own_format": "format of the data in the way",
    "unfinished": "unfinished migration",
    "trying": "state of the unit",
    "interrupted": "interrupted run",
    "begun_at": "beginning of the interrupted run",
    "upgraded": "interrupted upgrade",
    "came_from": "version before the interrupted run",
    "documents": "documents of the image",
    "displaced": "replaced version",
    "kept_base": "user ids of the data",
    "writes": "changes to the root file system",
    "writes_origin": "place of changes to the root file system",
    "untold": "peers in the network",
}
"""What parts of `Observed` are called."""
_ELSEWHERE: Final = frozenset({"current", "target", "units", "data_size"})
"""Parts that are compared in another way, or not at all: a service that runs goes on writing its data."""
_FOLLOWING: Final = (
    "what the manifest of ",
    *(
        f"{_WORDS[part]} of "
        for part in ("newest", "versions", "cloning", "own", "format", "own_format", "unfinished", "trying")
    ),
)
"""How parts begin that are looked at only where there is something to do, or that a changed file explains."""


def _installed(version: Installed) -> dict[str, str]:
    what = [version.generation, version.problem, version.carry, version.visible, version.moved]
    found = {f"generation of {version.directory}": _digest(what)}
    for path, stored in version.files.items():
        found[f"{path} of {version.directory}"] = _digest([stored.data, stored.mode, stored.owner])
    return found


def _digest(value: object) -> str:
    """Return the digest of a value's text, in which a set has an order."""
    data = value if isinstance(value, bytes) else repr(_ordered(value)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()


def _ordered(value: object) -> object:
    if isinstance(value, frozenset | set):
        return sorted(map(repr, value))
    if isinstance(value, Mapping):
        return sorted((repr(key), repr(_ordered(inner))) for key, inner in value.items())
    return value
