"""Where things are: the host's places, until somebody says that they are a user's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appbox.store import paths


@pytest.fixture(autouse=True)
def places_of_the_host() -> Iterator[None]:
    paths.use()
    yield
    paths.use()


def test_what_is_named_moves_and_the_rest_is_the_hosts() -> None:
    paths.use({"CONTAINERS": "/home/a/containers", "LOGS": "/home/a/log"})
    assert paths.bundle("web", "1.0") == "/home/a/containers/web-1.0"
    assert (paths.log_file("web"), paths.hook_log("web")) == ("/home/a/log/web.log", "/home/a/log/web:hooks.log")
    assert paths.STATE == "/var/lib/appbox"


def test_a_second_use_forgets_the_first() -> None:
    paths.use({"CONTAINERS": "/home/a/containers"})
    paths.use({"STATE": "/home/b/state"})
    assert (paths.CONTAINERS, paths.STATE) == ("/opt/containers", "/home/b/state")
    paths.use()
    assert (paths.CONTAINERS, paths.STATE) == ("/opt/containers", "/var/lib/appbox")


@pytest.mark.parametrize("name", ["CONTAINER", "POLICY", "LIMITS", "DATA", "_HOST", "use"])
def test_nothing_moves_that_is_no_place_of_a_user(name: str) -> None:
    before = getattr(paths, name, None)
    with pytest.raises(ValueError, match="no such places"):
        paths.use({name: "/home/a", "RUN": "/home/a/run"})
    assert getattr(paths, name, None) == before
    assert paths.RUN == "/run/appbox"
