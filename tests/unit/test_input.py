"""Bad input at every place of a manifest: it arrives as it is or is refused with file, line and key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import tomli_w

from appbox import manifest as manifests
from appbox.errors import ManifestError, Problem, Refused
from appbox.fields import LONGEST_FORMAT
from appbox.schema import schema
from tests.ground import pure
from tests.ground.hostile import CASES, MARK, TEXTS, found_at, manifest_with, taken

SCHEMA = schema()


def places(node: dict[str, Any], wanted: tuple[str, ...], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the places of a schema that take a value of the types `wanted`."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    for option in node.get("anyOf", ()):
        yield from places(option, wanted, at)
    if node.get("type") in wanted and "enum" not in node:
        yield at
    if "items" in node:
        yield from places(node["items"], wanted, (*at, "[]"))
    for key, inner in node.get("properties", {}).items():
        yield from places(inner, wanted, (*at, key))
    more = node.get("additionalProperties", "propertyNames" in node)
    if more is not False:
        if "string" in wanted:
            yield (*at, "<name>")
        yield from places(more if isinstance(more, dict) else {"type": "string"}, wanted, (*at, "*"))


def refused(text: str) -> list[Problem]:
    """Return the problems of a manifest, none when it is taken."""
    try:
        manifests.parse(text, file="job.toml")
    except ManifestError as error:
        return list(error.problems)
    return []


def test_there_is_a_case_for_every_place_that_holds_text() -> None:
    assert {".".join(place) for place in places(SCHEMA, ("string",))} == set(CASES)


@pytest.mark.parametrize("key", CASES)
def test_text_is_taken_as_it_is_or_refused_with_its_line_and_key(key: str) -> None:
    table = key.partition(".")[0]
    for text in TEXTS:
        data = tomli_w.dumps(manifest_with(key, text), multiline_strings=False)
        problems = refused(data)
        if CASES[key].takes(text):
            assert not problems, text
            parsed = manifests.parse(data, file="job.toml")
            again = tomli_w.dumps(manifests.as_table(parsed), multiline_strings=False)
            assert list(found_at(key, manifests.as_table(parsed))) == [text]
            assert manifests.parse(again, file="job.toml") == parsed
            continue
        assert problems or CASES[key].takes(text) is None, text
        assert all(problem.key.partition(".")[0] == table for problem in problems), text
        for problem in problems:
            assert (problem.file, problem.line > 0) == ("job.toml", True)
            assert len(str(problem)) < 1000 or "<name>" in key
            assert "\n" not in str(problem)


# What the host or a file beside the manifest would have to say first.
APART = {"image", "config.*.directory", "secrets.*.age", "policy.signed_by.[]", "security.devices.[]"}


def _length(key: str) -> int:
    """Return how many characters of a hostile text a key takes at most."""
    if key == "upgrade.data_format":
        return LONGEST_FORMAT
    return 120 if CASES[key].kind in {"path", "line"} else 10_000


@pytest.mark.parametrize("key", sorted({key for key in CASES if any(taken(key, 1))} - APART))
def test_no_text_of_a_manifest_becomes_a_word_of_a_unit_or_a_script(key: str) -> None:
    # What may be as long as a path, or longer.
    for text in taken(key, _length(key)):
        head = tomli_w.dumps(manifest_with(key, text, name="web"), multiline_strings=False)
        for init in ("systemd", "openrc"):
            desired = pure.build(head=head, facts=replace(pure.FACTS, init=init))
            words = [unit.text for unit in desired.units] + [pure.text(desired, "run")]
            assert len(words) > 1
            assert not [word for word in words if MARK in word]
            assert MARK in "".join(file.data.decode() + file.path for file in desired.files)


IMAGE: dict[str, Callable[[str], Any]] = {
    "Cmd": lambda text: ["true", text],
    "Entrypoint": lambda text: ["true", text],
    "Env": lambda text: [f"A={text}"],
    "ExposedPorts": lambda text: {text: {}, f"80/{text}": {}},
    "Healthcheck": lambda text: {"Test": ["CMD", "true", text], "Interval": text},
    "Labels": lambda text: {text: text, "org.systemd.property.ExecStartPre": text},
    "StopSignal": lambda text: text,
    "User": lambda text: text,
    "Volumes": lambda text: {f"/{text}": {}},
    "WorkingDir": lambda text: f"/{text}",
}


@pytest.mark.parametrize("key", IMAGE)
def test_what_an_image_says_is_carried_as_it_is_or_refused(key: str) -> None:
    for number, text in enumerate(TEXTS):
        facts = replace(pure.FACTS, init="openrc" if number % 2 else "systemd")
        passwd = f"{text}:x:7:8::/:/bin/sh\n".encode()
        try:
            desired = pure.build(facts=facts, found=pure.rootfs(passwd=passwd), **{key: IMAGE[key](text)})
        except Refused as error:
            refusable = key in {"StopSignal", "User", "Volumes", "WorkingDir"} or "\0" in text
            problems = [] if refusable and "\n" not in str(error) else [str(error)]
            assert not problems, text
            continue
        words = [unit.text for unit in desired.units] + [pure.text(desired, "run")]
        assert not [word for word in words if MARK in word]
        process = pure.spec(desired)["process"]
        if key in {"Cmd", "Entrypoint"}:
            assert process["args"][:2] == ["true", text]
        elif key == "Env":
            assert process["env"][-1] == f"A={text}"
        elif key == "WorkingDir":
            assert process["cwd"] == "/" + "/".join(part for part in text.split("/") if part)


NUMBERS = sorted({".".join(place) for place in places(SCHEMA, ("integer", "number"))})
# TOML has digits without end, and Python gives up at some thousand; "inf" and "nan" are numbers of TOML, too.
NEVER = ("-1", "-9223372036854775809", "nan", "inf", "-inf", "true", '""', '"1 0"', "1979-05-27", "9" * 400, "9" * 5000)
SIZES = ("9223372036854775807", '"9223372036854775807"', '"8388607T"')


def bounds(key: str) -> tuple[list[str], list[str]]:
    """Return the values at the ends of what a place takes, and those just beyond."""
    (node,) = (dict(found) for found in numeric(SCHEMA, key.split(".")))
    low, high = int(node.get("minimum", 0)), node.get("maximum")
    below = [] if node["type"] == "number" else ["1.0", "1e3", str(low - 1)]
    if high is not None and "exclusiveMinimum" in node:
        return ["0.01", str(high)], ["0", "0.0", "-0.0", str(high + 1), f"{high}.1"]
    if high is None:
        return [str(low)], below
    return [str(low), str(high)], [*below, str(high + 1)]


def numeric(node: dict[str, Any], parts: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what a schema says of the number at a place."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    if not parts:
        for option in (node, *node.get("anyOf", ())):
            if option.get("type") in {"integer", "number"}:
                yield option
        return
    first, rest = parts[0], parts[1:]
    if first in node.get("properties", {}):
        yield from numeric(node["properties"][first], rest)
    elif first == "[]":
        yield from numeric(node["items"], rest)
    elif first == "*":
        yield from numeric(node["additionalProperties"], rest)
    else:
        for option in node.get("anyOf", ()):
            yield from numeric(option, parts)


AROUND = {
    "health": "health.tcp = 1\n",
    "volumes": 'volumes.v = {{ path = "/v", tmpfs = true, size = {0} }}\n',
    "resources.memory_swap": 'resources.memory = "6M"\n',
    "security.userns.base": "security.userns.size = 1\n",
    "security.userns.size": "security.userns.base = 1\n",
    "security.sysctl.*": 'security.sysctl."kernel.msgmax" = {0}\n',
    "process.groups.[]": "process.groups = [{0}]\n",
}


def number_at(key: str, number: str) -> str:
    """Return a manifest with a number at a place."""
    around = AROUND.get(key) or AROUND.get(key.partition(".")[0], "")
    own = "" if "{0}" in around or key == "health.tcp" else f"{key} = {number}\n"
    return pure.HEAD + around.format(number) + (own if key != "health.tcp" else f"health.tcp = {number}\n")


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_are_applied_up_to_their_ends_and_refused_beyond(key: str) -> None:
    within, beyond = bounds(key)
    sizes = SIZES if key in {"service.log.max_size", "volumes.*.size"} else ()
    for number in (*within, *sizes):
        text = number_at(key, number)
        if problems := refused(text):
            # A rule that looks at more than one key, or at what any kernel can.
            assert all(p.key.startswith(key.partition(".")[0]) and p.line and p.message for p in problems), number
            continue
        for init in ("systemd", "openrc"):
            pure.build(head=text, facts=replace(pure.FACTS, init=init))
    for number in (*beyond, *NEVER):
        text = number_at(key, number)
        problems = refused(text)
        # What a kernel parameter may be, only the kernel knows.
        assert problems or key == "security.sysctl.*", number
        for problem in problems:
            assert problem.line, number
            assert problem.key.startswith(key.partition(".")[0]) or len(number) > 4300, (number, problem.key)
            assert len(str(problem)) < 1000
