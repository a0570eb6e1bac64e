"""A manifest's text, kept so that a finding of a later step still names the line of its key. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from appbox import toml_source
from appbox.errors import Problem
from appbox.toml_source import Path


@dataclass(frozen=True, slots=True)
class Document:
    """The manifest `file` as the user named it, and what it holds."""

    file: str
    text: str = field(repr=False)

    def problem(self, path: Path, message: str, hint: str = "") -> Problem:
        """Return a finding about a key, with its line. Positions are looked for only now: they are rarely needed."""
        line = toml_source.line_of(toml_source.positions(self.text), path)
        return Problem(self.file, line, toml_source.dotted(path), message, hint)
