"""Whose a file of the host is, and who else may write to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from appbox.host import owners
from appbox.host.owners import FOREIGN, Whose


def info(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


OVER = owners.overflow()


@pytest.mark.parametrize(
    ("seen", "whose", "others"),
    [
        (info(0o664), Whose(0, 0, 0), False),
        (info(0o664, gid=5), Whose(0, 5, 0), True),
        (info(0o666), Whose(0, 0, 0), True),
        (info(0o664), Whose(0, 0, 1000, private=True), False),
        (info(0o664), Whose(0, 0, 1000, private=False), True),  # a group such as `users`, which many are in
        (info(0o664, OVER, OVER), Whose(0, 0, 0, private=False), False),  # root's of the host
        (info(0o664, OVER, OVER), Whose(0, FOREIGN, 0), True),
        (info(0o644, OVER, OVER), Whose(FOREIGN, FOREIGN, 1234), False),
    ],
)
def test_who_else_may_write(seen: os.stat_result, whose: Whose, others: bool) -> None:
    assert owners.others_may_write(seen, whose) is others


@pytest.mark.parametrize(
    ("seen", "whose", "usable"),
    [
        (info(0o600), Whose(0, 0, 1000), True),
        (info(0o400), Whose(0, 0, 1000), False),
        (info(0o660, OVER, OVER), Whose(0, FOREIGN, 0), False),  # the service leaves the user's groups
        (info(0o666, OVER, OVER), Whose(0, 0, 0), True),
    ],
)
def test_what_a_users_service_may_open(seen: os.stat_result, whose: Whose, usable: bool) -> None:
    assert owners.usable("/nowhere", seen, whose) is usable


def test_outside_of_a_namespace_ids_are_what_they_are(tmp_path: Path) -> None:
    found = tmp_path.stat()
    assert owners.of(found, -1) == Whose(found.st_uid, found.st_gid, found.st_uid)
    assert Whose(FOREIGN, FOREIGN, 7).trusted is False
