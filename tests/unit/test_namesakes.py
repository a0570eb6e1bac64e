"""Services of one bridge that would be found by the same name."""

from __future__ import annotations

import pytest

from appbox import manifest as manifests
from appbox import namesakes
from appbox.document import Document
from appbox.manifest import Manifest


def planned(name: str, mode: str = "bridge", hostname: str = "") -> tuple[Manifest, Document]:
    text = f'name = "{name}"\nimage = "docker.io/library/x"\nversion = "1"\n[network]\nmode = "{mode}"\n'
    text += f'hostname = "{hostname}"\n' if hostname else ""
    return manifests.parse(text, file=f"{name}.toml"), Document(f"{name}.toml", text)


def found(*services: tuple[Manifest, Document], **installed: set[str]) -> list[str]:
    """Return the problems; `installed` are services of the network appbox and what they are called."""
    problems = namesakes.problems(services, {"appbox": list(installed.items())})
    return [f"{problem.file}:{problem.line}: {problem.key}: {problem.message}" for problem in problems]


def test_a_host_name_that_is_another_service_s_name_is_refused_where_it_stands() -> None:
    assert found(planned("web"), planned("job", hostname="web")) == [
        "job.toml:6: network.hostname: the host name web is the name of another service on the network appbox"
    ]
    assert found(planned("job", hostname="db"), db={"db"}) == [
        "job.toml:6: network.hostname: the host name db is the name of another service on the network appbox"
    ]


def test_a_name_that_is_another_service_s_host_name_is_refused() -> None:
    assert found(planned("db"), old={"old", "db"}) == [
        "db.toml:1: name: db is the host name of the service old on the network appbox"
    ]
    assert found(planned("a_b"), planned("a-b")) == [
        "a_b.toml:1: name: the host name a-b is the name of another service on the network appbox"
    ]


@pytest.mark.parametrize("mode", ["bridge:other", "host", "pasta", "none"])
def test_networks_have_names_of_their_own(mode: str) -> None:
    assert not found(planned("web"), planned("job", mode, "web"))


def test_what_is_planned_anew_does_not_clash_with_what_it_was() -> None:
    assert not found(planned("web", hostname="front"), planned("front2"), web={"web", "front2"})
    assert not found(planned("web", hostname="web"), planned("job", hostname="x"), planned("late", hostname="x"))
