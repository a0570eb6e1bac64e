"""What the doctor says, as values: findings and remedies. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from appbox.host.facts import IdRange

State: TypeAlias = Literal["ok", "missing", "weak", "unknown"]
"""`weak`: it works, with a limit or a risk that the finding says. `unknown`: it could not be looked at."""


@dataclass(frozen=True, slots=True)
class Run:
    """A program that is started."""

    argv: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The command line."""
        return shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file of appbox's own that is written; one that is there with other content is left alone."""

    path: str
    text: str
    mode: int = 0o644

    @property
    def shown(self) -> str:
        """The command line that a person would write it with."""
        lines = " ".join(shlex.quote(line) for line in self.text.splitlines())
        chmod = f" && chmod {self.mode:04o} {self.path}" if self.mode != 0o644 else ""
        folder = self.path.rpartition("/")[0]
        return f"mkdir -p {folder} && printf '%s\\n' {lines} >{self.path}{chmod}"


@dataclass(frozen=True, slots=True)
class GiveIds:
    """Ranges that a user gets: a line at the end of /etc/subuid, /etc/subgid or both; None for a file that has one."""

    owner: str
    uids: IdRange | None
    gids: IdRange | None

    @property
    def lines(self) -> Mapping[str, str]:
        """The line for each file."""
        pairs = (("/etc/subuid", self.uids), ("/etc/subgid", self.gids))
        return {file: f"{self.owner}:{ids.base}:{ids.size}" for file, ids in pairs if ids is not None}

    @property
    def shown(self) -> str:
        """The command line that a person would write it with."""
        return " && ".join(f"echo {shlex.quote(line)} >>{file}" for file, line in self.lines.items())


Step: TypeAlias = Run | NewFile | GiveIds


@dataclass(frozen=True, slots=True)
class Remedy:
    """What mends a finding. `steps` are exact; `--fix` carries them out if it is `safe`, a person may anyway.

    `words` say what no command can do, or what remains to be done after the steps.
    """

    steps: tuple[Step, ...] = ()
    words: str = ""
    safe: bool = True

    @property
    def fixable(self) -> bool:
        """Whether `--fix` may do it."""
        return self.safe and bool(self.steps)


NOTHING: Final = Remedy()


@dataclass(frozen=True, slots=True)
class At:
    """A key of a manifest, where it stands."""

    file: str
    line: int
    key: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `what` was found; `why` it matters, and for which key of a manifest.

    `needed`: nothing that was asked about works without it. `at` are the keys of the given manifests that ask for it.
    """

    subject: str
    state: State
    what: str
    why: str = ""
    needed: bool = False
    remedy: Remedy = NOTHING
    at: tuple[At, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def bad(self) -> bool:
        """Whether it makes the doctor end with 8."""
        return self.needed and self.state == "missing"

    @property
    def word(self) -> str:
        """What a person reads of the state: what is missing and not needed by what was asked about is only absent."""
        return "absent" if self.state == "missing" and not self.needed else self.state

    @property
    def mendable(self) -> bool:
        """Whether `--fix` mends it: what no manifest asks for is not installed."""
        return self.remedy.fixable and self.word in {"missing", "weak"}

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON data."""
        remedy = self.remedy
        return {
            "subject": self.subject,
            "state": self.state,
            "needed": self.needed,
            "what": self.what,
            "why": self.why,
            "keys": [{"file": one.file, "line": one.line, "key": one.key} for one in self.at],
            "commands": [step.shown for step in remedy.steps],
            "fixable": self.mendable,
            "advice": remedy.words,
            **({"data": dict(self.data)} if self.data else {}),
        }
