"""What a generation says of secrets, and what it must not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from appbox import demands, desired, secrets, sources
from appbox.errors import ManifestError
from appbox.host.facts import Abilities
from appbox.manifest import as_table, parse
from tests.ground.pure import BASE, FACTS, HEAD, build, locked, rootfs

TABLES = """
[secrets.b]
file = "/etc/a b\\\\'$"
[secrets.a]
command = ["pass", "show", "", "x\\ny"]
path = "/srv/a"
mode = "0440"
owner = "www"
"""


def file(tables: str, path: str) -> bytes:
    return next(f.data for f in build(tables, User="7:8").files if f.path == path)


def test_a_generation_says_how_secrets_are_found() -> None:
    assert file(TABLES, "secrets/list").decode() == (
        f"1 command {BASE + 33}:{BASE + 33} 0440 a\n2 file {BASE + 7}:{BASE + 8} 0400 b\n"
    )
    assert file(TABLES, "secrets/1.command") == b"pass\0show\0\0x\ny\0"
    assert file(TABLES, "secrets/2.file") == b"/etc/a b\\'$\n"
    mode = {f.path: f.mode for f in build(TABLES).files}
    assert {mode[path] for path in mode if path.startswith("secrets/")} == {0o600}
    assert "secrets\n" in file(TABLES, "run").decode()
    assert b"secrets" not in file("", "run")


def test_they_are_mounted_read_only_after_what_lies_around_them() -> None:
    spec = json.loads(file(TABLES + '[volumes.run]\npath = "/run"\ntmpfs = true\n', "config.json"))
    places = [mount["destination"] for mount in spec["mounts"]]
    assert places.index("/run") < places.index("/run/secrets/b")
    mount = spec["mounts"][places.index("/srv/a")]
    assert mount["source"] == "/opt/containers/web-1.0/.live/secrets/1"
    assert mount["options"] == ["bind", "ro", "nosuid", "nodev", "noexec"]


def test_notes_tell_where_they_come_from() -> None:
    notes = [note for note in build(TABLES).notes if note.startswith("secret ")]
    assert notes[0].startswith('secret a is what "pass" prints at each start')
    assert notes[1].startswith("secret b is read from /etc/a b\\'$ at each start")


def test_owners_are_known_after_the_unpacking() -> None:
    before = desired.build(locked(TABLES), FACTS, BASE, None)
    assert b"1 command known-after-unpack 0440 a\n" in next(f.data for f in before.files if f.path == "secrets/list")
    with pytest.raises(ManifestError, match=r"web\.toml:\d+: secrets\.a\.owner: no such user"):
        build(TABLES.replace('"www"', '"nobody"'))
    with pytest.raises(ManifestError, match=r"secrets\.a\.owner: a service has the ids below 65536"):
        build(TABLES.replace('"www"', '"big"'), found=rootfs(passwd=b"big:x:70000:0::/:/bin/sh\n"))


def test_what_the_host_lacks_is_named_by_key() -> None:
    wrong = {"/etc/a b\\'$": "is missing", "age": "age is not installed"}
    facts = replace(FACTS, abilities=Abilities(secrets=wrong))
    (lack,) = demands.missing(locked(TABLES), facts)
    assert (lack.key, lack.message) == (("secrets", "b", "file"), "/etc/a b\\'$ is missing")
    assert not list(demands.missing(locked(TABLES), FACTS))


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ("[secrets.x]\n", "secrets.x: has none of file, command or age"),
        ('[secrets.x]\nfile = "/a"\nage = "b"\n', "secrets.x.age: stands beside file"),
        ('[secrets.x]\nfile = "a"\n', 'secrets.x.file: "a" is not an absolute path of the host'),
        ('[secrets.x]\nfile = "/a\\nb"\n', "secrets.x.file: holds a control character"),
        ("[secrets.x]\ncommand = []\n", "secrets.x.command"),
        ('[secrets.x]\ncommand = ["a\\u0000"]\n', "secrets.x.command[0]: holds a NUL character"),
        ('[secrets.x]\nfile = "/a"\nmode = "4400"\n', "secrets.x.mode"),
        ('[secrets.x]\nfile = "/a"\npath = "/etc/hosts"\n', "secrets.x.path"),
        ('[secrets.x]\nfile = "/a"\npath = "/proc/x"\n', "secrets.x.path"),
        ('[secrets."../x"]\nfile = "/a"\n', 'secrets."../x"'),
        (f'[secrets.x]\ncommand = ["a", "{"b" * 65534}"]\n', "secrets.x.command: is 65537 bytes long"),
    ],
)
def test_what_cannot_be_is_refused(tables: str, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(HEAD + tables, file="web.toml")
    assert words in str(caught.value)


def test_commands_and_names_may_be_as_long_as_their_limits() -> None:
    name = "x" * 63
    manifest = parse(HEAD + f'[secrets.{name}]\ncommand = ["a", "{"b" * 65533}"]\n', file="web.toml")
    assert parse(HEAD, file="x") != manifest
    assert as_table(manifest)["secrets"][name]["command"][1] == "b" * 65533


@pytest.mark.parametrize(
    ("data", "fine"),
    [
        (b"age-encryption.org/v1\n-> X25519", True),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", True),
        (b"the secret itself", False),
        (b"", False),
    ],
)
def test_only_what_age_encrypted_is_taken_for_it(tmp_path: Path, data: bytes, *, fine: bool) -> None:
    (tmp_path / "x.age").write_bytes(data)
    (tmp_path / "web.toml").write_text(HEAD + '[secrets.x]\nage = "x.age"\n')
    if fine:
        (one,) = sources.load([str(tmp_path)])
        assert one.encrypted == {"x": data}
        assert secrets.kind_of(one.manifest.secrets["x"]) == "age"
        return
    with pytest.raises(
        ManifestError, match=r"web\.toml:5: secrets\.x\.age: x\.age: is not encrypted with age"
    ) as caught:
        sources.load([str(tmp_path)])
    assert "the secret itself" not in str(caught.value)
