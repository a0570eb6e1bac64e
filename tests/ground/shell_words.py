"""Which programs a POSIX script starts, and with which options: a lexer, no shell.

It knows what the templates of generators/ use of the grammar: pipelines, lists, compound commands, functions, quotes,
substitutions and redirections. Here-documents and aliases are not among that, and backquotes are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

OPENING: Final = frozenset({"if", "then", "else", "elif", "while", "until", "do", "!", "{"})
CLOSING: Final = frozenset({"fi", "done", "}", "esac"})
RUNNERS: Final = frozenset(
    {"busybox", "env", "exec", "nc", "nsenter", "setsid", "timeout", "unshare", "within", "xargs"}
)
"""Programs, and one function, that are told of another one."""
TAKES: Final = {  # options of these that have a value, in a word of its own
    "timeout": "ks",
    "nsenter": "t",
    "xargs": "s",
}
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_FUNCTION: Final = re.compile(r"^([a-z_]+)\(\) \{", re.MULTILINE)
_REDIRECTION: Final = re.compile(r"[0-9]*(?:<&|>&|<>|>>|<|>)")
_OPERATORS: Final = ("&&", "||", ";;", ";", "&", "|", "(", ")", "\n")


@dataclass(frozen=True, slots=True)
class Call:
    """A program as a script names it, and the words behind it, quotes included; without those of another program."""

    name: str
    words: tuple[str, ...]

    def options(self) -> set[str]:
        """Return the options: single letters with a hyphen, long ones whole."""
        given = {word for word in self.words if re.fullmatch(r"--?[a-zA-Z0-9][a-z0-9-]*", word)}
        return {option for word in given for option in ([word] if word[:2] == "--" else (f"-{c}" for c in word[1:]))}


def functions(text: str) -> set[str]:
    """Return the names of the functions that a script defines."""
    return set(_FUNCTION.findall(text))


def calls(text: str) -> list[Call]:
    """Return every simple command of a script, substitutions and the scripts behind `sh -c` included."""
    tokens = _tokens(text)
    found: list[Call] = []
    words: list[str] = []
    for token in _without_patterns(tokens):
        if token in _OPERATORS:
            found += _commands(words)
            words = []
        else:
            words.append(token)
    found += _commands(words)
    inner = [call for token in tokens for part in _substitutions(token) for call in calls(part)]
    return found + inner


def _commands(words: Sequence[str]) -> Iterator[Call]:
    """Yield the program of a simple command, and those that it is told to start."""
    rest = list(words)
    while rest and (rest[0] in OPENING or rest[0] in CLOSING or _ASSIGNMENT.match(rest[0])):
        rest.pop(0)
    if not rest or rest[0] == "for":
        return
    name, *rest = rest
    at = _told(name, rest) if name in RUNNERS else len(rest)
    yield Call(name, tuple(rest[:at]))
    if name == "sh" and rest[:1] == ["-c"]:
        yield from calls(rest[1].strip("'"))
    yield from _commands(rest[at:])


def _told(name: str, rest: Sequence[str]) -> int:
    """Return where in the words of a runner the program is that it starts."""
    if name == "nc":
        return rest.index("-e") + 1
    at = 0
    while at < len(rest) and (rest[at].startswith("-") or _ASSIGNMENT.match(rest[at])):
        long_with_value = rest[at] == "--propagation"
        at += 2 if rest[at][1:] in TAKES.get(name, "") or long_with_value else 1
    return at + 1 if name == "timeout" else at


def _without_patterns(tokens: Sequence[str]) -> Iterator[str]:
    """Yield the tokens without the heads of functions and of `case` and what its branches match."""
    pattern = 0
    for at, token in enumerate(tokens):
        start = at == 0 or tokens[at - 1] in _OPERATORS or tokens[at - 1] in OPENING
        if token == "case" and start:
            pattern = 2  # until its word has come
        elif pattern == 2:
            pattern = 1 if token == "in" else 2
        elif pattern == 1 and token == "esac":
            pattern = 0
        elif pattern == 1:
            pattern = 0 if token == ")" else 1
        elif token == ";;":
            pattern = 1
            yield "\n"
        elif start and list(tokens[at + 1 : at + 3]) == ["(", ")"]:
            yield "\n"
        else:
            yield token


def _tokens(text: str) -> list[str]:
    """Return words and operators; comments and redirections are left out."""
    found: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
        elif text.startswith("\\\n", at):
            at += 2
        elif text[at] == "#":
            at = _find(text, "\n", at)
        elif redirection := _REDIRECTION.match(text, at):
            at = redirection.end()
            target = _word(text, at)
            found += [f'"{text[at:target]}"'] if "$(" in text[at:target] else []
            at = target
        elif match := next((op for op in _OPERATORS if text.startswith(op, at)), ""):
            found.append(match)
            at += len(match)
        else:
            end = _word(text, at)
            found.append(text[at:end])
            at = end
    return found


def _word(text: str, at: int) -> int:
    """Return where the word ends that begins at `at`."""
    while at < len(text) and text[at] not in " \t\n;&|()<>":
        if text[at] == "`":
            msg = f"a backquote: {text[at - 30 : at + 30]!r}"
            raise ValueError(msg)
        at = _part(text, at)
    return at


def _part(text: str, at: int) -> int:
    """Return where a character, a quotation or an expansion ends."""
    if text[at] == "\\":
        return at + 2
    if text[at] == "'":
        return _find(text, "'", at + 1) + 1
    if text.startswith("$((", at):
        return _closing(text, at + 1)
    if text.startswith(("$(", "${"), at):
        return _closing(text, at + 1)
    if text[at] == '"':
        at += 1
        while text[at] != '"':
            at = at + 1 if text[at] == "'" else _part(text, at)
        return at + 1
    return at + 1


def _closing(text: str, at: int) -> int:
    """Return the place behind the bracket that closes the one at `at`."""
    close = {"(": ")", "{": "}"}[text[at]]
    at += 1
    while text[at] != close:
        if text[at] == "(" or (text[at] == "'" and close == "}"):
            at = _closing(text, at) if text[at] == "(" else at + 1
        else:
            at = _part(text, at)
    return at + 1


def _substitutions(token: str) -> Iterator[str]:
    """Yield the scripts in the command substitutions of a word; those in them are found when they are read."""
    at = 0
    while at < len(token):
        if token[at] == "'" and not token.startswith('"'):
            at = _find(token, "'", at + 1) + 1
        elif token.startswith("$(", at) and not token.startswith("$((", at):
            end = _closing(token, at + 1)
            yield token[at + 2 : end - 1]
            at = end
        else:
            at += 2 if token[at] == "\\" else 1


def _find(text: str, what: str, at: int) -> int:
    found = text.find(what, at)
    return len(text) if found < 0 else found
