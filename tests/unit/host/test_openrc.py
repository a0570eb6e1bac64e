"""OpenRC's commands for the host's services and for a user's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appbox import owner
from appbox.errors import HostLacks
from appbox.host import openrc
from appbox.owner import Extent, Owner
from appbox.store import paths
from appbox.store.root import Root
from appbox.units import places

IDS = (Extent(0, 1000, 1),)
ALICE = Owner("alice", 1000, 1000, "/h", "/h/data", "/h/.config", "/h/cache", "/run/user/1000", IDS, IDS)


@pytest.fixture(autouse=True)
def nobody() -> Iterator[None]:
    yield
    owner.use(None)


@pytest.mark.parametrize("own", [None, replace(ALICE, by_root=True)], ids=["root", "root for alice"])
def test_roots_commands_are_to_the_hosts(own: Owner | None) -> None:
    owner.use(own)
    (program,) = openrc.words("sh")
    assert program.endswith("/sh")
    assert openrc.users_own() is None
    assert paths.OPENRC_STATE == "/run/openrc"
    assert len(places.files_of("openrc", "web")) == 3


def test_a_users_commands_are_to_the_users_own() -> None:
    owner.use(ALICE)
    assert openrc.words("sh")[1:] == ["--user"]
    assert (openrc.users_own(), paths.OPENRC_STATE) == (ALICE, "/run/user/1000/openrc")
    # The tables of cron, which a service of root's may have, are not the user's.
    assert places.files_of("openrc", "web") == ("/h/.config/rc/init.d/web",)
    assert places.links_of("openrc", "web")[0].path == "/h/.config/rc/runlevels/default/web"
    assert not places.files_of("none", "web")


def test_another_place_for_settings_is_told() -> None:
    owner.use(replace(ALICE, config="/h/etc"))
    env, variable, program, word = openrc.words("sh")
    assert (env, variable, word) == ("/usr/bin/env", "XDG_CONFIG_HOME=/h/etc", "--user")
    assert program.endswith("/sh")


def test_a_host_without_the_command_says_so() -> None:
    with pytest.raises(HostLacks, match="no-such-program is not installed"):
        openrc.words("no-such-program")


@pytest.mark.parametrize("place", ["usr/lib/rc", "usr/libexec/rc", "lib/rc"])
def test_what_starts_services_of_users_is_looked_for(tmp_path: Path, place: str) -> None:
    with Root(str(tmp_path)) as root:
        assert not openrc.has_users(root)
        (tmp_path / place / "sh").mkdir(parents=True)
        (tmp_path / place / "sh/openrc-user.sh").touch()
        assert openrc.has_users(root)
