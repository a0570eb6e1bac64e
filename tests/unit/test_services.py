"""The manifests in services/ are right, and everything that they name is there."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from appbox import manifest

DIRECTORY = Path(__file__).parents[2] / "services"
SERVICES = sorted(DIRECTORY.rglob("*.toml"))


def test_there_are_services() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.toml")} >= {"mariadb", "nginx", "postgres", "redis", "valkey"}
    assert {path.stem for path in DIRECTORY.glob("demo/*.toml")} == {"redis", "valkey"}


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_service_is_complete(path: Path) -> None:
    found = manifest.parse_bytes(path.read_bytes(), file=str(path))
    assert found.name == path.stem
    assert found.network.mode == "host"
    for config in found.config.values():
        if config.template:
            text = (path.parent / config.template).read_text()
            environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - no HTML
            assert environment.from_string(text).render(found.vars).isascii()
        if config.file:
            assert (path.parent / config.file).is_file()


def test_no_password_is_in_the_tree() -> None:
    for path in DIRECTORY.rglob("*"):
        if path.is_file():
            assert "PASSWORD =" not in path.read_text().replace('RANDOM_ROOT_PASSWORD = "1"', "")
