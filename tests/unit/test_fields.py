"""The words of a manifest: what each takes, what it makes of it, and what it refuses."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import constraints, fields
from appbox.fields import BadValueError, FrozenMap

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text()), st.dates(), st.datetimes()
)


@pytest.mark.parametrize("name", ["a", "valkey", "0", "a-b.c_d", "a" * 63, "web-1.29"])
def test_names(name: str) -> None:
    assert fields.name(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "_a", "a/b", "a b", "a\n", "é", "a" * 64, "a.sh", "a.slice"])
def test_no_names(name: str) -> None:
    with pytest.raises(BadValueError):
        fields.name(name)


@pytest.mark.parametrize(
    ("version", "constraint"),
    [("9.0.0", False), ("latest", False), ("17-alpine", False), ("v1_2", False), ("9", False)]
    + [(text, True) for text in ("*", "~9.0", ">=9,<10", ">= 9, < 10", "^1.2.3", "!=2", "==1.0-rc1")],
)
def test_versions(version: str, *, constraint: bool) -> None:
    assert fields.version(version) == version
    assert constraints.is_constraint(version) is constraint


@pytest.mark.parametrize("version", ["", ".1", "-1", "a" * 129, "1 2", "1\n", ">=", "~", ",", "1,2", "1/2", "1:2", "é"])
def test_no_versions(version: str) -> None:
    with pytest.raises(BadValueError):
        fields.version(version)


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_any_text_is_carried_as_it_is(text: str) -> None:
    assert fields.text(text) == text
    assert fields.argument(text) == text
    assert fields.environment({"A": text}) == {"A": text}


def test_arguments_end_where_execve_ends() -> None:
    assert len(fields.argument("x" * 131071)) == 131071
    with pytest.raises(BadValueError, match="131073 bytes"):
        fields.argument("é" * 65536)
    with pytest.raises(BadValueError) as refused:
        fields.environment({"OK": "x" * 131068, "AB": "x" * 131069})
    assert refused.value.at == ("AB",)


@pytest.mark.parametrize("path", ["/data", "/", "/a b/é", "/a:b,c", "/.hidden/...", "/a" * 100])
def test_paths(path: str) -> None:
    assert fields.path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "a", "./a", "//", "/a/", "/a//b", "/a/./b", "/..", "/a/../b", "/a\0", "/a\n", "/a\x7f", "/a\x9b", "/\u2028"],
)
def test_no_paths(path: str) -> None:
    with pytest.raises(BadValueError):
        fields.path(path)


def test_paths_are_as_long_as_linux_has_them() -> None:
    assert fields.path("/" + "x" * 255)
    for long in ("/" + "x" * 256, "/" + "é" * 128, "/x" * 2048):
        with pytest.raises(BadValueError, match="too long"):
            fields.path(long)


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/1", "/sys", "/sys/fs", "/dev", "/dev/shm"])
def test_what_is_the_runtimes_cannot_be_mounted_over(path: str) -> None:
    with pytest.raises(BadValueError):
        fields.target(path)


@pytest.mark.parametrize("path", ["/proc", "/proc/self/fd/7", "/x" * 1792, "relative"])
def test_nobody_works_where_the_runtime_would_be_left(path: str) -> None:
    with pytest.raises(BadValueError):
        fields.working_directory(path)


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%br-0.7", "::1", "127.0.0.1"])
def test_addresses(address: str) -> None:
    assert fields.address(address) == address


@pytest.mark.parametrize(
    "address", ["", "1.2.3", "::1%", "fe80::1%a b", "fe80::1%$(x)", "fe80::1%\u2003", "::1%" + "x" * 16]
)
def test_no_addresses(address: str) -> None:
    with pytest.raises(BadValueError):
        fields.address(address)


@pytest.mark.parametrize("path", ["/processes", "/system", "/devel", "/data/proc"])
def test_what_only_begins_alike_can(path: str) -> None:
    assert fields.target(path) == path


@pytest.mark.parametrize("user", ["image", "valkey", "999", "999:999", "www-data:www-data", "0", "a.b_c:10"])
def test_users(user: str) -> None:
    assert fields.user(user) == user


@pytest.mark.parametrize("user", ["", ":", "a:", ":a", "a:b:c", "-a", "a b", "a\n", "é", "2147483648", "a:99999999999"])
def test_no_users(user: str) -> None:
    with pytest.raises(BadValueError):
        fields.user(user)


@pytest.mark.parametrize(("mode", "bits"), [("0444", 0o444), ("644", 0o644), ("0000", 0), ("0777", 0o777)])
def test_modes(mode: str, bits: int) -> None:
    assert fields.mode(mode, 0o777) == bits


@pytest.mark.parametrize("mode", ["", "44", "0888", "1777", "000000", "rw-", 0o444, 444, True, None])
def test_no_modes(mode: object) -> None:
    with pytest.raises(BadValueError):
        fields.mode(mode, 0o777)


@pytest.mark.parametrize("name", ["web", "a.b.example", "0", "a-b", "A" * 63])
def test_host_names(name: str) -> None:
    assert fields.hostname(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a..b", ".a", "a.", "a_b", "a" * 64, "a." * 32 + "a", "é", "a\n"])
def test_no_host_names(name: str) -> None:
    with pytest.raises(BadValueError):
        fields.hostname(name)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/healthz", "https://[::1]/", "http://a?b=c"])
def test_urls(url: str) -> None:
    assert fields.url(url) == url


@pytest.mark.parametrize(
    "url", ["", "a", "ftp://a", "http://", "http://a:0", "http://a:x", "http://u:p@a", "http://[::1", "http://a/#"]
)
def test_no_urls(url: str) -> None:
    with pytest.raises(BadValueError):
        fields.url(url)


PARSERS: list[Callable[[object], object]] = [
    fields.name,
    fields.label,
    fields.version,
    fields.digest,
    fields.text,
    fields.argument,
    fields.environment_name,
    fields.hostname,
    fields.address,
    fields.path,
    fields.target,
    fields.source,
    fields.local_file,
    fields.user,
    fields.url,
    lambda value: fields.mode(value, 0o777),
]


@pytest.mark.parametrize("parse", PARSERS)
@given(value=ANYTHING)
def test_whatever_is_given_is_taken_or_refused_in_words(parse: Callable[[object], object], value: object) -> None:
    with contextlib.suppress(BadValueError):
        parse(value)


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("volume", ["volumes", "vars"], 'did you mean "volumes"?'),
        ("zzz", ["volumes"], ""),
        ("ARGS", ["args"], 'did you mean "args"?'),
    ],
)
def test_nearest(word: str, known: list[str], hint: str) -> None:
    assert fields.nearest(word, known) == hint


@pytest.mark.parametrize(
    ("inner", "outer", "below"),
    [("/a", "/a", True), ("/a/b", "/a", True), ("/ab", "/a", False), ("/a", "/a/b", False), ("/a", "/", True)],
)
def test_below(inner: str, outer: str, *, below: bool) -> None:
    assert fields.is_below(inner, outer) is below


def test_a_frozen_map_is_a_dict_that_does_not_change() -> None:
    frozen = FrozenMap({"a": 1})
    changes: list[Callable[[], object]] = [
        lambda: frozen.__setitem__("a", 2),
        lambda: frozen.__delitem__("a"),
        lambda: frozen.update(a=2),
        lambda: frozen.setdefault("b", 2),
        lambda: frozen.__ior__({"a": 2}),
        lambda: frozen.pop("a"),
        frozen.popitem,
        frozen.clear,
    ]
    for change in changes:
        with pytest.raises(TypeError):
            change()
    assert frozen == {"a": 1}
    assert hash(frozen) == hash(FrozenMap({"a": 1}))
    assert copy.deepcopy(frozen) is copy.copy(frozen) is frozen
    assert pickle.loads(pickle.dumps(frozen)) == frozen  # noqa: S301 - our own bytes
    assert json.loads(json.dumps(frozen)) == frozen
