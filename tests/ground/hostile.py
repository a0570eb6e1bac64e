"""Text that means something to a shell, an init or a terminal, and every place of a manifest that could hold it.

`CASES` says of each place what becomes of such text; `tests/unit/test_input.py` holds it against `appbox.tables`, so
that a new key without a case is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

MARK = "pwned"
"""What each text has in it: it must not be seen where an init or a shell reads, nor become a file of that name."""

SPECIAL = (
    *("\n", "\r", "\r\n", "\0", "'", '"', "\\", "%", "%n", "$", "$HOME", "`", "\U0001f389", " ", "\t", ";", "#", "="),
    *("$(touch /pwned)", "`touch /pwned`", "'; touch /pwned; '", '"; touch /pwned; "', "\nExecStartPre=touch /pwned\n"),
    *("\nstart_pre() { touch /pwned; }\n", "x\\\n; touch /pwned", "{{ 7 * 7 }}{% pwned %}{# #}", "\x01\x1b[31m\x7f"),
    *("\u202e", "\u2028", "-", "@", "*", "~", "& | < > ? [a] {a,b} !"),
)
LONG = MARK + "\U0001f389$(touch /pwned)`'\"\\ %n\n" * 3000
LONG = LONG.encode()[: 64 << 10].decode(errors="ignore").ljust((64 << 10) - 2, "x")
TEXTS = (
    *(text for special in SPECIAL for text in (special + MARK, MARK + special + MARK, MARK + special)),
    LONG,
)
"""Each character at the beginning, within and at the end; and 64 KiB of them."""

HARMLESS = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)

Kind = Literal["text", "path", "line", "url", "word", "later"]
Place = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """What a place takes, and the rest of a manifest that has such a text there.

    text: anything but NUL; line: no control characters either; path: the same with `before`, in parts of at most 255
    bytes; url: printable ASCII; word: at most what means nothing anywhere; later: the key is not acted on yet, so
    nothing.
    `shortest`: where a text of 64 KiB is too long all the same.
    """

    kind: Kind
    around: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    words: tuple[str, ...] = ()
    long: bool = True

    def takes(self, text: str) -> bool | None:
        """Tell whether the place takes a text; None where either does no harm."""
        printed = not any(c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" for c in text)
        short = len(text) < len(LONG) // 2
        return {
            "text": "\0" not in text and (self.long or short),
            "path": printed and short,
            "line": printed and (self.long or short),
            "url": all("!" <= c <= "~" for c in text) and "#" not in text,
            "word": False if not HARMLESS.fullmatch(text) else None,
            "later": False,
        }[self.kind]


VOLUME: dict[str, Any] = {"volumes": {"v": {"path": "/v"}}}
TMPFS: dict[str, Any] = {"volumes": {"v": {"path": "/v", "tmpfs": True}}}
SECRET: dict[str, Any] = {"secrets": {"s": {}}}
OWNED: dict[str, Any] = {"secrets": {"s": {"file": "/s"}}}
CONFIG: dict[str, Any] = {"config": {"/c": {"text": "x"}}}
EMPTY: dict[str, Any] = {"config": {"/c": {}}}
BUILD: dict[str, Any] = {"image": None, "build": {"packages": {"suite": "trixie", "install": ["a"]}}}

SIZED = ("memory", "memory_swap", "as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack")

CASES: dict[str, Case] = {
    "name": Case("word"),
    "image": Case("line", before="oci:/", long=False),
    "version": Case("word"),
    "digest": Case("word"),
    "description": Case("text"),
    "process.entrypoint.[]": Case("text", words=("true",)),
    "process.args.[]": Case("text", words=("true",)),
    "process.env.<name>": Case("word"),
    "process.env.*": Case("text"),
    "process.workdir": Case("path", before="/"),
    "process.user": Case("word"),
    "process.groups.[]": Case("word"),
    "process.timezone": Case("word"),
    "process.stop_signal": Case("word"),
    "volumes.<name>": Case("word"),
    "volumes.*.path": Case("path", before="/"),
    "volumes.*.source": Case("path", VOLUME, before="/"),
    "volumes.*.size": Case("word", TMPFS),
    "volumes.*.mode": Case("word", TMPFS),
    "volumes.*.owner": Case("word", VOLUME),
    "network.mode": Case("word"),
    "network.ports.[]": Case("word", {"network": {"mode": "bridge"}}),
    "network.hostname": Case("word"),
    "network.dns.[]": Case("word", {"network": {"mode": "host"}}),
    "network.hosts.<name>": Case("word"),
    "network.hosts.*": Case("word"),
    "vars.<name>": Case("word"),
    "vars.*": Case("text"),
    "config.<name>": Case("path", before="/"),
    "config.*.text": Case("text", EMPTY),
    "config.*.file": Case("line", EMPTY, long=False),
    "config.*.template": Case("line", EMPTY, long=False),
    "config.*.directory": Case("line", EMPTY, long=False),
    "config.*.mode": Case("word", CONFIG),
    "config.*.owner": Case("word", CONFIG),
    "secrets.<name>": Case("word"),
    "secrets.*.file": Case("path", SECRET, before="/"),
    "secrets.*.command.[]": Case("text", SECRET, words=("true",), long=False),
    "secrets.*.age": Case("line", SECRET, long=False),
    "secrets.*.path": Case("path", OWNED, before="/"),
    "secrets.*.mode": Case("word", OWNED),
    "secrets.*.owner": Case("word", OWNED),
    **{
        f"resources.{name}": Case("word", {"resources": {"memory": "1G"}} if name == "memory_swap" else {})
        for name in SIZED
    },
    "security.apparmor": Case("word"),
    "security.capabilities.add.[]": Case("word"),
    "security.capabilities.drop.[]": Case("word"),
    "security.devices.[]": Case("path", before="/dev/"),
    "security.sysctl.<name>": Case("word"),
    "security.sysctl.*": Case("line"),
    "health.exec.[]": Case("text", words=("true",)),
    "health.http": Case("url", before="http://127.0.0.1/"),
    "health.restart_limit": Case("word", {"health": {"tcp": 1}}),
    "service.requires.[]": Case("word"),
    "service.after.[]": Case("word"),
    "service.wants.[]": Case("word"),
    "service.restart_limit": Case("word"),
    "service.schedule": Case("word"),
    "snapshots.schedule": Case("word"),
    "service.reload": Case("word"),
    "service.reload.[]": Case("text", words=("true",)),
    "service.log.max_size": Case("word"),
    "policy.registries.[]": Case("word"),
    "policy.signed_by.[]": Case("line", long=False),
    "policy.signed_as": Case("word", {"policy": {"signed_by": ["key.pub"]}}),
    "upgrade.before.[].[]": Case("text", words=("true",)),
    "upgrade.after.[].[]": Case("text", words=("true",)),
    "upgrade.migrate.[]": Case("text", {"upgrade": {"data_format": "1"}}, words=("true",)),
    "upgrade.data_format": Case("line", long=False),
    "build.packages.suite": Case("later", BUILD),
    "build.packages.install.[]": Case("later", BUILD),
    "build.containerfile": Case("later", {"image": None}),
}
"""By place: `*` stands for any name, `<name>` for the name itself, `[]` for an element of a list."""

_NAMES = {"volumes": "v", "config": "/c", "secrets": "s", "env": "V", "vars": "v", "hosts": "h", "sysctl": "net.x"}
_ENTRIES: dict[str, Any] = {"volumes": {"path": "/v"}, "config": {"text": "x"}, "secrets": {"file": "/s"}}
_VALUES: dict[str, Any] = {"hosts": "1.2.3.4", "sysctl": "1"}


def taken(key: str, room: int) -> Iterator[str]:
    """Yield all that a place takes of `TEXTS`, in as few texts of about `room` characters as hold them."""
    found = ""
    for text in TEXTS[:-1]:
        if CASES[key].takes(text) is not True:
            continue
        if found and len(found) + len(text) > room:
            yield found
            found = ""
        found += text
    if found:
        yield found


def place_of(key: str) -> Place:
    """Return the parts of a place."""
    return tuple(key.split("."))


def manifest_with(key: str, text: str, **tables: Any) -> dict[str, Any]:
    """Return the data of a manifest that has a text at a place of `CASES`."""
    case = CASES[key]
    base = {"name": "job", "image": "docker.io/library/x", "version": "1", **tables}
    manifest = {name: value for name, value in {**base, **case.around}.items() if value is not None}
    put: dict[str, Any] = _put(manifest, place_of(key), case.before + text, case.words, "")
    return put


def _put(value: Any, place: Place, text: str, words: tuple[str, ...], parent: str) -> Any:
    if not place:
        return text
    first, *rest = place
    if first == "[]":
        return [*words, text] if not rest else [_put(None, tuple(rest), text, words, parent)]
    if first == "<name>":
        return {**(value or {}), text: _ENTRIES.get(parent, _VALUES.get(parent, "x"))}
    name = _NAMES[parent] if first == "*" else first
    table = dict(value or {})
    return {**table, name: _put(table.get(name), tuple(rest), text, words, first)}


def found_at(key: str, manifest: Any) -> Iterator[str]:
    """Yield what a manifest's data has at a place, without what stands before every text there."""
    case = CASES[key]
    for value in _at(manifest, place_of(key)):
        if value not in case.words:
            yield value.removeprefix(case.before)


def _at(value: Any, place: Place) -> Iterator[str]:
    if not place:
        # A command may stand where a word may, and variables are of any shape.
        yield from [value] if isinstance(value, str) else (one for one in value if isinstance(one, str))
        return
    first, rest = place[0], place[1:]
    if first == "<name>":
        yield from value
        return
    within = value if first == "[]" else value.values() if first == "*" else [value.get(first, {})]
    for inner in within:
        yield from _at(inner, rest)
