"""Users of the host, and the ranges that are theirs."""

from __future__ import annotations

import os

import pytest

from appbox.errors import UsageError
from appbox.host import subids
from appbox.host.subids import User


def test_users_go_by_name_and_by_number() -> None:
    assert subids.user("root") == subids.user(0)
    assert subids.user(0).name == "root"
    with pytest.raises(UsageError, match="nosuchuser: this host has no such user; getent passwd lists"):
        subids.user("nosuchuser")


def test_a_number_without_a_password_entry_is_a_user_too() -> None:
    assert subids.user(4_000_000_000) == User("", 4_000_000_000, 4_000_000_000, "")
    assert str(subids.user(4_000_000_000)) == "user 4000000000"
    assert subids.of(4_000_000_000).uids == ()
    assert subids.of(os.geteuid()).user == subids.user(os.geteuid())


def test_tables_are_read_where_they_are() -> None:
    assert [one.file for one in subids.tables()] == ["/etc/subuid", "/etc/subgid"]
