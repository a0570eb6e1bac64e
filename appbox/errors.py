"""What can go wrong, each with its exit code. No printing and no effects here.

An error is one sentence: what, where, why, then what to do. The command line prints `str(error)` behind
`appbox: ` and ends with `error.exit_code`; with `--json` it prints `error.as_dict()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class AppboxError(Exception):
    """The command failed and nothing is lost (exit 1).

    `what` happened, in lower case and without a full stop; `where`: a path, URL or key; `why`: the cause;
    `hint`: what to do, as an imperative.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        self.what, self.where, self.why, self.hint = what, where, why, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.where, self.what, self.why) if part)
        return sentence(f"{text}; {self.hint}" if self.hint else text)

    def as_dict(self) -> dict[str, Any]:
        """Return the error as JSON data: exit, what, where, why, hint."""
        return {"exit": self.exit_code, "what": self.what, "where": self.where, "why": self.why, "hint": self.hint}

    @staticmethod
    def of(data: Mapping[str, Any]) -> AppboxError:
        """Return the error that `as_dict` made data of."""
        kinds = {kind.exit_code: kind for kind in (UsageError, Unavailable, Refused, Locked, HostLacks)}
        kind = kinds.get(int(data["exit"]), AppboxError)
        return kind(str(data["what"]), where=str(data["where"]), why=str(data["why"]), hint=str(data["hint"]))


class UsageError(AppboxError):
    """The command line is wrong."""

    exit_code = 2


class Unavailable(AppboxError):
    """A registry, layout or image cannot be reached or does not hold what was asked for."""

    exit_code = 5


class Missing(Unavailable):
    """A registry says itself that there is no such thing; it could be reached."""


class Refused(AppboxError):
    """Bytes are not what they claim to be, or would be unsafe to use."""

    exit_code = 6


class Locked(AppboxError):
    """Another appbox is at work on the same root."""

    exit_code = 7


class HostLacks(AppboxError):
    """The host lacks a program, a privilege or a kernel feature."""

    exit_code = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a manifest. `line` counts from 1; 0 when no line can be named. `key` is dotted."""

    file: str
    line: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        text = ": ".join(part for part in (place, self.key, self.message) if part)
        return sentence(f"{text}; {self.hint}" if self.hint else text)

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON data."""
        return {"file": self.file, "line": self.line, "key": self.key, "message": self.message, "hint": self.hint}


class ManifestError(AppboxError):
    """A manifest is refused; `problems` lists every finding, in the order of the lines."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.key)))
        super().__init__("\n".join(str(p) for p in self.problems))

    def __str__(self) -> str:
        return "\n".join(str(p) for p in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return the findings as JSON data: exit, problems."""
        return {"exit": self.exit_code, "problems": [p.as_dict() for p in self.problems]}


def sentence(text: str) -> str:
    """Return `text` as one line: names that users or images gave may hold newlines."""
    return printable(text).replace("\n", "\\n")


def printable(text: str) -> str:
    """Return `text` with every character that a terminal might obey written as an escape."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)
