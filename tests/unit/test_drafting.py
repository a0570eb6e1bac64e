"""A manifest drawn from an image: right as it is, and nothing of the image in it can become a key."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import drafting
from appbox import manifest as manifests
from appbox.errors import UsageError
from appbox.manifest import Manifest
from appbox.oci.reference import parse_transport
from tests.ground.pure import image

VALKEY = "docker.io/valkey/valkey:9.0.0"


def drawn(reference: str = VALKEY, **config: Any) -> Manifest:
    """Return the manifest that is drawn, as `check` reads it."""
    return manifests.parse(drafting.draft(parse_transport(reference), image(**config)), file="x.toml")


def test_what_the_image_says_is_in_it() -> None:
    found = drawn(
        Volumes={"/data": {}, "/var/lib/x/": {}, "/srv/data": {}},
        ExposedPorts={"80/tcp": {}, "8080/tcp": {}, "53/udp": {}, "1-9/tcp": {}},
        Healthcheck={"Test": ["CMD", "valkey-cli", "ping"], "Interval": 10**10},
    )
    assert (found.name, found.image, found.version) == ("valkey", "docker.io/valkey/valkey", "9.0.0")
    assert {name: volume.path for name, volume in found.volumes.items()} == {
        "data": "/data", "x": "/var/lib/x", "data-2": "/srv/data",
    }  # fmt: skip
    assert [str(port) for port in found.network.ports] == [
        "127.0.0.1:8080:8080/tcp", "127.0.0.1:8053:53/udp", "127.0.0.1:8081:80/tcp",
    ]  # fmt: skip
    assert found.health is not None
    assert (found.health.exec, found.health.interval) == (("valkey-cli", "ping"), 10)


def test_an_image_that_says_nothing() -> None:
    found = drawn(Cmd=[], Entrypoint=[])
    assert found.process.args == ("/bin/sh",)
    assert found.network.mode == "none"
    assert found.health is None


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("docker.io/library/My_App.2:1", None),
        ("ghcr.io/a/my_app.2:1", "my-app-2"),
        ("localhost:5000/x.service:1", "x-service"),
        ("oci:/tmp/My Layout:1", "my-layout"),
        ("oci-archive:/tmp/image.tar.gz:1", "image"),
        ("docker-archive:/tmp/image.tar:valkey:9", "image"),
        ("oci:/:x", "service"),
    ],
)
def test_names_are_made_of_the_place(reference: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(UsageError):
            drawn(reference)
        return
    assert drawn(reference).name == name


def test_a_reference_without_a_tag_is_no_version() -> None:
    with pytest.raises(UsageError, match="named without its tag"):
        drawn(f"docker.io/valkey/valkey@sha256:{'0' * 64}")
    with pytest.raises(UsageError, match="named without its tag"):
        drawn("oci:/tmp/layout")


WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), max_size=3)


@given(WORDS, WORDS, WORDS, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
def test_nothing_of_an_image_becomes_a_key(words: list[str], paths: list[str], ports: list[str], word: str) -> None:
    text = drafting.draft(
        parse_transport(VALKEY),
        image(
            Entrypoint=words,
            Cmd=[f"{word}\nname = 1"],
            Env=[f"A={word}\n[security]\nuserns = 'host'"],
            Volumes={key: {} for key in [*paths, f"/{word}"]},
            ExposedPorts={key: {} for key in ports},
            User=f"{word}\n[security]",
            WorkingDir=f"/{word}\r\n",
            StopSignal=word,
        ),
    )
    data = tomllib.loads(text)
    assert data.keys() <= {"name", "image", "version", "process", "volumes", "network", "service", "health"}
    assert data["process"] == {}
    assert data["name"] == "valkey"
