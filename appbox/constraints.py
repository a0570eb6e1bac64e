"""Version constraints: which tags of a repository answer `version = "~9.0"`, and which of them is the newest. Pure.

    constraint  = part *( "," part )              all parts must hold; blanks around a part and behind its operator
    part        = "*" [ suffix ]                  any version
                | operator version
    operator    = "~" | "^" | ">" | ">=" | "<" | "<=" | "=" | "==" | "!="
    version     = [ "v" ] number *( "." number ) [ early ] [ suffix ]
    early       = [ "-" | "." | "_" ] ( "dev" | "pre" | "alpha" | "a" | "beta" | "b" | "rc" ) [ [ "-" | "." ] numbers ]
    suffix      = ( "-" | "_" ) any characters of a tag

What they mean is what npm (node-semver, "Ranges") and Cargo ("Specifying Dependencies") have made people expect:

- A version of few numbers stands for all that begin with it: `=9` and `!=9` mean all of 9, `>9` is 10 and later, `<=9`
  takes 9.4. `~9.0` is 9.0 and what begins with it, `~9.0.2` is from 9.0.2 to below 9.1, `~9` all of 9. `^9.1` is from
  9.1 to below 10, `^0.3.1` to below 0.4: the first number that is not zero stays.
- A tag that moves counts for all that it may come to mean: the tag `9` does not answer `~9.0`, for it may be a 9.1, but
  it does answer `>=9,<10`, unless there is a more exact one.
- An early version answers only where the constraint names one of the same numbers: `>=9.1-rc1` takes 9.1-rc2, 9.1 and
  9.2, not 9.2-rc1.
- A suffix names a variant, and only a constraint with the same one takes it: `~9.0-alpine` takes 9.0.1-alpine, and
  neither 9.0.1 nor 9.0.1-alpine3.22; `~9.0` takes 9.0.1 alone. A suffix of one part is that of all.
- A first number of six digits is a date or the number of a build, which only a constraint written like that takes.
- `v9.0` and `9.0` are the same; of two such tags the one written like the constraint is taken.
- Every other tag (`latest`, `bookworm`) is no version and answers no constraint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from appbox.tag_order import EARLY

PATTERN: Final = (
    r"^[ \t]*(\*([-_][A-Za-z0-9._-]+)?|([~^]|[<>]=?|!=|==?)[ \t]*[vV]?[0-9][A-Za-z0-9._-]*)[ \t]*"
    r"(,[ \t]*(\*([-_][A-Za-z0-9._-]+)?|([~^]|[<>]=?|!=|==?)[ \t]*[vV]?[0-9][A-Za-z0-9._-]*)[ \t]*)*$"
)
"""About what a constraint looks like, for the JSON schema."""

_TAG: Final = re.compile(
    r"(?P<v>[vV])?(?P<numbers>[0-9]+(?:\.[0-9]+)*)"
    rf"(?:[-._]?(?P<early>{'|'.join(EARLY)})(?:[-.]?(?P<count>[0-9]+(?:\.[0-9]+)*))?)?"
    r"(?:[-_](?P<suffix>[A-Za-z0-9._-]+))?",
    re.IGNORECASE | re.ASCII,
)
_PART: Final = re.compile(r"(?P<operator>\*|[~^]|[<>]=?|!=|==?)[ \t]*(?P<version>.*)", re.DOTALL)
_BLANKS: Final = " \t"
_DATES: Final = 100_000
"""The first number from which on a tag is a date or the number of a build: 20250131."""

LENGTH_LIMIT: Final = 256
"""Characters of a constraint."""


class ConstraintError(ValueError):
    """A text that is no constraint."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


class Point(NamedTuple):
    """A place in the order of versions: numbers without zeros at the end, and how far it is from being out."""

    numbers: tuple[int, ...]
    stage: tuple[int, ...]


_OUT: Final = (1,)
_BEFORE_ANY: Final = (0,)
"""The stage before every early version of the same numbers."""
_FIRST: Final = Point((), ())
_LAST: Final = Point((1 << 500,), ())  # a tag has up to 128 digits


class Range(NamedTuple):
    """The versions from `low` on and below `high`."""

    low: Point
    high: Point

    def holds(self, other: Range) -> bool:
        """Return whether all of `other` lies in here."""
        return self.low <= other.low and other.high <= self.high

    def touches(self, other: Range) -> bool:
        """Return whether any of `other` lies in here."""
        return self.low < other.high and other.low < self.high


@dataclass(frozen=True, slots=True)
class Version:
    """A tag that is a version. `stage` is empty for one that is out; `suffix` is without what stands before it."""

    tag: str
    numbers: tuple[int, ...]
    stage: tuple[int, ...] = ()
    suffix: str = ""
    has_v: bool = False

    @property
    def point(self) -> Point:
        """Where it begins."""
        return Point(_canonical(self.numbers), self.stage or _OUT)

    @property
    def range(self) -> Range:
        """All versions that it stands for."""
        if self.stage:
            return Range(self.point, Point(self.point.numbers, (*self.stage, -1)))
        return Range(self.point, _after(self.numbers))

    @property
    def dated(self) -> bool:
        """Whether it is rather a date or the number of a build."""
        return self.numbers[0] >= _DATES


def version(tag: str) -> Version | None:
    """Return what a tag says as a version; None when it is none."""
    found = _TAG.fullmatch(tag)
    if not found:
        return None
    early = found["early"]
    stage = (0, EARLY.index(early.lower()), *_numbers(found["count"] or "")) if early else ()
    return Version(tag, _numbers(found["numbers"]), stage, found["suffix"] or "", found["v"] is not None)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")) if text else ()


def _canonical(numbers: tuple[int, ...]) -> tuple[int, ...]:
    end = len(numbers)
    while end and not numbers[end - 1]:
        end -= 1
    return numbers[:end]


def _after(numbers: tuple[int, ...]) -> Point:
    """Return the end of all versions that begin with `numbers`."""
    return Point((*numbers[:-1], numbers[-1] + 1), _BEFORE_ANY)


@dataclass(frozen=True, slots=True)
class Constraint:
    """Which versions are wanted: those within `range`, without what `excluded` touches.

    `early` are the numbers of which early versions are wanted, too.
    """

    text: str
    range: Range
    excluded: tuple[Range, ...] = ()
    early: frozenset[tuple[int, ...]] = frozenset()
    suffix: str = ""
    dated: bool = False
    has_v: bool = False

    def allows(self, tag: str) -> bool:
        """Return whether a tag answers the constraint."""
        found = version(tag)
        return found is not None and self._takes(found)

    def _takes(self, found: Version) -> bool:
        if found.suffix != self.suffix or found.dated != self.dated:
            return False
        if found.stage and _canonical(found.numbers) not in self.early:
            return False
        return self.range.holds(found.range) and not any(one.touches(found.range) for one in self.excluded)

    def newest(self, tags: Iterable[str]) -> str | None:
        """Return the newest tag that answers the constraint, of those that move the most exact one; None for none."""
        fitting = [found for tag in tags if (found := version(tag)) and self._takes(found)]
        best = max(fitting, key=lambda v: (v.point, len(v.numbers), v.has_v is self.has_v, v.tag), default=None)
        return best.tag if best else None


def is_constraint(text: str) -> bool:
    """Return whether a manifest's version is meant as a constraint; no tag looks like one."""
    return text.lstrip(_BLANKS)[:1] in tuple("*~^<>=!") or "," in text or "*" in text


@lru_cache(maxsize=1024)
def parse(text: str) -> Constraint:
    """Return the constraint that `text` spells; raise `ConstraintError` with what is wrong and the way out."""
    if len(text) > LENGTH_LIMIT:
        raise ConstraintError(f"is longer than {LENGTH_LIMIT} characters")
    parts = [_part(part.strip(_BLANKS)) for part in text.split(",")]
    versions = [found for _, found in parts if found is not None]
    suffixes = {found.suffix for found in versions} - {""}
    if len(suffixes) > 1:
        raise ConstraintError(f"no version has the suffixes {' and '.join(sorted(suffixes))} both", "take one of them")
    bounds = [_bounds(operator, found) for operator, found in parts if operator != "!="]
    whole = Range(max((one.low for one in bounds), default=_FIRST), min((one.high for one in bounds), default=_LAST))
    if whole.low >= whole.high:
        raise ConstraintError("no version can be all of that", 'a range reads ">=9,<10"')
    numbered = [found for found in versions if found.numbers]
    return Constraint(
        text=text,
        range=whole,
        excluded=tuple(found.range for operator, found in parts if operator == "!=" and found),
        early=frozenset(_canonical(found.numbers) for found in versions if found.stage),
        suffix=next(iter(suffixes), ""),
        dated=any(found.dated for found in numbered),
        has_v=any(found.has_v for found in numbered),
    )


def _part(text: str) -> tuple[str, Version | None]:
    """Return the operator and the version of one part; the version of `*` has no numbers."""
    found = _PART.fullmatch(text)
    if not found:
        raise _bad(text)
    operator, rest = found["operator"], found["version"]
    if operator == "*":
        if rest and not re.fullmatch(r"[-_][A-Za-z0-9._-]+", rest):
            raise _bad(text)
        return operator, Version("", (), (), rest[1:])
    parsed = version(rest)
    if parsed is None:
        raise _bad(text)
    return operator, parsed


def _bad(text: str) -> ConstraintError:
    shown = f'"{text[:60]}"'
    if not text:
        return ConstraintError("a part of the constraint is empty", 'a range reads ">=9,<10"')
    if wildcard := re.fullmatch(r"[=~^]*\s*(v?[0-9]+(?:\.[0-9]+)*)\.[*xX]", text):
        numbers = wildcard[1]
        return ConstraintError(
            f"{shown} is no constraint", f'write "={numbers}", all versions that begin with {numbers}'
        )
    if re.fullmatch(r"\S+(\s+[~^<>=!]\S*)+", text):
        return ConstraintError(f"{shown} is no constraint", "put a comma between its parts")
    if version(text):
        return ConstraintError(f"{shown} is no constraint", f'write "={text}", "~{text}" or ">={text}"')
    return ConstraintError(f"{shown} is no constraint", 'write one like "~9.0", ">=9,<10" or "*"')


def _bounds(operator: str, found: Version | None) -> Range:
    """Return the versions that one part takes."""
    if operator == "*" or found is None:
        return Range(_FIRST, _LAST)
    low, high = found.range
    below = low if found.stage else Point(low.numbers, _BEFORE_ANY)
    return {
        "=": Range(low, high),
        "==": Range(low, high),
        ">=": Range(low, _LAST),
        ">": Range(high, _LAST),
        "<": Range(_FIRST, below),
        "<=": Range(_FIRST, high),
        "~": Range(low, _after(found.numbers[:2])),
        "^": Range(low, _after(found.numbers[: _leading(found.numbers)])),
    }[operator]


def _leading(numbers: tuple[int, ...]) -> int:
    """Return how many numbers stay as they are with `^`: up to the first that is not zero."""
    return next((n for n, number in enumerate(numbers, start=1) if number), len(numbers))


def beyond(current: str, tags: Iterable[str]) -> str | None:
    """Return the newest version after `current`, of the same variant; None when it is the newest, or is no version.

    What moves is answered by what moves: after `17` comes `18`, though it means 18.1. An early version is followed by
    those of the same numbers, too.
    """
    own = version(current)
    if own is None:
        return None
    alike = [found for tag in tags if (found := version(tag)) and _follows(own, found)]
    newest = max(alike, key=lambda v: (v.point, len(v.numbers)), default=None)
    if newest is None:
        return None
    as_exact = [v for v in alike if len(v.numbers) == len(own.numbers) and v.range.holds(newest.range)]
    return min(as_exact or [newest], key=lambda v: (v.has_v is not own.has_v, v.tag)).tag


def _follows(own: Version, other: Version) -> bool:
    if (own.suffix, own.dated) != (other.suffix, other.dated):
        return False
    if other.stage and not (own.stage and _canonical(own.numbers) == _canonical(other.numbers)):
        return False
    return other.point >= own.range.high
