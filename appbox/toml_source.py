"""Where each key of a TOML document stands. Values come from `tomllib`, which does not say; this scanner does.

It follows the grammar of TOML 1.0 as far as finding keys needs and is exact for whatever `tomllib` accepts. It keeps a
stack of its own, so nesting costs no recursion.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Path = tuple[str | int, ...]

# A manifest needs seven levels (vars a few more). The limit keeps tomllib's quadratic work on dotted keys in bounds.
DEPTH_LIMIT = 64

_TRIVIA = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_BLANK = re.compile(r"[ \t]*+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]++")
_SCALAR = re.compile(r"[^,\]}#\r\n]++")
# A string of several lines ends at three quotes; one or two more in front of them belong to it.
_STRING = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+"{3,5}'
    r"|'''(?:[^']++|'(?!''))*+'{3,5}"
    r'|"(?:[^"\\\n]++|\\.)*+"'
    r"|'[^'\n]*+'",
    re.DOTALL,
)
_POSITION = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)\Z")


class SourceError(ValueError):
    """The text is not TOML, or nothing that a manifest may be. `line` counts from 1."""

    def __init__(self, message: str, line: int, hint: str = "", path: Path = ()) -> None:
        self.message, self.line, self.hint, self.path = message, line, hint, path
        super().__init__(message)


@dataclass(slots=True)
class _Frame:
    """One open container: the document, an array or an inline table."""

    kind: Literal["document", "array", "inline"]
    path: Path
    count: int = 0


@dataclass(slots=True)
class _Scan:
    """The state of one walk over a document."""

    text: str
    newlines: list[int]
    pos: int = 0
    lines: dict[Path, int] = field(default_factory=dict)
    # Paths that a header or a key has named itself; the others are only implied by a longer one.
    named: set[Path] = field(default_factory=set)
    # How many tables each array of tables has so far.
    arrays: dict[Path, int] = field(default_factory=dict)
    duplicate: SourceError | None = None


def load(text: str) -> dict[str, Any]:
    """Return the document that `text` holds; raise `SourceError` with the line where it is not TOML."""
    # A dotted key is a single line, so only lines with many dots can name something deep.
    if any(line.count(".") >= DEPTH_LIMIT for line in text.split("\n")):
        _scan_or_none(text)
    try:
        return tomllib.loads(text)
    except RecursionError:
        _scan_or_none(text)
        raise SourceError("is nested too deeply", 1, "flatten it") from None
    except ValueError as error:
        # TOMLDecodeError, and int() on thousands of digits, which has no position.
        raise _syntax_error(text, str(error)) from None


def positions(text: str) -> Mapping[Path, int]:
    """Return the line, counted from 1, of each table, key and list element of a document that `load` accepts."""
    return _scan(text).lines


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """Return the line of `path` or of the nearest thing around it; 1 when nothing of it is in the document."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 1)


def dotted(path: Path) -> str:
    """Return `path` as TOML writes it: `config."/etc/x".mode`, `process.args[1]`."""
    parts = (f"[{p}]" if isinstance(p, int) else f".{p if _BARE_KEY.fullmatch(p) else _quoted(p)}" for p in path)
    return "".join(parts).removeprefix(".")


def _quoted(key: str) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _syntax_error(text: str, message: str) -> SourceError:
    found = _POSITION.search(message)
    scan = _scan_or_none(text)
    if scan and scan.duplicate:
        return scan.duplicate
    if not found:
        return SourceError("holds a number of too many digits", _line_of_digits(text))
    words = message[: found.start()]
    line = int(found[1]) if found[1] else max(1, len(text.rstrip().split("\n")))
    hint = {"Invalid value": "text stands in quotes"}.get(words, "")
    return SourceError(f"not valid TOML: {words[:1].lower()}{words[1:]}", line, hint)


def _line_of_digits(text: str) -> int:
    found = re.search(r"[0-9_]{4000}", text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


class _NotTomlError(Exception):
    """The text is not TOML; tomllib says it better."""


def _scan_or_none(text: str) -> _Scan | None:
    """Walk `text` for the errors that only the scanner finds; None when it is not TOML."""
    try:
        return _scan(text)
    except _NotTomlError:
        return None


def _scan(text: str) -> _Scan:
    scan = _Scan(text, [found.start() for found in re.finditer("\n", text)])
    stack = [_Frame("document", ())]
    while True:
        scan.pos = _end(_TRIVIA, scan)
        char = text[scan.pos : scan.pos + 1]
        top = stack[-1]
        if not char:
            return scan
        if char == "," or (len(stack) > 1 and char in "]}"):
            scan.pos += 1
            if char != ",":
                stack.pop()
        elif top.kind == "array":
            place = (*top.path, top.count)
            top.count += 1
            _record(scan, place, scan.pos)
            _value(scan, stack, place)
        elif char == "[" and top.kind == "document":
            stack = [_Frame("document", _header(scan))]
        else:
            _value(scan, stack, _assignment(scan, top.path))


def _end(pattern: re.Pattern[str], scan: _Scan) -> int:
    found = pattern.match(scan.text, scan.pos)
    if found is None:
        raise _NotTomlError
    return found.end()


def _line(scan: _Scan, pos: int) -> int:
    return bisect_right(scan.newlines, pos - 1) + 1


def _record(scan: _Scan, path: Path, pos: int) -> None:
    scan.lines[path] = _line(scan, pos)
    scan.named.add(path)


def _value(scan: _Scan, stack: list[_Frame], path: Path) -> None:
    """Step over a scalar, or open the container that begins here."""
    char = scan.text[scan.pos : scan.pos + 1]
    if char in ("[", "{") and char:
        if len(stack) + len(path) > DEPTH_LIMIT:
            raise SourceError("is nested too deeply", _line(scan, scan.pos), "flatten it", path[:2])
        stack.append(_Frame("array" if char == "[" else "inline", path))
        scan.pos += 1
    else:
        scan.pos = _end(_STRING if char in ('"', "'") and char else _SCALAR, scan)


def _assignment(scan: _Scan, base: Path) -> Path:
    """Read `key =` below `base`, record it and return its path."""
    start = scan.pos
    keys = _keys(scan)
    scan.pos = _end(_BLANK, scan)
    if not scan.text.startswith("=", scan.pos):
        raise _NotTomlError
    scan.pos += 1
    scan.pos = _end(_BLANK, scan)
    path = base + keys
    _imply(scan, path, len(base), start)
    _check_duplicate(scan, path, start, "key given twice")
    _record(scan, path, start)
    return path


def _header(scan: _Scan) -> Path:
    """Read `[table]` or `[[table]]`, record it and return the path of what follows."""
    start = scan.pos
    brackets = 2 if scan.text.startswith("[[", scan.pos) else 1
    scan.pos += brackets
    scan.pos = _end(_BLANK, scan)
    keys = _keys(scan)
    scan.pos = _end(_BLANK, scan)
    if not scan.text.startswith("]" * brackets, scan.pos):
        raise _NotTomlError
    scan.pos += brackets
    path = _resolve(scan, keys[:-1]) + keys[-1:]
    _imply(scan, path, 0, start)
    if brackets == 1:
        # A header below an array of tables means its last table.
        _check_duplicate(scan, path, start, "table given twice")
        _record(scan, path, start)
        return path
    scan.lines.setdefault(path, _line(scan, start))
    scan.arrays[path] = scan.arrays.get(path, -1) + 1
    path = (*path, scan.arrays[path])
    _record(scan, path, start)
    return path


def _resolve(scan: _Scan, keys: Path) -> Path:
    path: Path = ()
    for key in keys:
        path = (*path, key)
        if path in scan.arrays:
            path = (*path, scan.arrays[path])
    return path


def _imply(scan: _Scan, path: Path, known: int, pos: int) -> None:
    for n in range(known + 1, len(path)):
        scan.lines.setdefault(path[:n], _line(scan, pos))


def _check_duplicate(scan: _Scan, path: Path, pos: int, message: str) -> None:
    if path in scan.named and scan.duplicate is None:
        hint = f"the first one is on line {scan.lines[path]}"
        scan.duplicate = SourceError(message, _line(scan, pos), hint, path)


def _keys(scan: _Scan) -> tuple[str, ...]:
    """Read a key of one or more parts."""
    keys: list[str] = []
    while True:
        keys.append(_key(scan))
        if len(keys) > DEPTH_LIMIT:
            raise SourceError("a key of too many parts", _line(scan, scan.pos), "flatten it")
        scan.pos = _end(_BLANK, scan)
        if not scan.text.startswith(".", scan.pos):
            return tuple(keys)
        scan.pos += 1
        scan.pos = _end(_BLANK, scan)


def _key(scan: _Scan) -> str:
    start = scan.pos
    if scan.text.startswith(('"', "'"), start):
        scan.pos = _end(_STRING, scan)
        return _unquoted(scan.text[start : scan.pos])
    scan.pos = _end(_BARE_KEY, scan)
    return scan.text[start : scan.pos]


def _unquoted(raw: str) -> str:
    if "\\" not in raw or raw[0] == "'":
        return raw[1:-1]
    try:
        # The escapes of a key are those of a string.
        return str(tomllib.loads(f"k = {raw}")["k"])
    except ValueError:
        raise _NotTomlError from None
