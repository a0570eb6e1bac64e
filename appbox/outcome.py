"""What became of a service in a run over several, as a value. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from appbox.errors import AppboxError

Result = Literal["done", "unchanged", "removed", "failed", "not begun"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one service; `error` of one that failed, `why` of one that was not begun."""

    name: str
    result: Result
    error: AppboxError | None = None
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON data: name, result, error (null unless it failed) and why."""
        error = self.error.as_dict() if self.error else None
        return {"name": self.name, "result": self.result, "error": error, "why": self.why}


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return how a run ends: 0, or as its failures do; 1 when they do not agree."""
    codes = {one.error.exit_code for one in outcomes if one.error is not None}
    return codes.pop() if len(codes) == 1 else min(len(codes), 1)


def first_error(outcomes: Sequence[Outcome]) -> AppboxError | None:
    """Return what the first service failed by that did."""
    return next((one.error for one in outcomes if one.error is not None), None)
