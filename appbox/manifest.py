"""A manifest: text in, a frozen `Manifest` out, or every problem that it has. Pure: no file is read here.

In three steps: `toml_source` and the models of `tables` say what each key may hold, `rules` what goes together, and
`support` what is not acted on yet.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from pydantic import ValidationError

from appbox import overlays, rules, support, toml_source
from appbox.document import Document, Overlay
from appbox.errors import ManifestError, Problem
from appbox.findings import Finding, findings
from appbox.tables import Config, Manifest, Network, Process, Security, Service, Volume
from appbox.toml_source import Path, SourceError

__all__ = [
    "Config",
    "Manifest",
    "Network",
    "Process",
    "Security",
    "Service",
    "Volume",
    "as_table",
    "parse",
    "parse_bytes",
]

SIZE_LIMIT = 1 << 20
"""Bytes of one manifest."""


def parse_bytes(data: bytes, *, file: str, overlay: Overlay | None = None) -> Manifest:
    """Return the manifest that the bytes of `file` hold; raise `ManifestError` as `parse` does."""
    return parse(decode(data, file=file), file=file, overlay=overlay)


def decode(data: bytes, *, file: str) -> str:
    """Return the text of a manifest or an overlay; ManifestError when it is too large or no text.

    TOML is UTF-8; a byte order mark in front is allowed and means nothing.
    """
    if len(data) > SIZE_LIMIT:
        raise _refuse(file, 0, f"is larger than {SIZE_LIMIT} bytes", "put large texts into files with [config]")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _refuse(file, 1, "is UTF-16", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refuse(file, data.count(b"\n", 0, error.start) + 1, "is not UTF-8", "save it as UTF-8") from None


def parse(text: str, *, file: str, overlay: Overlay | None = None) -> Manifest:
    """Return the manifest that `text` holds; raise `ManifestError` with every problem, each with line and key.

    `file` is only what problems name. With an `overlay`, what it says for one host counts more.
    """
    try:
        text.encode()
        data = toml_source.load(text)
    except UnicodeEncodeError as error:
        raise _refuse(file, text.count("\n", 0, error.start) + 1, "is not Unicode text", "save it as UTF-8") from None
    except SourceError as error:
        raise _located_refusal(file, error) from None
    data = overlays.merge(data, overlay) if overlay else data
    document = Document(file, text, overlay, str(data.get("name", "")))
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise ManifestError(_problems(_everything(error, data), document)) from None
    if found := _refusals(manifest):
        raise ManifestError(_problems(found, document))
    return manifest


def as_table(manifest: Manifest) -> dict[str, Any]:
    """Return `manifest` as data for TOML or JSON, without what is default; it validates to an equal manifest."""
    return manifest.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _everything(error: ValidationError, data: dict[str, Any]) -> list[Finding]:
    """Return what `error` says and what else is wrong with the parts that it does not concern."""
    found = list(findings(error, data))
    try:
        rest = Manifest.model_validate(_without(data, [finding.path for finding in found]))
    except ValidationError:
        return found
    broken = {finding.path for finding in found}
    around = {path[:n] for path in broken for n in range(len(path))}
    return found + [finding for finding in _refusals(rest) if not _touches(finding, broken, around)]


def _refusals(manifest: Manifest) -> list[Finding]:
    """Return what is wrong with a manifest whose keys and values are right."""
    broken = list(rules.broken(manifest))
    # What cannot be is not also "not yet".
    never = {finding.path for finding in broken}
    return broken + [finding for finding in support.unsupported(manifest) if finding.path not in never]


def _touches(finding: Finding, broken: Container[Path], around: Container[Path]) -> bool:
    """Return whether a broken key, or one around or in it, is part of `finding`, which then may be wrong itself."""
    return any(
        path in around or any(path[: n + 1] in broken for n in range(len(path)))
        for path in (finding.path, *finding.because)
    )


# Stand-ins for what must be there, so that the rest can be looked at; no finding about them is shown.
_REQUIRED = {"name": "x", "image": "docker.io/library/x", "version": "0"}
_ENTRIES = ("volumes", "config", "secrets")


def _without(data: dict[str, Any], broken: Iterable[Path]) -> dict[str, Any]:
    """Return `data` without the keys of `broken`, whole entries and tables where one key does not stand alone."""
    rest = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for path in broken:
        if len(path) == 1 or path[0] in ("health", "build", "vars") or not isinstance(rest.get(str(path[0])), dict):
            rest.pop(str(path[0]), None)
        else:
            rest[str(path[0])].pop(path[1], None)
    needed = {key: value for key, value in _REQUIRED.items() if key in data or key != "image"}
    return needed | rest


def _problems(found: Iterable[Finding], document: Document) -> list[Problem]:
    try:
        return document.problems((f.path, f.message, f.hint) for f in found)
    except SourceError as error:
        return list(_located_refusal(document.file, error).problems)


def _refuse(file: str, line: int, message: str, hint: str) -> ManifestError:
    return ManifestError([Problem(file, line, "", message, hint)])


def _located_refusal(file: str, error: SourceError) -> ManifestError:
    return ManifestError([Problem(file, error.line, toml_source.dotted(error.path), error.message, error.hint)])
