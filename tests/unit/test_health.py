"""Health checks: what is asked, what is refused, and how a run script's words are read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import demands, health, health_line
from appbox.errors import ManifestError
from appbox.health_line import State
from appbox.host.facts import Abilities, Facts
from appbox.units.model import NOTIFY_PATIENCE
from tests.ground.pure import FACTS, build, locked, spec, text

HTTP = '[health]\nhttp = "{}"\n'
ALL = frozenset(health.PROGRAMS)
MISSING = (
    b'time="2026-01-01T00:00:00Z" level=error msg="exec failed: unable to start container process: '
    b'exec: \\"nope\\": executable file not found in $PATH"\n'
)


def refusal(tables: str) -> str:
    with pytest.raises(ManifestError) as caught:
        locked(tables)
    return str(caught.value)


def facts(programs: frozenset[str], init: Any = "systemd") -> Facts:
    return replace(FACTS, init=init, live=True, abilities=Abilities(programs=programs))


@pytest.mark.parametrize("words", [["a", "b c"], ["sh", "-c", "%$`\n\r\\'\"\U0001f600" * 5000]])
def test_a_command_travels_as_json_byte_for_byte(words: list[str]) -> None:
    desired = build(f"[health]\nexec = {json.dumps(words, ensure_ascii=False)}\n")
    process = json.loads(text(desired, "commands/health.json"))
    assert process == {**spec(desired)["process"], "args": words}
    assert not any(word in text(desired, "run") for word in words if len(word) > 9)


@pytest.mark.parametrize(
    ("url", "target", "lines"),
    [
        ("http://127.0.0.1", "127.0.0.1 80", ["GET / HTTP/1.1", "Host: 127.0.0.1"]),
        ("http://[::1]:8080/a?b=%20;$(c)`'", "::1 8080", ["GET /a?b=%20;$(c)`' HTTP/1.1", "Host: [::1]:8080"]),
        ("http://Web.Example:81?x", "web.example 81", ["GET /?x HTTP/1.1", "Host: Web.Example:81"]),
    ],
)
def test_a_url_becomes_a_target_and_a_request(url: str, target: str, lines: list[str]) -> None:
    desired = build(HTTP.format(url))
    assert text(desired, health.TARGET) == f"{target}\n"
    request = text(desired, health.REQUEST)
    assert request.split("\r\n")[:2] == lines
    assert request.endswith("\r\nConnection: close\r\n\r\n")
    assert url not in text(desired, "run")


def test_https_is_left_to_curl() -> None:
    assert text(build(HTTP.format("https://[::1]/a$(b)")), health.URL) == "https://[::1]/a$(b)\n"


@given(st.from_regex(r"http://[a-z0-9.]{1,9}(:[1-9][0-9]{0,3})?(/[!-~]*)?", fullmatch=True))
def test_a_request_has_one_request_line(url: str) -> None:
    if "#" not in url and "@" not in url:
        lines = health.request(urlsplit(url)).split(b"\r\n")
        assert len(lines) == 7
        assert lines[0].count(b" ") == 2


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (HTTP.format("http://a$(x)/"), "its host is neither a name nor an address"),
        (HTTP.format("http://-a/"), "its host is neither a name nor an address"),
        (HTTP.format("http://[fe80::1%eth0]/"), "its host is no IPv6 address"),
        (HTTP.format("http://a/" + "x" * 4096), "has 4105 characters"),
        ("[health]\ntcp = 1\ninterval = 86400\n", "a day is the most"),
        ('[health]\ntcp = 1\n[service]\nschedule = "daily"\n', "a timed job ends by itself"),
        ('[service]\nnotify = true\nschedule = "daily"\n', "a timed job is never ready"),
        ('[process]\nenv = { NOTIFY_SOCKET = "x" }\n[service]\nnotify = true\n', "is set by appbox"),
        ("[health]\ntcp = 1\nhttp = 'http://a/'\n", "give only one of exec, tcp or http"),
        ("[health]\ntcp = 0\n", "out of range"),
        ('[health]\ntcp = 1\nrestart_limit = "0/1s"\n', "out of range"),
    ],
)
def test_what_cannot_work_is_refused(tables: str, words: str) -> None:
    found = refusal(tables)
    assert words in found
    assert "web.toml:" in found


@pytest.mark.parametrize(
    ("tables", "lacking", "init", "words"),
    [
        ("[health]\ntcp = 1\n", {"bash", "busybox"}, "systemd", "neither bash nor busybox"),
        ("[health]\ntcp = 1\n", {"bash"}, "systemd", ""),
        (HTTP.format("http://a/"), {"bash", "busybox"}, "openrc", "neither bash nor busybox"),
        (HTTP.format("https://a/"), {"curl"}, "systemd", "no curl"),
        (HTTP.format("https://a/"), {"bash", "busybox"}, "systemd", ""),
        ("[health]\ntcp = 1\n", {"nsenter"}, "systemd", "nsenter"),
        ('[health]\ntcp = 1\n[network]\nmode = "host"\n', {"nsenter"}, "systemd", ""),
        ('[health]\nexec = ["a"]\n', {"nsenter", "bash", "busybox"}, "systemd", ""),
        ('[health]\nexec = ["a"]\n', {"timeout"}, "systemd", "timeout"),
        ("[service]\nnotify = true\n", {"perl"}, "openrc", "no perl"),
        ("[service]\nnotify = true\n", {"perl"}, "systemd", "no perl"),
        ("[service]\nnotify = true\n", {"perl"}, "none", ""),
    ],
)
def test_what_the_host_lacks_is_said_of_the_key(tables: str, lacking: set[str], init: Any, words: str) -> None:
    found = list(demands.missing(locked(tables), facts(ALL - lacking, init)))
    assert bool(found) == bool(words)
    assert not found or words in found[0].message
    assert not list(demands.missing(locked(tables), facts(ALL, init)))


def test_readiness_reaches_the_init_system_through_a_socket_of_this_start() -> None:
    desired = build("[service]\nnotify = true\n")
    config = spec(desired)
    assert "NOTIFY_SOCKET=/run/notify/socket" in config["process"]["env"]
    mount = next(mount for mount in config["mounts"] if mount["destination"] == health.NOTIFY_PLACE)
    assert mount["source"].endswith("/.live/notify")
    assert "rbind" in mount["options"]
    assert "Type=notify" in desired.units[0].text
    run = next(file.data for file in desired.files if file.path == "run")
    assert b"READY=1" in run  # and nothing else that it says: systemd would let it put off its own stop
    assert b'--bind "$NOTIFY_SOCKET"' not in run
    # How long that may take is the same with every init, and is said.
    assert f"TimeoutStartSec={NOTIFY_PATIENCE}\n" in desired.units[0].text
    assert f"has not said within {NOTIFY_PATIENCE} seconds that it is ready".encode() in run


@pytest.mark.parametrize(
    ("line", "said", "state"),
    [
        (b"healthy 0 12 3 - -\n", b"", State("healthy", 0, 12, began=3)),
        (
            b"unhealthy 3 9 3 exit-7 limit\n",
            b"\n no\x1b[31m \nmore",
            State("unhealthy", 3, 9, "the command ended with 7: no\\x1b[31m", "limit", 3),
        ),
        (b"starting 0 9 3 timeout -\n", b"", State("starting", 0, 9, "it took too long", began=3)),
        (
            b"unhealthy 3 9 3 missing failed\n",
            MISSING,
            State(
                *("unhealthy", 3, 9),
                'the command cannot be started: exec: "nope": executable file not found in $PATH',
                "failed",
                3,
            ),
        ),
        (b"unhealthy 1 9 3 http-503 -", b"", State("unhealthy", 1, 9, "the answer was 503", began=3)),
        (b"", b"", None),
        (b"fine 0 1 1 - -", b"", None),
        (b"healthy x 1 1 - -", b"", None),
        (b"healthy 1 1 1 -", b"", None),
        (b"\xff\xff 1 1 1 - -", b"", None),
    ],
)
def test_a_state_is_read_from_a_line(line: bytes, said: bytes, state: State | None) -> None:
    assert health_line.parse(line, said) == state


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_are_a_state_or_none(line: bytes, said: bytes) -> None:
    found = health_line.parse(line, said)
    assert found is None or health_line.sentence(found).isprintable()


def test_a_sentence_says_what_was_wrong_and_what_was_done() -> None:
    assert not health_line.sentence(State("healthy"))
    assert not health_line.sentence(State("starting"))
    found = health_line.sentence(State("unhealthy", 3, 9, "it took too long", "restarted"))
    assert found == "is unhealthy: it took too long, 3 times in a row; it is restarted"
    found = health_line.sentence(State("unhealthy", 1, 99, "nothing listens there", "failed", 60))
    assert found == "is unhealthy: nothing listens there; its start failed for it after 39 seconds"
