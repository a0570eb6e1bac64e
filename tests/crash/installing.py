"""Installing, changing and removing services: each operation with what must hold."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any, Final

from tests.crash.checks import data_at_home, data_once, gone, mine, put, settled
from tests.crash.operation import (
    Operation,
    Words,
    applying,
    both,
    is_settled,
    is_still,
    is_whole,
    members,
    nothing,
    used,
)
from tests.ground.sandbox import Sandbox

CHANGED: Final[dict[str, Any]] = {
    "config": {"/c": {"text": "x"}},
    "volumes": {"data": {"path": "/seed"}, "more": {"path": "/more"}},
    "service": {"enable": False},
}
BRIDGED: Final[dict[str, Any]] = {
    "network": {"mode": "bridge", "ports": ["8080:80"]},
    "secrets": {"a": {"file": "/etc/secret"}},
    "health": {"tcp": 80},
    "security": {"rootfs": "persistent"},
}
"""A service that needs an address, units of its health, and a place for what it writes."""
MOVED: Final[dict[str, Any]] = {"upgrade": {"data": "move"}}
"""Data moves along on every file system; by itself it is cloned where blocks can be shared."""
SHARED: Final[dict[str, Any]] = {
    "upgrade": {"data": "share", "data_format": "2", "before": [["save"]], "after": [["check"]]}
}
"""An upgrade to another format that nobody has to migrate; where nothing is started, its commands are not run."""
JOB: Final[dict[str, Any]] = {"network": {"mode": "none"}, "service": {"schedule": "daily"}}
THEIRS: Final = "0 0 * * * theirs\n"


def _reconfigured(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_home(box)
    assert (box.current() / "config/c").read_text() == "x"


def _two_versions(box: Sandbox) -> None:
    box.apply(**MOVED)
    box.apply(version="2.0", **MOVED)
    put(box)


def _planned(box: Sandbox) -> None:
    used(**MOVED)(box)
    box.appbox("plan", "-o", box.place / "web.plan", box.manifest(version="2.0", **MOVED))


def _locked(box: Sandbox) -> None:
    used(**MOVED)(box)
    box.appbox("lock", box.manifest(version=">=2", **MOVED))


def _moved(box: Sandbox) -> None:
    used(**MOVED)(box)
    box.image("1.0", *members(b"m"))


def _is_moved(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_home(box)
    assert (box.current() / "rootfs/seed/version").read_text() == "m"


def _is_bridged(box: Sandbox) -> None:
    settled(box, "1.0")
    addresses = (box.state / "addresses.toml").read_text()
    assert 'web" = { network = "appbox", address = "10.89.0.2" }' in addresses
    assert len(list(box.units.glob("web*.*"))) == 3


def _with_cron(box: Sandbox) -> None:
    (box.root / "usr/sbin").mkdir(parents=True)
    (box.root / "usr/sbin/crond").symlink_to("/bin/busybox")
    table = box.root / "etc/crontabs/root"
    table.parent.mkdir(parents=True)
    table.write_text(THEIRS)
    used(**BRIDGED)(box)


def _job(box: Sandbox) -> None:
    _with_cron(box)
    box.apply(**JOB)


def _table(box: Sandbox) -> str:
    text = (box.root / "etc/crontabs/root").read_text()
    assert text.startswith(THEIRS)
    return text.removeprefix(THEIRS)


def _theirs_kept(box: Sandbox) -> None:
    _table(box)


def _is_job(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_home(box)
    assert _table(box).splitlines(keepends=True)[1:] == ["0 0 * * * /opt/containers/web/run due\n"]


def _is_no_job(box: Sandbox) -> None:
    gone(box)
    assert not _table(box)
    data_once(box)


def _writes_of_lost_image(box: Sandbox) -> None:
    used(security={"rootfs": "persistent"})(box)
    upper = box.current() / "upper"
    box.folder(upper)
    (upper / "written").touch()
    os.chown(upper / "written", box.on_disk(33), box.on_disk(33))
    shutil.rmtree(box.current() / "rootfs")


def _written_once(box: Sandbox) -> None:
    assert len(list(box.containers.rglob("written"))) == 1
    data_once(box)


def _writes_at_home(box: Sandbox) -> None:
    settled(box, "1.0")
    _written_once(box)
    data_at_home(box)
    assert (box.current() / "upper/written").exists()


def _is_removed(box: Sandbox) -> None:
    gone(box)
    data_once(box)
    kept = [name for name in os.listdir(box.containers) if not name.startswith(".")]
    assert kept == ["web-2.0"]
    assert "rootfs" not in os.listdir(box.containers / "web-2.0")
    box.apply(version="1.0", **MOVED)
    settled(box, "1.0")
    data_at_home(box)


def _is_purged(box: Sandbox) -> None:
    gone(box)
    assert [name for name in os.listdir(box.containers) if not name.startswith(".")] == []
    assert "web" not in box.ranges
    assert mine(box) == []


def _removing(*words: str) -> Callable[[Sandbox], Words]:
    return lambda _: ("remove", "web", *words)


INSTALLING: Final = (
    Operation("first install", nothing, applying(), is_whole("", "1.0"), is_settled("1.0")),
    Operation(
        "first install with address, health, secrets",
        nothing,
        applying(**BRIDGED),
        is_whole("", "1.0"),
        _is_bridged,
        for_users=False,
    ),
    Operation("configuration change", used(), applying(**CHANGED), both(is_whole("1.0"), data_once), _reconfigured),
    Operation(
        "upgrade, data moved",
        used(**MOVED),
        applying(version="2.0", **MOVED),
        both(is_whole("1.0", "2.0"), data_once),
        both(is_settled("2.0"), data_at_home),
        kept=is_still("1.0", "1"),
    ),
    Operation(
        "upgrade, data shared, format noted",
        used(upgrade={"data": "share", "data_format": "1"}),
        applying(version="2.0", **SHARED),
        both(is_whole("1.0", "2.0"), data_once),
        both(is_settled("2.0"), data_at_home),
        kept=is_still("1.0", "1"),
    ),
    Operation(
        "apply FILE.plan",
        _planned,
        lambda box: ("apply", box.place / "web.plan"),
        both(is_whole("1.0", "2.0"), data_once),
        both(is_settled("2.0"), data_at_home),
        kept=is_still("1.0", "1"),
        finished="is not what was planned any more",
        instead=lambda box: ("apply", box.services),
    ),
    Operation(
        "apply --locked",
        _locked,
        lambda box: ("apply", "--locked", box.services),
        both(is_whole("1.0", "2.0"), data_once),
        both(is_settled("2.0"), data_at_home),
        kept=is_still("1.0", "1"),
    ),
    Operation(
        "downgrade, data moved",
        _two_versions,
        applying(version="1.0", **MOVED),
        both(is_whole("1.0", "2.0"), data_once),
        both(is_settled("1.0"), data_at_home),
        kept=is_still("2.0", "2"),
    ),
    Operation(
        "moved tag", _moved, applying(**MOVED), both(is_whole("1.0"), data_once), _is_moved, kept=is_still("1.0", "1")
    ),
    Operation(
        "lost image, writes kept",
        _writes_of_lost_image,
        applying(security={"rootfs": "persistent"}),
        _written_once,
        _writes_at_home,
        by_any=False,
    ),
    Operation(
        "service becomes job of cron",
        _with_cron,
        applying(**JOB),
        both(is_whole("1.0"), data_once, _theirs_kept),
        _is_job,
        init="openrc",
        for_users=False,
    ),
    Operation(
        "remove, job of cron",
        _job,
        _removing(),
        both(data_once, _theirs_kept),
        _is_no_job,
        finished="is not installed",
        init="openrc",
        for_users=False,
    ),
    Operation("remove", _two_versions, _removing(), data_once, _is_removed, finished="is not installed"),
    Operation("purge", used(), _removing("--purge"), nothing, _is_purged, finished="is not installed"),
)
