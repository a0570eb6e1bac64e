"""What the doctor found, in words and as JSON data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from appbox.doctor.values import Finding
from appbox.errors import printable

_WIDTH: Final = 18
_INDENT: Final = " " * 9


def text(findings: Sequence[Finding], *, verbosity: int = 0, heading: str = "") -> str:
    """Return findings for people: with -q only what is missing or weak, with -v also why what is well matters."""
    lines = [heading] if heading and verbosity >= 0 else []
    for one in findings:
        if verbosity < 0 and one.word in {"ok", "absent"}:
            continue
        lines.append(f"{one.word:8} {one.subject + ':':{_WIDTH}} {one.what}")
        if one.state == "ok" and verbosity < 1:
            continue
        if one.at:
            lines.append(f"{_INDENT}needed by {', '.join(map(str, one.at))}")
        elif one.why:
            lines.append(f"{_INDENT}for {one.why}")
        lines += [f"{_INDENT}→ {step.shown}" for step in one.remedy.steps]
        if one.remedy.words:
            lines.append(f"{_INDENT}→ {one.remedy.words}" if not one.remedy.steps else f"{_INDENT}  {one.remedy.words}")
    return printable("".join(f"{line}\n" for line in lines))


def summary(findings: Sequence[Finding], *, fixed: bool = False) -> str:
    """Return the closing line."""
    bad = [one for one in findings if one.bad]
    advice = [one for one in findings if one.state != "ok" and not one.bad]
    fixable = sum(1 for one in findings if one.mendable)
    if not bad and not advice:
        return "everything is there\n"
    parts = [f"{len(bad)} missing" if bad else "nothing that is needed is missing"]
    if advice:
        parts.append(f"{len(advice)} to know of")
    if fixable and not fixed:
        parts.append(f"appbox doctor --fix can mend {fixable}")
    return "; ".join(parts) + "\n"


def data(findings: Sequence[Finding], *, user: str, fixed: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return findings as JSON data."""
    return {
        "ok": not any(one.bad for one in findings),
        "user": user or None,
        "findings": [one.as_dict() for one in findings],
        **({"fixed": list(fixed)} if fixed else {}),
    }
