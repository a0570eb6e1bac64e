"""Whose services a process works for: which ids containers have, and where everything is then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import owner
from appbox.host.facts import IdRange
from appbox.owner import Extent, Owner
from appbox.store import paths

RANGES = (IdRange(100_000, 65_536), IdRange(300_000, 10))
ALICE = Owner(
    name="alice",
    uid=1000,
    gid=1001,
    home="/home/alice",
    data="/home/alice/.local/share",
    config="/home/alice/.config",
    cache="/home/alice/.cache",
    runtime="/run/user/1000",
    uids=owner.extents(1000, RANGES),
    gids=owner.extents(1001, RANGES[:1]),
)
UNITS = {"SYSTEMD_UNITS", "OPENRC_SCRIPTS", "RUNLEVEL", "OPENRC_SETTINGS", "OPENRC_STATE"}


@pytest.fixture(autouse=True)
def nobody() -> Iterator[None]:
    """Leave this process to the host, whatever a test does."""
    owner.use(None)
    yield
    owner.use(None)


def test_the_own_id_is_root_and_the_others_follow_without_a_gap() -> None:
    assert ALICE.uids == (Extent(0, 1000, 1), Extent(1, 100_000, 65_536), Extent(65_537, 300_000, 10))
    assert " ".join(map(str, ALICE.uids)) == "0 1000 1 1 100000 65536 65537 300000 10"


def test_an_empty_range_is_no_line() -> None:
    found = owner.extents(1000, (IdRange(5, 0), IdRange(100_000, 2)))
    assert found == (Extent(0, 1000, 1), Extent(1, 100_000, 2))


@given(
    st.lists(st.builds(IdRange, st.integers(0, 2**31), st.integers(-1, 2**16)), max_size=12),
    st.integers(1, 2**31),
    st.integers(1, 8),
)
def test_a_mapping_has_each_id_once_and_no_more_lines_than_the_kernel_takes(
    given_: list[IdRange], own: int, most: int
) -> None:
    found = owner.extents(own, tuple(given_), most)
    assert found[0] == Extent(0, own, 1)
    assert len(found) <= most
    for one, following in pairwise(found):
        assert following.inside == one.inside + one.size
    assert all(one.size > 0 for one in found)
    assert {(one.outside, one.size) for one in found[1:]} <= {(one.base, one.size) for one in given_}


def test_containers_have_as_many_ids_as_there_are_of_both_kinds() -> None:
    assert (ALICE.count, ALICE.alone) == (65_537, False)
    lonely = replace(ALICE, uids=owner.extents(1000, ()))
    assert (lonely.count, lonely.alone) == (1, True)


def test_everything_of_a_user_is_below_directories_of_the_users() -> None:
    places = ALICE.places()
    assert places["CONTAINERS"] == "/home/alice/.local/share/appbox/containers"
    assert places["RUN"] == "/run/user/1000/appbox"
    assert places["CONTAINER_STATES"] == "/run/user/1000"
    assert places["CACHE"] == "/home/alice/.cache/appbox"
    assert places["SYSTEMD_UNITS"] == "/home/alice/.config/systemd/user"
    assert {
        name for name, place in places.items() if not place.startswith(("/home/alice/.", "/run/user/1000"))
    } == set()
    # Every place of `paths` that is not the same for all is the user's own.
    assert places.keys() == paths._HOST.keys()


def test_where_root_works_for_a_user_the_units_are_the_systems() -> None:
    assert ALICE.places().keys() - replace(ALICE, by_root=True).places().keys() == UNITS


def test_a_process_works_for_one_owner() -> None:
    assert owner.current() is None
    owner.use(ALICE)
    assert owner.current() == ALICE
    assert paths.CONTAINERS == "/home/alice/.local/share/appbox/containers"
    owner.use(replace(ALICE, by_root=True))
    assert paths.SYSTEMD_UNITS == "/etc/systemd/system"
    owner.use(None)
    assert owner.current() is None
    assert (paths.CONTAINERS, paths.RUN) == ("/opt/containers", "/run/appbox")
