"""What is said of an image before it is downloaded: each thing that will fail, with what to write instead."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import manifest as manifests
from appbox import preflight
from tests.ground.pure import HEAD, locked

NETWORK = '[network]\nmode = "none"\n'
BRIDGE = '[network]\nmode = "bridge"\n'


def said(tables: str = NETWORK, **config: Any) -> str:
    return "\n".join(preflight.notes(locked(tables, **config)))


def test_an_image_that_asks_for_nothing_is_no_reason_for_words() -> None:
    assert said() == ""


def test_ports_that_nobody_reaches() -> None:
    ports = {"6379/tcp": {}, "80/tcp": {}}
    assert 'listens on 6379/tcp, 80/tcp, and mode = "none"' in said(ExposedPorts=ports)
    assert 'write ports = ["127.0.0.1:6379:6379/tcp"]' in said(BRIDGE, ExposedPorts=ports)
    assert 'write ports = ["127.0.0.1:8080:80/tcp"]' in said(BRIDGE, ExposedPorts={"80": {}})
    published = BRIDGE + 'ports = ["8081:8081"]\n'
    assert "does not declare port 8081/tcp; it declares 80/tcp" in said(published, ExposedPorts={"80/tcp": {}})
    assert said(published, ExposedPorts={"8081/tcp": {}}) == ""
    assert said(published) == ""
    assert said(published, ExposedPorts={"nonsense": {}, "99999999/x": {}}) != ""


@pytest.mark.parametrize(
    ("check", "table"),
    [
        ({"Test": ["CMD", "ping", "-c", "1"]}, {"exec": ["ping", "-c", "1"]}),
        ({"Test": ["CMD-SHELL", "a || exit 1"]}, {"exec": ["/bin/sh", "-c", "a || exit 1"]}),
        (
            {"Test": ["CMD", "x"], "Interval": 5 * 10**9, "Timeout": 1, "StartPeriod": 10**20, "Retries": 4},
            {"exec": ["x"], "interval": 5, "timeout": 1, "retries": 4},
        ),
        ({"Test": ["CMD", "x"], "Interval": 0, "Timeout": "5s", "Retries": True, "StartPeriod": -1}, {"exec": ["x"]}),
        ({"Test": ["CMD", "x"], "Interval": 10**20, "Retries": 4}, {"exec": ["x"]}),
        ({"Test": ["NONE"]}, {}),
        ({"Test": ["CMD"]}, {}),
        ({"Test": ["CMD", ""]}, {}),
        ({"Test": ["CMD", "a\0b"]}, {}),
        ({"Test": ["CMD", 5]}, {}),
        ({"Test": "CMD x"}, {}),
        ({}, {}),
        ([], {}),
    ],
)
def test_a_health_check_of_an_image_becomes_a_table(check: object, table: dict[str, Any]) -> None:
    data = json.dumps({"config": {"Healthcheck": check}}).encode()
    assert preflight.health(data) == table
    if table:
        lines = "".join(f"{key} = {preflight.toml_text.value(value)}\n" for key, value in table.items())
        assert manifests.parse(f"{HEAD}[health]\n{lines}", file="x").health is not None


def test_a_health_check_that_is_not_run_is_said() -> None:
    check = {"Test": ["CMD", "valkey-cli", "ping"], "Interval": 10**10}
    assert 'write [health] exec = ["valkey-cli", "ping"], interval = 10' in said(Healthcheck=check)
    assert said(NETWORK + "[health]\ntcp = 1\n", Healthcheck=check) == ""


def test_an_entrypoint_that_steps_down_needs_its_capabilities() -> None:
    dropped = NETWORK + '[security]\ncapabilities = { drop = ["ALL"]ADD }\n'
    data = {"/data": {}}
    text = said(dropped.replace("ADD", ""), Volumes=data)
    assert 'write add = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]' in text
    added = ', add = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]'
    assert said(dropped.replace("ADD", added), Volumes=data) == ""
    least = ', add = ["CHOWN", "SETGID", "SETUID"]'
    assert said(dropped.replace("ADD", least), Volumes=data) == ""
    text = said(dropped.replace("ADD", ', add = ["CHOWN", "DAC_OVERRIDE"]'), Volumes=data)
    assert "without CAP_SETGID, CAP_SETUID it cannot" in text
    assert 'write add = ["FOWNER", "SETGID", "SETUID"]' in text
    assert said(dropped.replace("ADD", ""), Volumes=data, User="999") == ""
    assert said('[process]\nuser = "999"\n' + dropped.replace("ADD", ""), Volumes=data) == ""
    assert said(dropped.replace("ADD", "")) == ""


def test_inits_in_images() -> None:
    init = "[process]\ninit = true\n"
    assert "brings an init of its own, /usr/bin/tini; take process.init out" in said(
        init + NETWORK, Entrypoint=["/usr/bin/tini", "--"]
    )
    assert said(init + NETWORK, Entrypoint=["/entry"]) == ""
    assert "starts /sbin/init" in said(Cmd=["/sbin/init"])
    assert said('[process]\nentrypoint = ["/bin/app"]\n' + NETWORK, Cmd=["/sbin/init"]) == ""


def test_variables_without_which_the_first_start_fails() -> None:
    assert "POSTGRES_PASSWORD or its like" in said(Env=["PG_MAJOR=17"])
    given = '[process]\nenv = { POSTGRES_PASSWORD_FILE = "/run/secrets/x" }\n' + NETWORK
    assert said(given, Env=["PG_MAJOR=17"]) == ""
    assert said(Env=["PG_MAJOR=17", "POSTGRES_HOST_AUTH_METHOD=trust"]) == ""
    assert "MARIADB_RANDOM_ROOT_PASSWORD" in said(Env=["MARIADB_VERSION=11"])


def test_volumes_without_a_place() -> None:
    def of(tables: str, *volumes: str) -> list[str]:
        return list(preflight.unmapped_volumes(locked(tables, Volumes={path: {} for path in volumes})))

    assert of('[volumes.a]\npath = "/data"\n', "/data", "/data/inner/") == []
    assert of("", "/var/lib/x") == [
        'VOLUME "/var/lib/x" gets a directory of the bundle; write [volumes.x] path = "/var/lib/x" to name it'
    ]
    (text,) = of("", '/a "b"\n[x]')
    assert "\n" not in text


# A configuration with NUL in it is refused before anybody speaks of it.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.dictionaries(st.text(), st.text(), max_size=3), st.lists(TEXT, max_size=3), TEXT)
def test_any_configuration_is_spoken_of_on_single_lines(table: dict[str, str], words: list[str], word: str) -> None:
    found = locked(NETWORK, ExposedPorts={key: {} for key in table}, Entrypoint=words, StopSignal=word, User=word)
    for line in preflight.notes(found):
        assert isinstance(line, str)
    assert tomllib.loads(f"a = {preflight.toml_text.value([table, words, word])}") == {"a": [table, words, word]}
