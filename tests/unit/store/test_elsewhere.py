"""A user's service has one unit: root's init system's, or the user's own, and of one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from appbox import owner
from appbox.errors import AppboxError
from appbox.owner import Extent, Owner
from appbox.store import elsewhere, paths
from appbox.store.root import Root
from appbox.units import openrc, systemd
from appbox.units.model import Unit

IDS = (Extent(0, 1000, 1),)
ALICE = Owner("alice", 1000, 1000, "/h", "/h/data", "/h/config", "/h/cache", "/run/user/1000", IDS, IDS)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    owner.use(ALICE)
    try:
        with Root(str(tmp_path)) as found:
            yield found
    finally:
        owner.use(None)


def put(tmp_path: Path, path: str, text: str) -> None:
    place = tmp_path / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def system_unit(user: str) -> Unit:
    return Unit("web", "1", rootless=True, user=user, uid=1000, bundles=paths.CONTAINERS, runs=paths.RUN)


@pytest.mark.parametrize("init", [systemd, openrc], ids=["systemd", "openrc"])
def test_what_roots_init_runs_is_roots_to_change(root: Root, tmp_path: Path, init: ModuleType) -> None:
    owner.use(replace(ALICE, by_root=True))
    text = init.render(system_unit("alice"))[0].text
    owner.use(ALICE)
    place = "/etc/systemd/system/web.service" if init is systemd else "/etc/init.d/web"
    for one in (text, text.replace("# {", "# changed {")):
        put(tmp_path, place, one)
        with pytest.raises(AppboxError, match="let root do it: appbox --user alice"):
            elsewhere.refuse(root, "systemd", "web")
    elsewhere.refuse(root, "systemd", "other")
    owner.use(replace(ALICE, by_root=True))
    elsewhere.refuse(root, "systemd", "web")
    owner.use(None)
    elsewhere.refuse(root, "systemd", "web")


def test_another_users_and_a_foreign_unit_are_no_concern(root: Root, tmp_path: Path) -> None:
    text = systemd.render(replace(system_unit("bob"), bundles="/home/bob/c"))[0].text
    put(tmp_path, "/etc/systemd/system/web.service", text)
    elsewhere.refuse(root, "systemd", "web")
    put(tmp_path, "/etc/systemd/system/web.service", "[Service]\nExecStart=/h/data/appbox/containers/web/run\n")
    elsewhere.refuse(root, "systemd", "web")


def test_what_the_users_own_systemd_runs_is_the_users(root: Root, tmp_path: Path) -> None:
    text = systemd.render(Unit("web", "1", rootless=True, bundles=paths.CONTAINERS, runs=paths.RUN))[0].text
    put(tmp_path, "/h/config/systemd/user/web.service", text)
    elsewhere.refuse(root, "systemd", "web")
    owner.use(replace(ALICE, by_root=True))
    with pytest.raises(AppboxError, match="let alice do it"):
        elsewhere.refuse(root, "systemd", "web")


def test_what_the_users_own_openrc_runs_is_the_users(root: Root, tmp_path: Path) -> None:
    text = openrc.render(Unit("web", "1", rootless=True, bundles=paths.CONTAINERS, runs=paths.RUN))[0].text
    put(tmp_path, "/h/config/rc/init.d/web", text)
    elsewhere.refuse(root, "openrc", "web")
    owner.use(replace(ALICE, by_root=True))
    with pytest.raises(AppboxError, match="is run by the own OpenRC of alice"):
        elsewhere.refuse(root, "openrc", "web")


def test_a_unit_of_services_in_another_place_is_not_taken_over(root: Root, tmp_path: Path) -> None:
    text = systemd.render(Unit("web", "1", rootless=True, bundles="/old/containers", runs=paths.RUN))[0].text
    put(tmp_path, "/h/config/systemd/user/web.service", text)
    elsewhere.refuse(root, "systemd", "web")  # there is nothing any more
    put(tmp_path, "/old/containers/web/run", "")
    with pytest.raises(AppboxError, match="XDG_DATA_HOME"):
        elsewhere.refuse(root, "systemd", "web")
