"""The WWW-Authenticate header, as data. Pure: text in, values out.

Grammar of RFC 9110, section 11.6.1. One header may hold several challenges, separated by the same commas that separate
the parameters of one, and registries put schemes that we do not speak first (Negotiate, Digest).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PARAMETER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))", re.DOTALL)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SEPARATOR = re.compile(r"[ \t,]*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """`scheme` and the names of parameters are in lower case; of two parameters of one name the first counts."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges in the values of all WWW-Authenticate headers, in their order.

    What follows a malformed part of one value is left out: a challenge that cannot be read cannot be answered.
    """
    return tuple(challenge for value in headers for challenge in _parse(value))


def _parse(value: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = _skip(value, 0)
    while position < len(value):
        parameter = _PARAMETER.match(value, position) if found else None
        if parameter is not None:
            name, quoted, bare = parameter.groups()
            parameters = dict(found[-1].parameters)
            parameters.setdefault(name.lower(), bare if quoted is None else _ESCAPE.sub(r"\1", quoted))
            found[-1] = Challenge(found[-1].scheme, parameters)
            position = _skip(value, parameter.end())
            continue
        scheme = _TOKEN.match(value, position)
        if scheme is None:
            return found
        found.append(Challenge(scheme.group().lower()))
        position = _after_scheme(value, scheme.end())
    return found


def _after_scheme(value: str, position: int) -> int:
    """Skip the token68 that a scheme such as Negotiate may carry instead of parameters."""
    start = position
    while start < len(value) and value[start] in " \t":
        start += 1
    token68 = _TOKEN68.match(value, start) if start > position else None
    return _skip(value, token68.end() if token68 else start)


def _skip(value: str, position: int) -> int:
    match = _SEPARATOR.match(value, position)
    return match.end() if match else position
