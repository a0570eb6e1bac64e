"""Credential helpers: real programs on PATH, run only when a configuration names them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from appbox.errors import AppboxError, HostLacks
from appbox.oci import credentials, helper, registries
from appbox.oci.credentials import Credentials
from appbox.oci.reference import RegistryImage
from appbox.oci.settings import Settings

ANSWER = '{"ServerURL": "x", "Username": "someone", "Secret": "secret"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "bin").mkdir(0o755)
    (tmp_path / ".docker").mkdir()
    return tmp_path


def install(folder: Path, name: str, script: str) -> Path:
    """Write a helper; what it was given is in `asked` beside it."""
    path = folder / "bin" / f"docker-credential-{name}"
    path.write_text(f'#!/bin/sh\necho "$1 $(cat)" >> {folder}/asked\n{script}\n')
    path.chmod(0o755)
    return path


def says(text: str) -> str:
    return f"cat <<'END'\n{text}\nEND"


def settings(folder: Path, **environ: str) -> Settings:
    base = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "PATH": f"{folder}/bin:/usr/bin:/bin"}
    return Settings(environ={**base, **environ}, etc=str(folder / "etc"))


def configure(folder: Path, **document: object) -> None:
    (folder / ".docker/config.json").write_text(json.dumps(document))


def find(folder: Path, image: str = "h.test/x", **environ: str) -> credentials.Found:
    registry, _, repository = image.partition("/")
    chosen = settings(folder, **environ)
    return credentials.find(RegistryImage(registry, repository), chosen, registries.load(chosen).helpers)


def asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("document", "image", "question"),
    [
        ({"credsStore": "one"}, "h.test/x", "get h.test"),
        ({"credsStore": "one"}, "docker.io/library/x", "get https://index.docker.io/v1/"),
        ({"credHelpers": {"h.test": "one"}}, "h.test/x", "get h.test"),
        ({"credHelpers": {"h.test:5000": "one"}}, "h.test:5000/x/y", "get h.test:5000"),
        ({"credHelpers": {"docker.io": "one"}}, "docker.io/library/x", "get docker.io"),
        ({"credHelpers": {"h.test": "one"}, "credsStore": "two"}, "h.test/x", "get h.test"),
    ],
)
def test_a_helper_is_asked(folder: Path, document: dict[str, object], image: str, question: str) -> None:
    install(folder, "one", says(ANSWER))
    configure(folder, **document)
    found = find(folder, image)
    assert found.credentials == Credentials("someone", "secret")
    assert asked(folder) == [question]


def test_no_helper_is_run_that_no_configuration_names(folder: Path) -> None:
    install(folder, "one", says(ANSWER))
    for document in ({}, {"credHelpers": {"other.test": "one"}}, {"credsStore": ""}, {"credHelpers": {"h.test": 1}}):
        configure(folder, **document)
        assert find(folder) == credentials.Found()
    auth = base64.b64encode(b"file:p").decode()
    configure(folder, auths={"h.test": {"auth": auth}}, credsStore="one")
    assert find(folder).credentials == Credentials("file", "p"), "what the file itself has needs no program"
    assert asked(folder) == []


def test_a_refresh_token(folder: Path) -> None:
    install(folder, "one", says('{"Username": "<token>", "Secret": "refresh"}'))
    configure(folder, credsStore="one")
    assert find(folder).credentials == Credentials(identity_token="refresh")


def test_helpers_of_registries_conf(folder: Path) -> None:
    """containers-registries.conf(5): in their order, with the files where their name stands."""
    install(folder, "one", "echo credentials not found in native keychain; exit 1")
    install(folder, "two", says(ANSWER))
    (folder / "etc/containers").mkdir(parents=True)
    conf = folder / "etc/containers/registries.conf"
    auth = base64.b64encode(b"file:p").decode()
    configure(folder, auths={"h.test": {"auth": auth}})
    for names, user in (
        (["one", "two", "containers-auth.json"], "someone"),
        (["containers-auth.json", "two"], "file"),
        (["one", "containers-auth.json"], "file"),
        (["two"], "someone"),
        ([], "file"),
    ):
        conf.write_text(f"credential-helpers = {json.dumps(names)}\n")
        found = find(folder).credentials
        assert found is not None
        assert found.user == user
    conf.write_text('credential-helpers = ["one"]\n')
    assert find(folder).credentials is None


@pytest.mark.parametrize("value", ["1", '"one"', '[""]', "[1]"])
def test_a_bad_list_of_helpers_is_named(folder: Path, value: str) -> None:
    (folder / "etc/containers").mkdir(parents=True)
    (folder / "etc/containers/registries.conf").write_text(f"credential-helpers = {value}\n")
    with pytest.raises(AppboxError, match="credential-helpers must be a list of names"):
        find(folder)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo credentials not found in native keychain; exit 1", "credentials not found in native keychain"),
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "exit code -9"),
        ('echo \'{"Username": "u"}\'', "no JSON with Username and Secret"),
        ("echo topsecret", "no JSON with Username and Secret"),
        ("echo '[]'", "no JSON with Username and Secret"),
        ('echo \'{"Username": 1, "Secret": 2}\'', "gave no credentials"),
        ('echo \'{"Username": "", "Secret": ""}\'', "gave no credentials"),
        ("head -c 3000000 /dev/zero", "no JSON with Username and Secret"),
        ('echo \'{"Username": "u", "Secret": "topsecret"}\'; exit 1', "exit code 1"),
        ('printf \'{\\n"Username": "u",\\n"Secret": "topsecret"\\n}\\n\'; exit 1', "exit code 1"),
        ("printf '\"topsecret\"\\n'; echo broken >&2; exit 1", "broken"),
        ('echo \'{"Username": "\\ud800", "Secret": "topsecret"}\'', "no JSON with Username and Secret"),
        ('echo \'{"Username": "u", "Secret": "a", "Secret": "topsecret"}\'', "no JSON with Username and Secret"),
    ],
)
def test_a_helper_that_fails_is_a_note_and_no_error(folder: Path, script: str, why: str) -> None:
    install(folder, "one", script)
    configure(folder, credsStore="one")
    found = find(folder)
    assert found.credentials is None
    assert why in found.note
    assert "topsecret" not in found.note


def test_a_helper_that_reads_nothing(folder: Path) -> None:
    path = install(folder, "one", "")
    path.write_text(f"#!/bin/sh\nexec 0<&-\n{says(ANSWER)}\n")
    configure(folder, credsStore="one")
    assert find(folder).credentials == Credentials("someone", "secret")


def test_a_helper_that_hangs_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "TIMEOUT", 0.3)
    install(folder, "one", "sleep 60")
    configure(folder, credsStore="one")
    assert "took longer than 0.3 s" in find(folder).note


def test_the_environment_is_small(folder: Path) -> None:
    install(folder, "one", f"env > {folder}/env\n{says(ANSWER)}")
    configure(folder, credsStore="one")
    find(folder, AWS_PROFILE="p", APPBOX_SECRET="s", LD_PRELOAD="/x.so", GNUPGHOME="/g", https_proxy="http://p")
    seen = dict(line.partition("=")[::2] for line in (folder / "env").read_text().splitlines())
    assert seen["HOME"] == str(folder)
    assert (seen["AWS_PROFILE"], seen["GNUPGHOME"], seen["https_proxy"]) == ("p", "/g", "http://p")
    assert not {"APPBOX_SECRET", "LD_PRELOAD"} & set(seen)


def test_one_that_is_not_installed_is_named(folder: Path) -> None:
    configure(folder, credsStore="none")
    assert "docker-credential-none is not installed" in find(folder).note
    with pytest.raises(HostLacks) as caught:
        helper.run(["docker-credential-none", "get"], b"", {"PATH": ""})
    assert caught.value.exit_code == 8


def test_a_program_that_others_may_change_is_passed_over(folder: Path) -> None:
    path = install(folder, "one", says(ANSWER))
    search = f"{folder}/bin"
    assert helper.find(path.name, search) == str(path)
    assert helper.find(path.name, "bin:.:") is None, "relative directories are nobody's"
    path.chmod(0o777)
    assert helper.find(path.name, search) is None
    path.chmod(0o755)
    (folder / "bin").chmod(0o777)
    assert helper.find(path.name, search) is None
    (folder / "bin").chmod(0o755)
    path.chmod(0o644)
    assert helper.find(path.name, search) is None
    assert os.path.basename(helper.find("env", "") or "") == "env"
