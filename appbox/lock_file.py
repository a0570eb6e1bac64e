"""`appbox.lock`: which image each version of the manifests beside it means. Text to values and back. Pure.

One table for each service, sorted, its keys in one order, so that a change is a change of few lines. Where an overlay
gives a service another image or version for one host, it has a table for each. The digest is that of the index where
there is one: it says for all platforms what their images are, so that one lock serves hosts of several architectures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from appbox import constraints, fields, toml_source, toml_text
from appbox.errors import ManifestError, Problem, UsageError
from appbox.fields import BadValueError, kind, nearest, quoted
from appbox.oci.platform import Platform
from appbox.oci.reference import parse_image
from appbox.toml_source import Path, SourceError

NAME: Final = "appbox.lock"
"""The lock's file name, beside the manifests."""

SIZE_LIMIT: Final = 8 << 20
"""Bytes of a lock; 10,000 services need 4 MB."""

FORMAT: Final = 1

_HEAD: Final = (
    "# Which images the versions in the manifests beside this file mean. Written by appbox lock; keep it in git.\n"
    f"format = {FORMAT}\n"
)
_MEND: Final = "take it back from git, or delete it and run appbox lock"
_KEYS: Final = ("name", "image", "version", "tag", "digest", "platforms", "locked", "offline")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one version of a service means. `version` is the manifest's, a tag or a constraint; `locked` is when.

    `digest` is that of the index where there is one; `platforms` are those that it has images for, sorted. `offline`:
    its image was brought along by `appbox import`, and no registry is asked whether the tag means another one by now.
    """

    name: str
    image: str
    version: str
    tag: str
    digest: str
    platforms: tuple[str, ...]
    locked: datetime
    offline: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is sorted by, and what no other entry has."""
        return self.name, self.image, self.version

    def answers(self, image: str, version: str) -> bool:
        """Return whether this is what a manifest with that image and version means."""
        return parse_image(self.image) == parse_image(image) and satisfies(self.tag, version)

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as JSON data."""
        return {
            **{key: getattr(self, key) for key in _KEYS[:5]},
            "platforms": list(self.platforms),
            "locked": _moment(self.locked),
            **({"offline": True} if self.offline else {}),
        }


def satisfies(tag: str, version: str) -> bool:
    """Return whether a tag is what a manifest's version, a tag or a constraint, asks for."""
    return constraints.parse(version).allows(tag) if constraints.is_constraint(version) else tag == version


@dataclass(frozen=True, slots=True)
class LockFile:
    """The entries of one lock, sorted. `file` is its path as problems name it."""

    file: str
    entries: tuple[Entry, ...] = ()
    _by_name: Mapping[str, list[Entry]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name: dict[str, list[Entry]] = {}
        for entry in self.entries:
            by_name.setdefault(entry.name, []).append(entry)
        object.__setattr__(self, "_by_name", by_name)

    def of(self, name: str) -> list[Entry]:
        """Return the entries of a service."""
        return list(self._by_name.get(name, []))

    def answer(self, name: str, image: str, version: str) -> Entry | None:
        """Return what a service's version means: the entry made for it, else the newest one that answers it, or None.

        So a constraint may be loosened without locking anew.
        """
        found = [entry for entry in self.of(name) if entry.answers(image, version)]
        exact = [entry for entry in found if entry.version == version]
        if exact or not constraints.is_constraint(version):
            return next(iter(exact or found), None)
        newest = constraints.parse(version).newest(entry.tag for entry in found)
        return next((entry for entry in found if entry.tag == newest), None)

    def text(self) -> str:
        """Return the lock as it is written."""
        return "".join([_HEAD, *map(_table, self.entries)])


def lock_file(file: str, entries: Iterable[Entry]) -> LockFile:
    """Return a lock with these entries, in their order."""
    return LockFile(file, tuple(sorted(entries, key=lambda entry: entry.key)))


def _table(entry: Entry) -> str:
    lines = [f"{key} = {toml_text.value(getattr(entry, key))}\n" for key in _KEYS[:6]]
    last = [f"locked = {_moment(entry.locked)}\n", *(["offline = true\n"] if entry.offline else [])]
    return "".join(["\n[[service]]\n", *lines, *last])


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str, file: str) -> LockFile:
    """Return the lock that `text` holds; ManifestError with every problem, each with file, line and key."""
    try:
        data = toml_source.load(text)
    except SourceError as error:
        place = toml_source.dotted(error.path)
        raise ManifestError([Problem(file, error.line, place, error.message, error.hint or _MEND)]) from None
    found: list[tuple[Path, str, str]] = []
    entries = _entries(data, found)
    if found:
        lines = toml_source.positions(text)
        raise ManifestError(
            [
                Problem(file, toml_source.line_of(lines, path), toml_source.dotted(path), message, hint or _MEND)
                for path, message, hint in found
            ]
        )
    return lock_file(file, entries)


def _entries(data: Mapping[str, Any], found: list[tuple[Path, str, str]]) -> list[Entry]:
    if data.get("format") != FORMAT or isinstance(data["format"], bool):
        newer = isinstance(data.get("format"), int) and data["format"] > FORMAT
        what = "was made by a newer appbox" if newer else f"expected format = {FORMAT}"
        found.append((("format",), what, "use that one" if newer else ""))
        return []
    found += [((key,), "unknown key", "") for key in data if key not in ("format", "service")]
    tables = data.get("service", [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        found.append((("service",), f"expected tables, got {kind(tables)}", ""))
        return []
    entries: dict[tuple[str, str, str], Entry] = {}
    for number, table in enumerate(tables):
        entry = _entry(table, ("service", number), found)
        if entry and entry.key in entries:
            found.append((("service", number), f"{entry.name} stands here twice with the same image and version", ""))
        elif entry:
            entries[entry.key] = entry
    return list(entries.values())


def _entry(table: Mapping[str, Any], at: Path, found: list[tuple[Path, str, str]]) -> Entry | None:
    before = len(found)
    found += [((*at, key), "unknown key", nearest(key, _KEYS)) for key in table if key not in _KEYS]
    values: dict[str, Any] = {}
    for key, read in _READERS.items():
        if key not in table and key in _OPTIONAL:
            continue
        if key not in table:
            found.append(((*at, key), "is missing", ""))
            continue
        try:
            values[key] = read(table[key])
        except BadValueError as error:
            found.append(((*at, key, *error.at), error.message, ""))
    if len(found) > before:
        return None
    entry = Entry(**values)
    if not satisfies(entry.tag, entry.version):
        found.append(((*at, "tag"), f"{quoted(entry.tag)} does not answer the version {quoted(entry.version)}", ""))
    return entry


def _image(value: object) -> str:
    text = fields.line(value, "the name of an image")
    try:
        parse_image(text)
    except UsageError as error:
        raise BadValueError(error.what) from None
    return text


def _platforms(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadValueError(f"expected a list, got {kind(value)}")
    for number, one in enumerate(value):
        try:
            Platform.parse(fields.text(one))
        except (UsageError, BadValueError) as error:
            what = error.message if isinstance(error, BadValueError) else error.what
            raise BadValueError(what, at=(number,)) from None
    return tuple(value)


def _locked(value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise BadValueError("expected a time like 2026-01-31T14:30:00Z")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadValueError(f"expected true or false, got {kind(value)}")
    return value


_READERS: Final = {
    "name": fields.name,
    "image": _image,
    "version": fields.version,
    "tag": fields.tag,
    "digest": fields.digest,
    "platforms": _platforms,
    "locked": _locked,
    "offline": _flag,
}
_OPTIONAL: Final = {"offline"}
