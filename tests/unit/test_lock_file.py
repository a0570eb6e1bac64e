"""The text of appbox.lock: written and read back, and what is wrong with one that somebody else wrote."""

from __future__ import annotations

import contextlib
import difflib
import tomllib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import ManifestError
from appbox.lock_file import Entry, LockFile, lock_file, parse

WEB = Entry(
    name="web",
    image="docker.io/library/nginx",
    version="~1.29",
    tag="1.29.3",
    digest=f"sha256:{'ab' * 32}",
    platforms=("linux/amd64", "linux/arm/v7"),
    locked=datetime(2026, 1, 31, 14, 30, 1, tzinfo=UTC),
)
TEXT = f"""\
# Which images the versions in the manifests beside this file mean. Written by appbox lock; keep it in git.
format = 1

[[service]]
name = "web"
image = "docker.io/library/nginx"
version = "~1.29"
tag = "1.29.3"
digest = "sha256:{"ab" * 32}"
platforms = ["linux/amd64", "linux/arm/v7"]
locked = 2026-01-31T14:30:01Z
"""


def named(name: str, version: str = "1", tag: str = "1", image: str = "docker.io/a/b") -> Entry:
    return replace(WEB, name=name, version=version, tag=tag, image=image)


def test_it_is_written_for_people_and_read_back() -> None:
    lock = lock_file("appbox.lock", [WEB])
    assert lock.text() == TEXT
    assert parse(TEXT, "appbox.lock") == lock
    assert parse("format = 1\n", "x") == LockFile("x")


def test_what_was_brought_along_says_so_in_a_line() -> None:
    brought = lock_file("appbox.lock", [replace(WEB, offline=True)])
    assert brought.text() == f"{TEXT}offline = true\n"
    assert parse(brought.text(), "appbox.lock") == brought
    assert (WEB.as_dict().get("offline"), brought.entries[0].as_dict()["offline"]) == (None, True)
    with pytest.raises(ManifestError, match="offline: expected true or false"):
        parse(f"{TEXT}offline = 1\n", "x")


def test_a_change_is_a_change_of_few_lines() -> None:
    before = lock_file("", [named("c"), WEB, named("a")])
    after = lock_file("", [named("b"), *(replace(e, tag="1.29.4") if e is WEB else e for e in before.entries)])
    lines = list(difflib.unified_diff(before.text().splitlines(), after.text().splitlines(), n=0))[2:]
    changed = [line for line in lines if not line.startswith("@@")]
    assert len([line for line in changed if line.startswith("-")]) == 1
    assert len([line for line in changed if line.startswith("+")]) == 1 + 9


ENTRIES = st.builds(
    Entry,
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
    image=st.sampled_from(["docker.io/a/b", "oci:images", 'oci:a "b" \\ é', "oci-archive:x.tar:y"]),
    version=st.just("*"),
    tag=st.from_regex(r"[1-9][0-9]{0,3}(\.[0-9]{1,3}){0,3}", fullmatch=True),
    digest=st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True),
    platforms=st.lists(st.sampled_from(["linux/amd64", "linux/arm64", "linux/arm/v7"])).map(tuple),
    locked=st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=0)),  # noqa: DTZ001
)


@given(st.lists(ENTRIES, unique_by=lambda entry: entry.key, max_size=5))
def test_whatever_is_written_is_read_back(entries: list[Entry]) -> None:
    lock = lock_file("x", entries)
    assert parse(lock.text(), "x") == lock == lock_file("x", reversed(entries))
    assert parse(lock.text(), "x").text() == lock.text()
    assert len(tomllib.loads(lock.text()).get("service", [])) == len(entries)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format = 1", "format = 2", "2: format: was made by a newer appbox; use that one"),
        ("format = 1", "", "1: format: expected format = 1; take it back from git, or delete it and run appbox lock"),
        ("format = 1", "format = 1\nx = 1", "3: x: unknown key"),
        ("format = 1", "format = true", "2: format: expected format = 1"),
        ("[[service]]", "[service]", "4: service: expected tables, got a table"),
        ("[[service]]", "<<<<<<< HEAD\n[[service]]", "4: not valid TOML"),
        ('name = "web"\n', "", "4: service[0].name: is missing"),
        ('name = "web"', 'name = "Web"', '5: service[0].name: "Web" is not a service name'),
        ("docker.io/library/nginx", "nginx", "6: service[0].image: "),
        ('version = "~1.29"', 'version = "~1.28"', '8: service[0].tag: "1.29.3" does not answer the version "~1.28"'),
        ('version = "~1.29"', 'version = "1.29"', '8: service[0].tag: "1.29.3" does not answer the version "1.29"'),
        ('version = "~1.29"', 'version = "~"', '7: service[0].version: "~" is no constraint'),
        ("1.29.3", "1.29/3", '8: service[0].tag: "1.29/3" is not a tag'),
        ("ababab", "ABABAB", "9: service[0].digest: "),
        ("digest", "digset", "9: service[0].digset: unknown key; did you mean "),
        ('"linux/amd64"', '"amd64"', "10: service[0].platforms[0]: "),
        ('["linux/amd64", "linux/arm/v7"]', '"linux/amd64"', "10: service[0].platforms: expected a list, got a string"),
        ('"linux/amd64"', "1", "10: service[0].platforms[0]: expected a string, got a whole number"),
        ("14:30:01Z", "14:30:01", "11: service[0].locked: expected a time"),
        ("2026-01-31T14:30:01Z", "2026-01-31", "11: service[0].locked: expected a time"),
        ("2026-01-31T14:30:01Z", TEXT.partition("[[")[2].join(["2026-01-31T14:30:01Z\n\n[[", ""]), "stands here twice"),
    ],
)
def test_a_damaged_lock_is_refused_with_file_line_and_key(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ManifestError) as caught:
        parse(TEXT.replace(old, new, 1), "services/appbox.lock")
    assert str(caught.value).startswith("services/appbox.lock:")
    assert said in str(caught.value)


@given(st.text(max_size=200) | st.integers(0, len(TEXT)).map(lambda cut: TEXT[:cut]))
def test_no_text_is_more_than_refused(text: str) -> None:
    with contextlib.suppress(ManifestError):
        parse(text, "x")


def test_what_answers_a_version() -> None:
    lock = lock_file("", [named("db", "~9.0", "9.0.1"), named("db", "8.1", "8.1"), named("db", "8", "8", "oci:x"), WEB])
    assert [one.tag for one in lock.of("db")] == ["8.1", "9.0.1", "8"]

    def tag(version: str, image: str = "docker.io/a/b", name: str = "db") -> str | None:
        found = lock.answer(name, image, version)
        return found.tag if found else None

    assert tag("~9.0") == tag("~9.0", "docker://docker.io/a/b") == "9.0.1"
    assert (tag("9.0.1"), tag("8.1"), tag("9.0.0"), tag("8")) == ("9.0.1", "8.1", None, None)
    assert (tag(">=8"), tag("<9"), tag("^9"), tag(">9.1")) == ("9.0.1", "8.1", "9.0.1", None)
    assert (tag("8", "oci:x"), tag("*", "oci:y"), tag("*", name="other")) == ("8", None, None)
