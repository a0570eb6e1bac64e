"""A manifest's text, kept so that a finding of a later step still names the line of its key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appbox import toml_source
from appbox.errors import Problem
from appbox.toml_source import Path

Lines = Mapping[Path, int]


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a file says otherwise for one host: its text, and `data`, the tables that it holds."""

    file: str
    text: str = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)

    def place(self, service: str, path: Path, lines: Lines) -> tuple[Path, int]:
        """Return what a key of a service's manifest is called in here, and how many of its parts are given here."""
        own = ("services", service)
        places = [(*own, *path)] + ([path] if path[:1] == ("vars",) else [])
        known = [(place, _depth(place, lines) - (len(place) - len(path))) for place in places]
        return max(known, key=lambda found: found[1])


@dataclass(frozen=True, slots=True)
class Document:
    """The manifest `file` as the user named it, and what it holds; with an overlay, both together.

    `service` is the name by which the overlay knows it.
    """

    file: str
    text: str = field(repr=False)
    overlay: Overlay | None = None
    service: str = ""

    def problem(self, path: Path, message: str, hint: str = "") -> Problem:
        """Return a finding about a key, with its line. Positions are looked for only now: they are rarely needed."""
        return self.problems([(path, message, hint)])[0]

    def problems(self, found: Iterable[tuple[Path, str, str]]) -> list[Problem]:
        """Return findings (key, message, hint) with the file and the line that said it last."""
        lines = toml_source.positions(self.text)
        over = toml_source.positions(self.overlay.text) if self.overlay else {}
        return [self._located(lines, over, *one) for one in found]

    def _located(self, lines: Lines, over: Lines, path: Path, message: str, hint: str) -> Problem:
        if self.overlay is not None:
            place, depth = self.overlay.place(self.service, path, over)
            if depth > 0 and depth >= _depth(path, lines):
                line = toml_source.line_of(over, place)
                return Problem(self.overlay.file, line, toml_source.dotted(place), message, hint)
        return Problem(self.file, toml_source.line_of(lines, path), toml_source.dotted(path), message, hint)


def _depth(path: Path, lines: Lines) -> int:
    """Return how many parts of a path are known."""
    return next((n for n in range(len(path), 0, -1) if path[:n] in lines), 0)
