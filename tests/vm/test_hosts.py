"""Hosts with kernels of their own: what is applied there has its limits, and outlives a reboot and a power cut.

The tests of a host are the parts of one story, in this order: booting takes longer than anything else.
"""

from __future__ import annotations

import pytest

from tests.vm import system
from tests.vm.guest import Account, Guest

LIMITS = {"memory": "64M", "memory_swap": "0", "cpus": 0.5, "pids": 40}
FILES = {"memory.max": str(64 << 20), "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "40"}
GREEDY = "dd if=/dev/zero of=/dev/null bs=256M count=1"


@pytest.fixture(scope="module")
def accounts(guest: Guest) -> list[Account]:
    """Return those who have a service on the host."""
    return []


def test_a_service_of_root_has_its_limits(guest: Guest, accounts: list[Account]) -> None:
    apply(Account(guest, "root", 6390), accounts)


def test_a_service_of_a_user_has_its_limits(guest: Guest, accounts: list[Account]) -> None:
    user = Account(guest, system.USER, 6391, ("--user",))
    if guest.init == "systemd":
        guest.run(["loginctl", "enable-linger", system.USER])
    apply(user, accounts)


def test_everything_is_back_after_a_reboot(guest: Guest, accounts: list[Account]) -> None:
    for account in accounts:
        account.write("before", "the reboot")
    with guest.step("# reboot"):
        guest.reboot()
    all_is_well(guest, accounts)


def test_everything_is_back_after_a_power_cut(guest: Guest, accounts: list[Account]) -> None:
    for account in accounts:
        account.write("before", "the power cut")
        guest.say(f"{account.user}: set before 'the power cut' → OK; the power is cut")
    guest.power_off()
    with guest.step("booted again"):
        guest.boot()
    all_is_well(guest, accounts)


def apply(account: Account, accounts: list[Account]) -> None:
    """Apply a manifest, and see its limits in the kernel's own files and in what happens to who takes too much."""
    guest, who = account.guest, account.user
    file = account.manifest(resources=LIMITS)
    with guest.registry(), guest.step(f"{who}: appbox apply {file}"):
        account.appbox("apply", file)
    account.wait_for_pong()
    accounts.append(account)
    limits = account.limits(FILES)
    guest.say(f"{who}: {', '.join(f'{name} is {value}' for name, value in limits.items())}")
    assert limits == FILES
    greedy = account.appbox("exec", account.service, "sh", "-c", f"{GREEDY}; echo ended with $?").out
    guest.say(f"{who}: what takes 256 MiB of 64 {greedy.strip()}")
    assert "ended with 137" in greedy
    status = account.status()
    assert status["usage"]["oom_kills"] == 1
    assert_clean(account)


def all_is_well(guest: Guest, accounts: list[Account]) -> None:
    """See that every service came back by itself, with its data and limits, and that nothing is left to do."""
    assert accounts, "nothing was applied on this host: run all tests of this file"
    for account in accounts:
        with guest.step(f"{account.user}: PONG"):
            account.wait_for_pong()
        for key, value in account.kept.items():
            assert account.redis("get", key) == value
        assert account.limits(FILES) == FILES
        assert_clean(account)
        guest.say(f"{account.user}: {len(account.kept)} values are there, status: running, no drift")


def assert_clean(account: Account) -> None:
    """See that the service runs and is what its manifest says, without asking the registry."""
    status = account.status()
    assert (status["state"], status["drift"]) == ("running", [])
    assert account.appbox("apply", account.manifest(resources=LIMITS)).out == "nothing to do\n"
