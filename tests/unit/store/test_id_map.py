"""The ids that a user's services were made with: other ones are refused, more of them are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appbox import owner
from appbox.errors import HostLacks
from appbox.owner import Extent, Owner
from appbox.store import id_map, paths
from appbox.store.root import Root

IDS = (Extent(0, 1000, 1), Extent(1, 100_000, 65_536))
ALICE = Owner("alice", 1000, 1000, "/h", "/h/data", "/h/config", "/h/cache", "/run/user/1000", IDS, IDS)
MORE = Extent(65_537, 900_000, 10)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    owner.use(ALICE)
    try:
        with Root(str(tmp_path)) as found:
            found.make(f"{paths.CONTAINERS}/web-1")
            id_map.record(found)
            yield found
    finally:
        owner.use(None)


@pytest.mark.parametrize(
    "ids", [IDS, (*IDS, MORE), (Extent(0, 1000, 1), Extent(1, 100_000, 70_000))], ids=["same", "more", "longer"]
)
def test_the_same_ids_and_more_of_them_are_good(root: Root, ids: tuple[Extent, ...]) -> None:
    owner.use(replace(ALICE, uids=ids, gids=ids))
    id_map.refuse_changed(root)


@pytest.mark.parametrize(
    "ids",
    [
        (Extent(0, 1000, 1), Extent(1, 200_000, 65_536)),
        (Extent(0, 1000, 1), Extent(1, 100_000, 65_535)),
        (Extent(0, 1000, 1),),
        (Extent(0, 1000, 1), Extent(1, 900_000, 10), Extent(11, 100_000, 65_536)),
        (Extent(0, 1001, 1), Extent(1, 100_000, 65_536)),
    ],
    ids=["others", "fewer", "none", "another order", "another user"],
)
@pytest.mark.parametrize("kind", ["uids", "gids"])
def test_other_ids_are_refused(root: Root, kind: str, ids: tuple[Extent, ...]) -> None:
    owner.use(replace(ALICE, uids=ids) if kind == "uids" else replace(ALICE, gids=ids))
    with pytest.raises(HostLacks, match="/etc/sub"):
        id_map.refuse_changed(root)


def test_without_services_any_ids_do(root: Root, tmp_path: Path) -> None:
    (tmp_path / f"{paths.CONTAINERS.lstrip('/')}/web-1").rmdir()
    owner.use(replace(ALICE, uids=(*IDS[:1], MORE)))
    id_map.refuse_changed(root)


def test_lines_that_nobody_wrote_say_nothing(root: Root, tmp_path: Path) -> None:
    (tmp_path / f"{paths.STATE.lstrip('/')}/ids").write_bytes(b"uid x\n\xff\nuid 0 1000 1\nuid 99999999999 1 1\n")
    id_map.refuse_changed(root)


def test_root_has_no_such_file(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as found:
        id_map.record(found)
        id_map.refuse_changed(found)
    assert list(tmp_path.iterdir()) == []
