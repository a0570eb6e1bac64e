"""Whose network can be shared."""

from __future__ import annotations

import pytest

from appbox import sharing
from appbox.errors import ManifestError
from appbox.locked import Locked, Shared
from tests.ground.pure import locked


def service(mode: str, more: str = "") -> Locked:
    return locked(f'[network]\nmode = "{mode}"\n{more}')


def test_what_an_installed_service_shares_is_in_its_table() -> None:
    assert sharing.of_table("a_b", {}) == Shared("a_b", "none", "a-b")
    table = {"network": {"mode": "bridge:back", "hostname": "store"}}
    assert sharing.of_table("db", table) == Shared("db", "bridge", "store")
    assert sharing.of_table("db", {"network": "broken"}) == Shared("db", "none", "db")


def test_a_manifest_of_the_run_says_the_same() -> None:
    assert sharing.of_manifest(service("pasta", 'hostname = "front"').manifest) == Shared("web", "pasta", "front")


@pytest.mark.parametrize("kind", ["none", "bridge", "pasta"])
def test_a_network_of_its_own_can_be_shared(kind: str) -> None:
    one, other = service("service:db"), Shared("db", kind, "db")
    assert sharing.find(one.manifest, one.document, {"db": other}) == other


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({}, "db is neither installed nor among the manifests"),
        ({"db": None}, "db is neither installed nor among the manifests"),
        ({"db": Shared("db", "host", "db")}, "db has the host's network"),
        ({"db": Shared("db", "service", "db")}, "db shares the network of another service itself"),
    ],
)
def test_anything_else_is_refused_with_its_line(known: dict[str, Shared | None], message: str) -> None:
    one = service("service:db")
    with pytest.raises(ManifestError, match=message) as caught:
        sharing.find(one.manifest, one.document, known)
    assert caught.value.problems[0].key == "network.mode"
    assert caught.value.problems[0].line > 0


def test_others_share_nothing() -> None:
    one = service("pasta")
    assert sharing.find(one.manifest, one.document, {}) is None
    assert list(sharing.problems([(one.manifest, one.document)])) == []


def test_who_shares_a_network() -> None:
    modes = {"b": "service:web", "a": "service:web", "c": "service:webs", "web": "pasta"}
    assert sharing.sharers("web", modes) == ("a", "b")
