"""Hosts with kernels of their own: what is applied there has its limits, and outlives a reboot and a power cut.

The tests of a host are the parts of one story, in this order: booting takes longer than anything else.
"""

from __future__ import annotations

import pytest

from tests.vm import system
from tests.vm.guest import Account, Guest

ALONE = "nothing was applied on this host before: run all tests of this file"
LIMITS = {"memory": "64M", "memory_swap": "0", "cpus": 0.5, "pids": 40}
FILES = {"memory.max": str(64 << 20), "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "40"}
# What takes a quarter of a gigabyte, as a script for the server and as a command.
GREEDY_SCRIPT = "return #string.rep(string.rep('x', 1048576), 256)"
GREEDY = "dd if=/dev/zero of=/dev/null bs=256M count=1; echo ended with $?"


@pytest.fixture(scope="class")
def accounts(guest: Guest) -> list[Account]:
    """Return those who have a service on the host."""
    return []


class Story:
    """What happens on one host, whose init is `init`."""

    def test_a_service_of_root_has_its_limits(self, guest: Guest, accounts: list[Account]) -> None:
        apply(Account(guest, "root", "cache", 6390), accounts)

    def test_a_service_of_a_user_has_its_limits(self, guest: Guest, accounts: list[Account]) -> None:
        """The user alone does it where there is an init for users, and root does it for the user elsewhere."""
        user = Account(guest, system.USER, "queue", 6391, options=("--user", system.USER))
        if guest.init == "systemd":
            guest.run(["loginctl", "enable-linger", system.USER])
            user = Account(guest, system.USER, "queue", 6391, by=system.USER, options=("--user",))
        apply(user, accounts)

    def test_what_is_executed_in_a_service_has_its_limits(self, accounts: list[Account]) -> None:
        assert accounts, ALONE
        for account in accounts:
            executes(account)

    def test_everything_is_back_after_a_reboot(self, guest: Guest, accounts: list[Account]) -> None:
        for account in accounts:
            account.write("before", "the reboot")
        with guest.step("# reboot"):
            guest.reboot()
        all_is_well(guest, accounts)

    def test_everything_is_back_after_a_power_cut(self, guest: Guest, accounts: list[Account]) -> None:
        for account in accounts:
            account.write("before", "the power cut")
            guest.say(f"{account.user}: set before 'the power cut' → OK; the power is cut")
        guest.power_off()
        with guest.step("booted again"):
            guest.boot()
        all_is_well(guest, accounts)
        for account in accounts:
            # Without the registry, which does not run.
            assert account.appbox("apply", account.manifest(resources=LIMITS)).out == "nothing to do\n"
            guest.say(f"{account.user}: appbox apply: nothing to do")


class TestSystemd(Story):
    init = "systemd"


class TestOpenrc(Story):
    init = "openrc"


def apply(account: Account, accounts: list[Account]) -> None:
    """Apply a manifest; see its limits in the kernel's own files, and what becomes of a server that exceeds them."""
    guest, who = account.guest, account.user
    file = account.manifest(resources=LIMITS)
    with guest.registry(), guest.step(f"{who}: appbox {' '.join((*account.options, 'apply', file))}"):
        account.appbox("apply", file)
    with guest.step(f"{who}: PONG"):
        account.wait_for_pong()
    accounts.append(account)
    limits = account.limits(FILES)
    guest.say(f"{who}: {', '.join(f'{name} is {value}' for name, value in limits.items())}")
    assert limits == FILES
    takes_too_much(account)
    assert_clean(account)


def takes_too_much(account: Account) -> None:
    """Have the kernel kill a server for what it takes; it comes back with its data."""
    account.write("before", "the kill")
    server = account.server()
    with account.guest.step(f"{account.user}: the server takes 256 MiB, is killed by the kernel, and is back"):
        assert account.redis("eval", GREEDY_SCRIPT, "0") == ""
        account.wait_for_pong()
    assert f"Memory cgroup out of memory: Killed process {server} (redis-server)" in account.guest.console()
    assert account.server() != server
    assert account.redis("get", "before") == "the kill"


def executes(account: Account) -> None:
    """Have the kernel kill what is executed in a service for what it takes."""
    said = account.appbox("exec", account.service, "sh", "-c", GREEDY).out.strip()
    account.guest.say(f"{account.user}: a command in the service that takes 256 MiB {said}")
    assert said == "ended with 137"


def all_is_well(guest: Guest, accounts: list[Account]) -> None:
    """See that every service came back by itself, with its data and limits, and that nothing is left to do."""
    assert accounts, ALONE
    for account in accounts:
        with guest.step(f"{account.user}: PONG"):
            account.wait_for_pong()
        for key, value in account.kept.items():
            assert account.redis("get", key) == value
        assert account.limits(FILES) == FILES
        assert_clean(account)
        guest.say(f"{account.user}: the data is there, the limits are set, appbox status: running, no drift")


def assert_clean(account: Account) -> None:
    """See that the service runs and is what its manifest says."""
    status = account.status()
    assert (status["state"], status["drift"], status["problem"]) == ("running", [], "")
