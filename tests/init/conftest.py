"""A fresh machine for each test, with a real init and appbox installed; every test runs with each init."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ground import images, machine, roots
from tests.init.host import Host

SUITE = os.environ.get("APPBOX_TEST_SUITE", "bookworm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is below this directory: all of it boots machines."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.init)


@pytest.fixture(params=sorted(roots.INITS))
def host(request: pytest.FixtureRequest, appbox_layer: Callable[[roots.Root], Path]) -> Iterator[Host]:
    """Return a booted machine, which is gone with all that it ran when the test ends."""
    images.ensure("redis")
    images.ensure("busybox")
    root = roots.ensure(request.param, SUITE)
    with machine.Machine(root, [appbox_layer(root)]) as booted:
        booted.boot()
        yield Host(booted)
