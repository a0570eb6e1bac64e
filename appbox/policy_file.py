"""A policy file: text in, a `PolicyFile` out, or every problem that it has. Pure: its keys are read by who calls.

The format is that of a manifest's `[policy]`, with tables for parts of registries:

    default = "allow"                       # or "refuse": only what registries or a table names
    registries = ["docker.io", "ghcr.io/acme"]
    [[image]]
    prefix = "docker.io/valkey"
    signed_by = ["keys/valkey.pub"]
    require_digest = true
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from appbox import toml_source
from appbox.document import Document
from appbox.errors import ManifestError, Problem
from appbox.fields import BadValueError, kind, nearest, quoted, registry_prefix
from appbox.oci.public_key import BadKeyError, PublicKey
from appbox.policy import PolicyFile, Table, file_prefix
from appbox.toml_source import Path, SourceError

SIZE_LIMIT: Final = 1 << 20
"""Bytes of a policy file."""

ReadKey = Callable[[str], PublicKey]
"""Returns the key in a file that the policy names; raises `BadKeyError`."""

_COMMON: Final = ("signed_by", "signed_as", "require_digest")
_TOP: Final = ("default", "registries", "image", *_COMMON)
_IMAGE: Final = ("prefix", "unsigned", *_COMMON)


class _Reader:
    """One file while it is read; `problems` fills up."""

    def __init__(self, document: Document, read_key: ReadKey) -> None:
        self.document, self.read_key = document, read_key
        self.problems: list[Problem] = []

    def wrong(self, path: Path, message: str, hint: str = "") -> None:
        self.problems.append(self.document.problem(path, message, hint))

    def unknown(self, table: Mapping[str, Any], at: Path, known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                self.wrong((*at, key), "unknown key", nearest(key, known) or f"known here: {', '.join(sorted(known))}")

    def flag(self, table: Mapping[str, Any], at: Path, key: str) -> bool | None:
        value = table.get(key)
        if value is not None and not isinstance(value, bool):
            self.wrong((*at, key), f"expected true or false, got {kind(value)}")
            return None
        return value

    def prefix(self, value: object, path: Path) -> str:
        try:
            found = file_prefix(value) if isinstance(value, str) else None
            return found or registry_prefix(value)
        except BadValueError as error:
            self.wrong(path, error.message, error.hint)
            return ""

    def listed(self, table: Mapping[str, Any], at: Path, key: str) -> list[tuple[Path, object]] | None:
        """Return the elements of a list with their paths; None for no list. An empty one is refused."""
        value, path = table.get(key), (*at, key)
        if value is None:
            return None
        if not isinstance(value, list):
            hint = f"write [{quoted(value)}]" if isinstance(value, str) else ""
            self.wrong(path, f"expected a list, got {kind(value)}", hint)
            return None
        if not value:
            self.wrong(path, "is empty, which could mean all or none", "take it out, or name something")
        return [((*path, index), one) for index, one in enumerate(value)]

    def keys(self, table: Mapping[str, Any], at: Path) -> tuple[PublicKey, ...] | None:
        found = self.listed(table, at, "signed_by")
        return None if found is None else tuple(key for path, one in found if (key := self.key(one, path)))

    def key(self, value: object, path: Path) -> PublicKey | None:
        if not isinstance(value, str) or not value or not value.isprintable():
            self.wrong(path, f"expected the path of a public key, got {quoted(value)}")
            return None
        try:
            return self.read_key(value)
        except BadKeyError as error:
            self.wrong(path, f"{quoted(value)} {error.message}", error.hint)
            return None

    def name(self, table: Mapping[str, Any], at: Path) -> str | None:
        value = table.get("signed_as")
        if value is not None and not table.get("signed_by"):
            self.wrong((*at, "signed_as"), "stands without signed_by", "say whose signatures are meant")
        return None if value is None else self.prefix(value, (*at, "signed_as"))


def parse(data: bytes, file: str, read_key: ReadKey) -> PolicyFile:
    """Return the policy in the bytes of `file`; raise `ManifestError` with every problem, each with line and key."""
    try:
        text = data.decode("utf-8-sig")
        table = toml_source.load(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError([Problem(file, line, "", "is not UTF-8", "save it as UTF-8")]) from None
    except SourceError as error:
        raise ManifestError(
            [Problem(file, error.line, toml_source.dotted(error.path), error.message, error.hint)]
        ) from None
    reader = _Reader(Document(file, text), read_key)
    found = _file(reader, table, file)
    if reader.problems:
        raise ManifestError(reader.problems)
    return found


def _file(reader: _Reader, table: Mapping[str, Any], file: str) -> PolicyFile:
    reader.unknown(table, (), _TOP)
    default = table.get("default", "allow")
    if default not in ("allow", "refuse"):
        reader.wrong(("default",), f'{quoted(default)} is not one of "allow", "refuse"')
    registries = reader.listed(table, (), "registries") or []
    return PolicyFile(
        origin=file,
        registries=tuple(reader.prefix(one, path) for path, one in registries),
        signed_by=reader.keys(table, ()) or (),
        signed_as=reader.name(table, ()) or "",
        require_digest=reader.flag(table, (), "require_digest") or False,
        refuse=default == "refuse",
        images=_images(reader, table.get("image", [])),
    )


def _images(reader: _Reader, tables: object) -> tuple[Table, ...]:
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        reader.wrong(("image",), f"expected tables, got {kind(tables)}", "write [[image]] and its prefix")
        return ()
    found: dict[str, Table] = {}
    for index, table in enumerate(tables):
        one = _image(reader, table, ("image", index))
        if one.prefix in found:
            reader.wrong(("image", index, "prefix"), f"{quoted(one.prefix)} has a table already", "keep one of them")
        elif one.prefix:
            found[one.prefix] = one
    return tuple(found.values())


def _image(reader: _Reader, table: Mapping[str, Any], at: Path) -> Table:
    reader.unknown(table, at, _IMAGE)
    if "prefix" not in table:
        reader.wrong((*at, "prefix"), "is missing", 'say which images are meant, as in prefix = "docker.io/library"')
    unsigned = reader.flag(table, at, "unsigned")
    if unsigned and "signed_by" in table:
        reader.wrong((*at, "unsigned"), "stands beside signed_by", "keep one of them")
    return Table(
        prefix=reader.prefix(table["prefix"], (*at, "prefix")) if "prefix" in table else "",
        signed_by=() if unsigned else reader.keys(table, at),
        signed_as=reader.name(table, at),
        require_digest=reader.flag(table, at, "require_digest"),
    )
