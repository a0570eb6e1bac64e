"""The manifests in services/ are right, and everything that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest

from appbox import manifest

DIRECTORY = Path(__file__).parents[2] / "services"
SERVICES = sorted(DIRECTORY.rglob("*.toml"))


NAMES = [
    *("caddy", "forgejo", "garage", "grafana", "mariadb", "mosquitto", "nats", "nginx"),
    *("postgres", "prometheus", "redis", "syncthing", "traefik", "valkey", "vaultwarden"),
]
NOT_RUN = {"forgejo", "garage", "grafana", "traefik", "vaultwarden"}


def test_there_are_services() -> None:
    assert sorted(path.stem for path in DIRECTORY.glob("*.toml")) == NAMES
    assert {path.stem for path in DIRECTORY.glob("demo/*.toml")} == {"redis", "valkey"}


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_service_is_complete(path: Path) -> None:
    found = manifest.parse_bytes(path.read_bytes(), file=str(path))
    assert found.name == path.stem
    assert "network" in found.model_fields_set
    for config in found.config.values():
        if config.template:
            text = (path.parent / config.template).read_text()
            environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - no HTML
            assert environment.from_string(text).render(found.vars).isascii()
        if config.file:
            assert (path.parent / config.file).is_file()
        if config.directory:
            assert (path.parent / config.directory).is_dir()


@pytest.mark.parametrize("name", NAMES)
def test_a_service_has_the_least_that_it_needs(name: str) -> None:
    path = DIRECTORY / f"{name}.toml"
    found = manifest.parse_bytes(path.read_bytes(), file=str(path))
    assert found.health is not None
    assert found.security.rootfs == "read-only"
    assert "ALL" in found.security.capabilities.drop
    assert found.security.userns == "auto"
    assert found.security.no_new_privileges
    assert ("Not run by appbox's own tests" in path.read_text()) == (name in NOT_RUN)
    listed = re.search(rf"^\| .*`{name}\.toml`.* \| (yes|no) \|$", (DIRECTORY / "README.md").read_text(), re.MULTILINE)
    assert listed is not None
    assert (listed[1] == "no") == (name in NOT_RUN)


def test_no_password_is_in_the_tree() -> None:
    for path in DIRECTORY.rglob("*"):
        if path.is_file():
            assert "PASSWORD =" not in path.read_text().replace('RANDOM_ROOT_PASSWORD = "1"', "")
