"""A fresh machine for each test, with a real init and appbox installed; every test runs with each init."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ground import alpine, images, machine, roots
from tests.init.host import Host

SUITE = os.environ.get("APPBOX_TEST_SUITE", "bookworm")

# What runs a third time where OpenRC has busybox's shell and tools only, as on Alpine: enough to run every line of the
# scripts once. All of them do with APPBOX_TEST_BUSYBOX=all.
ON_BUSYBOX = (
    "test_reboot_brings_it_back[busybox-reboot]",
    "test_kill_9_leads_to_exactly_one_server[busybox-server]",
    "test_services_need_neither_appbox_nor_python[busybox]",
    "test_what_busybox_has_is_all_that_there_is[busybox]",
    "test_busyboxs_crond_starts_jobs_and_the_administrators_lines_stay[busybox]",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is below this directory: all of it boots machines. Leave out what one run with OpenRC shows."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.init)
    if os.environ.get("APPBOX_TEST_BUSYBOX") != "all":
        items[:] = [item for item in items if not leaves_out(item)]


def leaves_out(item: pytest.Item) -> bool:
    """Tell whether a test is one for busybox, and none of those that matter."""
    spec = getattr(item, "callspec", None)
    return spec is not None and spec.params.get("host") == "busybox" and item.name not in ON_BUSYBOX


@pytest.fixture(params=[*sorted(roots.INITS), "busybox"])
def host(request: pytest.FixtureRequest, appbox_layer: Callable[[roots.Root], Path]) -> Iterator[Host]:
    """Return a booted machine, which is gone with all that it ran when the test ends."""
    images.ensure("redis")
    images.ensure("busybox")
    root = alpine.ensure(SUITE) if request.param == "busybox" else roots.ensure(request.param, SUITE)
    with machine.Machine(root, [appbox_layer(root)]) as booted:
        booted.boot()
        yield Host(booted)
