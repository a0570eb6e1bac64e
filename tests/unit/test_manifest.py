"""A manifest as a whole: what is taken, what it becomes, and that every way of being wrong ends in words."""

from __future__ import annotations

import time
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from appbox import manifest
from appbox.errors import ManifestError, Problem
from appbox.findings import _TABLES
from appbox.quantities import RestartLimit, Signal
from appbox.support import NOT_YET
from appbox.tables import Manifest

HEAD = 'name = "web"\nimage = "docker.io/library/nginx"\nversion = "1.29.0"\n'
FULL = """
name = "valkey"
image = "docker.io/valkey/valkey"
version = "9.0.0"
digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
description = "a key-value store"

[process]
entrypoint = ["docker-entrypoint.sh"]
args = ["valkey-server", "/etc/valkey/valkey.conf"]
env = { TZ = "UTC" }
workdir = "/data"
user = "999:999"
stop_signal = "int"
stop_timeout = 30

[volumes.data]
path = "/data"
owner = "valkey"
seed = "never"
[volumes.srv]
path = "/srv"
source = "/srv/val key"
read_only = true
[volumes.tmp]
path = "/tmp"
tmpfs = true
size = "64M"
mode = "1777"

[network]
mode = "host"
hostname = "valkey"

[vars]
maxmemory = "256mb"
list = [1, "a"]

[config."/etc/valkey/valkey.conf"]
template = "valkey.conf.j2"
mode = "0400"
owner = "image"
on_change = "none"

[security]
userns = "host"
capabilities = { add = ["net_admin"], drop = ["CAP_MKNOD", "chown"] }
no_new_privileges = false
seccomp = "unconfined"

[service]
restart = "always"
restart_delay = 3
restart_limit = "3/1m"
enable = false
"""
DEFAULTS = """
[process]
user = "image"
stop_timeout = 10
init = false
[network]
mode = "none"
ports = []
dns = []
hosts = {}
[security]
userns = "auto"
rootfs = "overlay"
capabilities = { add = [], drop = [] }
apparmor = ""
devices = []
sysctl = {}
[service]
requires = []
notify = false
schedule = ""
restart_limit = "5/60s"
log = { max_size = "10M", keep = 3 }
[upgrade]
data = "auto"
keep = 2
before = []
[resources]
[policy]
"""


def parse(text: str) -> Manifest:
    return manifest.parse(text, file="services/web.toml")


def refused(text: str) -> ManifestError:
    with pytest.raises(ManifestError) as error:
        parse(text)
    return error.value


def problems(text: str) -> tuple[Problem, ...]:
    try:
        parse(text)
    except ManifestError as error:
        return error.problems
    return ()


def test_everything_that_is_acted_on() -> None:
    found = parse(FULL)
    assert found.process.stop_signal == Signal("SIGINT", 2)
    assert found.volumes["tmp"].size == 64 << 20
    assert found.volumes["tmp"].mode == 0o1777
    assert found.config["/etc/valkey/valkey.conf"].mode == 0o400
    assert found.vars == {"maxmemory": "256mb", "list": (1, "a")}
    assert found.security.capabilities.drop == ("CAP_CHOWN", "CAP_MKNOD")
    assert found.service.restart_limit == RestartLimit(3, 60)


def test_the_least() -> None:
    found = parse(HEAD)
    assert found.network.mode == "none"
    assert "network" not in found.model_fields_set
    assert found.process.args is None
    assert found.volumes == {}


def test_a_default_that_is_written_down_changes_nothing() -> None:
    assert parse(HEAD + DEFAULTS) == parse(HEAD)


def test_a_manifest_does_not_change() -> None:
    found = parse(FULL)
    assert hash(found) == hash(parse(FULL))
    with pytest.raises(ValueError, match="frozen"):
        found.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        found.volumes["data"] = found.volumes["srv"]  # type: ignore[index]


@pytest.mark.parametrize("text", [FULL, HEAD, HEAD + DEFAULTS])
def test_what_is_stored_is_the_same_manifest(text: str) -> None:
    found = parse(text)
    assert parse(tomli_w.dumps(manifest.as_table(found))) == found


WORDS = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(WORDS, WORDS, WORDS, WORDS)
def test_free_text_arrives_as_it_is(one: str, two: str, three: str, four: str) -> None:
    table = {
        "name": "web",
        "image": "docker.io/library/nginx",
        "version": "1",
        "description": one,
        "process": {"args": ["x", two, one], "env": {"A": three}},
        "config": {"/etc/a": {"text": four}},
    }
    found = parse(tomli_w.dumps(table))
    assert (found.description, found.process.args, found.process.env["A"]) == (one, ("x", two, one), three)
    assert found.config["/etc/a"].text == four


@pytest.mark.parametrize("text", ["\r\n", "a\rb", "'\"`$%\\", "😀\u2028\x1b[0m\x7f", "x" * 65536, "é" * 65000])
def test_awkward_text_arrives_as_it_is(text: str) -> None:
    found = parse(tomli_w.dumps(manifest.as_table(parse(HEAD)) | {"process": {"args": [text], "env": {"A": text}}}))
    assert found.process.args == (text,)
    assert found.process.env == {"A": text}


def test_bytes() -> None:
    assert manifest.parse_bytes(b"\xef\xbb\xbf" + FULL.encode(), file="x") == parse(FULL)
    assert manifest.parse_bytes(FULL.replace("\n", "\r\n").encode(), file="x") == parse(FULL)


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (HEAD.encode() + b"# \xff\n", 4, "is not UTF-8"),
        (HEAD.encode("utf-16"), 1, "is UTF-16"),
        (HEAD.encode() + b"# " + b"x" * (1 << 20), 0, "is larger than 1048576 bytes"),
        (HEAD.encode() + b'description = "a\0b"', 4, "illegal character"),
        (HEAD.encode() + b"\0", 4, "not valid TOML"),
        (b"", 1, "is missing"),
    ],
    ids=range(6),
)
def test_bytes_that_are_no_manifest(data: bytes, line: int, words: str) -> None:
    with pytest.raises(ManifestError) as error:
        manifest.parse_bytes(data, file="x")
    assert error.value.problems[0].line == line
    assert words in str(error.value)


def test_surrogates_are_refused() -> None:
    assert "is not Unicode text" in str(refused(HEAD + 'description = "\ud800"'))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f'[process]\nargs = ["{"x" * 131072}"]', "process.args[0]"),
        (f'[process]\nenv = {{ AB = "{"x" * 131069}" }}', "process.env.AB"),
        (f'digest = "{"x" * 100_000}"', "digest"),
        (f"{'x' * 100_000} = 1", "x" * 100_000),
        (f"[process]\nuser = 0x{'f' * 5000}", "process.user"),
        (f"[process]\ninit = 0x{'f' * 5000}", "process.init"),
        (f"[process]\nstop_timeout = 0x{'f' * 5000}", "process.stop_timeout"),
        (f"[process]\nstop_timeout = {'9' * 5000}", ""),
        (f"[vars]\na = 0x{'f' * 5000}", "vars.a"),
        (f"[service]\nrestart = 0x{'f' * 5000}", "service.restart"),
        ("[vars]\na = " + "[" * 200 + "]" * 200, "vars.a"),
        ("[vars]\na = " + "[" * 20_000 + "]" * 20_000, "vars.a"),
        ("[vars]\na = " + "{a=" * 20_000 + "1" + "}" * 20_000, "vars.a"),
        (".".join("a" * 30_000) + " = 1", ""),
    ],
    ids=range(14),
)
def test_the_absurd_is_refused_quickly(text: str, key: str) -> None:
    began = time.monotonic()
    problems = refused(HEAD + text).problems
    assert [problem.key for problem in problems] == [key]
    assert len(problems[0].message) < 400
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("".join(f"k{n} = 1\n" for n in range(5000)), 5000),
        ("[process]\nargs = [" + "1," * 20_000 + "]", 20_000),
        ("".join(f'[volumes.v{n}]\npath = "/same"\n' for n in range(5000)), 4999),
        ("".join(f'[volumes.v{n}]\npath = "/v/{n}"\nsize = 1\n' for n in range(5000)), 5000),
        ("[network]\nmode = 'bridge'\nports = [" + "'1:1'," * 20_000 + "]", 19_999),
        ("[volumes.v]\npath = '/v'\n[config.'" + "/a" * 1700 + "']\ntext = 1", 1),
    ],
    ids=range(6),
)
def test_many_problems_take_little_time(text: str, count: int) -> None:
    began = time.process_time()
    assert len(refused(HEAD + text).problems) == count
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("ports", "clashes"),
    [
        (["80:1", "80:2"], [1]),
        (["80:1", "127.0.0.1:80:2"], [1]),
        (["127.0.0.1:80:2", "80:1"], [1]),
        (["0.0.0.0:80:1", "127.0.0.1:80:2", "[::1]:80:3"], [1, 2]),
        (["127.0.0.2:80:1", "127.0.0.1:80:2"], []),
        (["80:1", "80:1/udp", "81:1"], []),
    ],
)
def test_ports_of_the_host_are_taken_once(ports: list[str], clashes: list[int]) -> None:
    text = HEAD + f'[network]\nmode = "bridge"\nports = {ports}'
    if not clashes:
        assert [str(port) for port in manifest.parse(text, file="x").network.ports]
        return
    found = refused(text).problems
    assert [p.key for p in found if "taken" in p.message] == [f"network.ports[{index}]" for index in clashes]


@pytest.mark.parametrize(
    ("ports", "again"),
    [
        (["127.0.0.1:80:1", "[::1]:80:1"], [1]),
        (["127.0.0.1:80:1", "127.0.0.2:80:2/udp", "127.0.0.2:81:2"], []),
        (["80:1", "81:1"], []),
    ],
)
def test_pasta_publishes_a_port_on_one_address(ports: list[str], again: list[int]) -> None:
    found = problems(HEAD + f'[network]\nmode = "pasta"\nports = {ports}')
    assert [p.key for p in found if "pasta publishes" in p.message] == [f"network.ports[{index}]" for index in again]


def test_who_shares_a_network_leaves_names_and_ports_to_its_owner() -> None:
    keys = 'ports = ["80:80"]\nhostname = "a"\ndns = ["9.9.9.9"]\nhosts = { b = "192.0.2.1" }\n'
    sysctl = '[security]\nsysctl = { "net.core.somaxconn" = 512 }\n'
    found = problems(HEAD + f'[network]\nmode = "service:db"\n{keys}{sysctl}')
    assert [p.key for p in found] == [
        "network.ports",
        "network.hostname",
        "network.dns",
        "network.hosts",
        'security.sysctl."net.core.somaxconn"',
    ]


def _places() -> list[tuple[str, ...]]:
    """Return every key of every table, with a name where the user chooses one."""
    names = {"volumes": "data", "config": "/etc/a", "secrets": "a"}
    return [
        (*(names[str(where[0])] if part == "*" else str(part) for part in where), key)
        for where, keys in _TABLES.items()
        for key in sorted(keys)
    ]


ODD: list[Any] = [
    True,
    0,
    -1,
    2**70,
    1.5,
    float("nan"),
    "",
    "x",
    "\0",
    "a\nb",
    [],
    [[]],
    ["x", 1],
    {},
    {"x": {"y": []}},
]


@pytest.mark.parametrize("place", _places(), ids=".".join)
def test_any_value_anywhere_is_taken_or_refused_in_words(place: tuple[str, ...]) -> None:
    for odd in ODD:
        table = manifest.as_table(parse(HEAD))
        inner = table
        for part in place[:-1]:
            inner = inner.setdefault(part, {})
        inner[place[-1]] = odd
        for problem in problems(tomli_w.dumps(table)):
            assert problem.line
            assert not any(word in str(problem) for word in ("Input should", "pydantic", "Error", "Traceback"))


@pytest.mark.parametrize("key", NOT_YET)
def test_what_is_not_acted_on_names_a_key(key: str) -> None:
    *where, last = key.split(".")
    assert last in _TABLES[tuple(where)]


def test_findings_come_in_the_order_of_the_lines() -> None:
    problems = refused(HEAD + "[health]\ntcp = 0\n[process]\nuser = 1\nargs = 1\nzzz = 2\n").problems
    assert [problem.line for problem in problems] == [5, 7, 8, 9]
    assert refused(HEAD + "[health]\ntcp = 0\n").as_dict()["problems"][0]["file"] == "services/web.toml"
