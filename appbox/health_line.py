"""How a service does by its health check: the one line that its run script keeps, read and put into words. Pure.

`status` reads it of every service, so it knows nothing of manifests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from appbox.errors import printable

_RUNTIME: Final = re.compile(
    r'time="[^"]*" level=error msg="(?:exec failed: )?(?:unable to start container process: )?(.*)"'
)
"""What the runtime says when it cannot start a command, as its log has it."""

_STATES: Final = ("starting", "healthy", "unhealthy")
_WORDS: Final = {
    "timeout": "it took too long",
    "refused": "nothing listens there",
    "no-answer": "there was no answer",
    "no-http": "the answer is not HTTP",
    "no-container": "its container does not run",
    "missing": "the command cannot be started",
}


@dataclass(frozen=True, slots=True)
class State:
    """How a service does. `state` is starting, healthy or unhealthy; `since` and `began` are in seconds after boot.

    `failures` are those in a row, `fault` is the last one in words, with what the command said. `action` says what was
    done about it: restarted, stopped, failed (its start), limit (nothing more), or nothing.
    """

    state: str
    failures: int = 0
    since: int = 0
    fault: str = ""
    action: str = ""
    began: int = 0


def parse(line: bytes, said: bytes) -> State | None:
    """Return the state that a run script wrote; None for what none has written. `said` is what the command printed."""
    words = line.decode("ascii", "replace").split()
    if len(words) != 6 or words[0] not in _STATES or not all(_is_number(word) for word in words[1:4]):
        return None
    state, failures, since, began, fault, action = words
    done = "" if action == "-" else action
    return State(state, int(failures), int(since), _fault(fault, said), done, int(began))


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 12


def _fault(word: str, said: bytes) -> str:
    """Return a failure in words: what the script found, and the first line of what the command said."""
    if word == "-":
        return ""
    number = word.partition("-")[2]
    if word.startswith("exit-"):
        found = f"the command ended with {number}"
    elif word.startswith("http-"):
        found = f"the answer was {number}"
    else:
        found = _WORDS.get(word, word)
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    if lines and (log := _RUNTIME.fullmatch(lines[0])):
        lines[0] = log[1].replace('\\"', '"')
    return printable(f"{found}: {lines[0]}" if lines else found)


def sentence(state: State) -> str:
    """Return what an operator has to know of a service that is not healthy; empty for one that is."""
    if state.state == "healthy" or not state.fault:
        return ""
    done = {
        "restarted": "it is restarted",
        "stopped": "it was stopped for it",
        "failed": f"its start failed for it after {max(0, state.since - state.began)} seconds",
        "limit": "it was restarted too often to be restarted again now",
    }
    times = f", {state.failures} times in a row" if state.failures > 1 else ""
    return f"is {state.state}: {state.fault}{times}" + (f"; {done[state.action]}" if state.action in done else "")
