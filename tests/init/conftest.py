"""A fresh machine for each test, with a real init and appbox installed; every test runs with each init."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ground import alpine, images, machine, roots
from tests.init.host import Host
from tests.init.worlds import ROOTS_OWN, WORLDS, World

SUITE = os.environ.get("APPBOX_TEST_SUITE", "bookworm")

# What runs a third time where OpenRC has busybox's shell and tools only, as on Alpine: most lines of the scripts, and
# all that start a program of which busybox has its own. All tests do with APPBOX_TEST_BUSYBOX=all.
ON_BUSYBOX = (
    "test_what_busybox_has_is_all_that_there_is[busybox]",
    "test_kill_9_leads_to_exactly_one_server[busybox-server]",
    "test_services_need_neither_appbox_nor_python[busybox]",  # and a reboot
    "test_ports_and_pages_are_asked_for_in_the_network_of_the_service[busybox]",
    "test_secrets_are_in_the_container_and_nowhere_else[busybox]",
    "test_a_timed_job_runs_at_its_times_and_its_last_result_is_kept[busybox]",
)

FIRST = ("systemd", "openrc")
"""The worlds in which all tests run: root's services, which runc runs."""

# What runs in the others; all of it does in those that APPBOX_TEST_WORLDS names, separated by commas, or with "all".
IN_WORLDS = (
    "test_restart_policy[openrc-user-on-failure-0-False]",
    "test_restart_policy[openrc-user-crun-always-0-True]",
    "test_own_commands_control_and_show_the_service[systemd-user]",
    "test_kill_9_leads_to_exactly_one_server[systemd-user-server]",
    "test_services_need_neither_appbox_nor_python[systemd-user]",  # and a reboot
    "test_services_need_neither_appbox_nor_python[openrc-user]",
    "test_kill_9_leads_to_exactly_one_server[systemd-user-crun-runtime]",
    "test_nginx_writes_its_logs_to_its_own_output[systemd-user-crun]",
    "test_a_user_has_what_is_the_users_or_roots_and_nothing_of_others[systemd-user]",
    "test_without_an_overlay_each_start_has_a_copy[systemd-user]",
    "test_pasta_and_who_shares_its_network[systemd-user]",
    "test_bridges_of_an_ordinary_user[systemd-user]",
    "test_bridges_of_an_ordinary_user[openrc-user]",
    "test_the_openrc_of_a_user_runs_services[openrc-user-own]",
)

# A user's own OpenRC has neither cron nor cgroups that could be frozen; the doctor has prepared its host already.
NOT_OWN = (
    "test_a_timed_job_runs_at_its_times_and_its_last_result_is_kept",
    "test_a_service_becomes_a_job_and_one_no_more",
    "test_nobody_starts_or_judges_a_service_half_way",
    "test_a_running_service_is_kept_and_brought_back",
    "test_a_bare_user_is_prepared_step_by_step",
)

# What is about the host itself, or about root's work for users: there is nothing in it for a user's services.
HOSTS_OWN = ("test_machine.py", "test_alpine.py", "test_user_units.py", "test_upgrade_killed.py", "test_load.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is below this directory: all of it boots machines. Leave out what one run with OpenRC shows."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.init)
    items[:] = [item for item in items if runs(item)]


def runs(item: pytest.Item) -> bool:
    """Tell whether a test runs in its world: all of them do in the first worlds, in the others those that matter."""
    spec = getattr(item, "callspec", None)
    world = spec.params.get("host") if spec is not None else None
    if world is None or world in FIRST:
        return True
    if item.name in IN_WORLDS:
        return True
    if WORLDS[world].own and item.name.partition("[")[0] in NOT_OWN:
        return False
    if item.path.name in HOSTS_OWN and world != "busybox":
        return False
    if WORLDS[world].ordinary and item.name.partition("[")[0] in ROOTS_OWN:
        return False
    if world == "busybox":
        return os.environ.get("APPBOX_TEST_BUSYBOX") == "all" or item.name in ON_BUSYBOX
    asked = os.environ.get("APPBOX_TEST_WORLDS", "").split(",")
    return "all" in asked or world in asked


def root_of(world: World) -> roots.Root:
    """Return the root in which a world is booted, made when it is missing."""
    if world.own:
        return roots.ensure_users()
    return alpine.ensure(SUITE) if world.init == "busybox" else roots.ensure(world.init, world.suite or SUITE)


@pytest.fixture(params=sorted(WORLDS))
def host(request: pytest.FixtureRequest, appbox_layer: Callable[[roots.Root], Path]) -> Iterator[Host]:
    """Return a booted machine, which is gone with all that it ran when the test ends."""
    images.ensure("redis")
    images.ensure("busybox")
    world = WORLDS[request.param]
    root = root_of(world)
    with machine.Machine(root, [appbox_layer(root)], bare=world.bare) as booted:
        booted.boot()
        yield Host(booted, world)
