"""What appbox does to a host, as a table: what was there, the command, what must hold when it was cut off, and after.

A new operation is one entry of `OPERATIONS`; every test of this group then tries it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.crash import data_checks
from tests.crash.checks import data_at_home, data_once, gone, mine, put, settled, whole
from tests.ground import layers
from tests.ground.sandbox import GROUP, PASSWD, Sandbox

Words = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One command on a host in some state.

    `before` makes that state and `command` returns the words, after it has written the manifest. `between` holds
    wherever the command was cut off; `after` when it was given again and has ended, and `done` when it ended with 0.
    `kept` holds besides when it has failed by itself and said so: what was current is so still. `finished`: giving the
    command again may fail because there is nothing left to do.
    """

    name: str
    before: Callable[[Sandbox], None]
    command: Callable[[Sandbox], Words]
    between: Callable[[Sandbox], None]
    done: Callable[[Sandbox], None]
    kept: Callable[[Sandbox], None] | None = None
    finished: str = ""
    init: str = "systemd"
    kinds: tuple[str, ...] = ("tmpfs", "ext4", "xfs", "btrfs")

    def again(self, box: Sandbox, words: Words) -> None:
        """Give the command again, and see that it is as if nothing had happened."""
        result = box.appbox(*words, code=None if self.finished else 0)
        assert result.code == 0 or (self.finished and self.finished in result.err), result
        self.done(box)


def members(text: bytes) -> tuple[bytes, ...]:
    """Return what is in an image that says of itself which one it is."""
    return (
        layers.file(b"etc/passwd", PASSWD),
        layers.file(b"etc/group", GROUP),
        layers.directory(b"seed", uid=33, gid=33, mode=0o750),
        layers.file(b"seed/version", text, uid=33, gid=33),
        layers.hardlink(b"seed/twin", b"seed/version"),
        layers.symlink(b"app", b"seed/version"),
    )


def images(box: Sandbox) -> None:
    """Put the images of two versions into the layout."""
    for tag, text in (("1.0", b"1"), ("2.0", b"2")):
        box.image(tag, *members(text))


def applying(**tables: Any) -> Callable[[Sandbox], Words]:
    return lambda box: ("apply", box.manifest(**tables))


def both(*checks: Callable[[Sandbox], None]) -> Callable[[Sandbox], None]:
    def check(box: Sandbox) -> None:
        for one in checks:
            one(box)

    return check


def is_whole(*versions: str) -> Callable[[Sandbox], None]:
    return lambda box: whole(box, versions)


def is_still(version: str, text: str) -> Callable[[Sandbox], None]:
    """Return what sees that this version is current, of the image that says so, with its data."""

    def check(box: Sandbox) -> None:
        whole(box, (version,))
        data_at_home(box)
        assert (box.current() / "rootfs/seed/version").read_text() == text

    return check


def is_settled(version: str) -> Callable[[Sandbox], None]:
    return lambda box: settled(box, version)


def nothing(box: Sandbox) -> None:
    """Leave a host as it is."""


def used(**tables: Any) -> Callable[[Sandbox], None]:
    """Return what installs a service and has it write something."""

    def install(box: Sandbox) -> None:
        box.apply(**tables)
        put(box)

    return install


# The operations

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
JOB: Final[dict[str, Any]] = {"network": {"mode": "none"}, "service": {"schedule": "daily"}}
THEIRS: Final = "0 0 * * * theirs\n"


def _reconfigured(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_home(box)
    assert (box.current() / "config/c").read_text() == "x"


def _two_versions(box: Sandbox) -> None:
    box.apply()
    box.apply(version="2.0")
    put(box)


def _moved(box: Sandbox) -> None:
    used()(box)
    box.image("1.0", *members(b"m"))


def _is_moved(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_home(box)
    assert (box.current() / "rootfs/seed/version").read_text() == "m"


def _is_bridged(box: Sandbox) -> None:
    settled(box, "1.0")
    addresses = (box.root / "var/lib/appbox/addresses.toml").read_text()
    assert 'web" = { network = "appbox", address = "10.89.0.2" }' in addresses
    assert len(list((box.root / "etc/systemd/system").glob("web*.*"))) == 3


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
    upper.mkdir()
    (upper / "written").touch()
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
    box.apply(version="1.0")
    settled(box, "1.0")
    data_at_home(box)


def _is_purged(box: Sandbox) -> None:
    gone(box)
    assert [name for name in os.listdir(box.containers) if not name.startswith(".")] == []
    assert "web" not in (box.root / "var/lib/appbox/uid-ranges.toml").read_text()
    assert mine(box) == []


def _removing(*words: str) -> Callable[[Sandbox], Words]:
    return lambda _: ("remove", "web", *words)


OPERATIONS: Final = (
    Operation("first install", nothing, applying(), is_whole("", "1.0"), is_settled("1.0")),
    Operation(
        "first install with address, health, secrets", nothing, applying(**BRIDGED), is_whole("", "1.0"), _is_bridged
    ),
    Operation("configuration change", used(), applying(**CHANGED), both(is_whole("1.0"), data_once), _reconfigured),
    Operation(
        "upgrade, data moved",
        used(),
        applying(version="2.0"),
        both(is_whole("1.0", "2.0"), data_once),
        both(is_settled("2.0"), data_at_home),
        kept=is_still("1.0", "1"),
    ),
    Operation(
        "downgrade, data moved",
        _two_versions,
        applying(version="1.0"),
        both(is_whole("1.0", "2.0"), data_once),
        both(is_settled("1.0"), data_at_home),
        kept=is_still("2.0", "2"),
    ),
    Operation("moved tag", _moved, applying(), both(is_whole("1.0"), data_once), _is_moved, kept=is_still("1.0", "1")),
    Operation(
        "lost image, writes kept",
        _writes_of_lost_image,
        applying(security={"rootfs": "persistent"}),
        _written_once,
        _writes_at_home,
    ),
    Operation(
        "service becomes job of cron",
        _with_cron,
        applying(**JOB),
        both(is_whole("1.0"), data_once, lambda box: _table(box) and None),
        _is_job,
        init="openrc",
    ),
    Operation(
        "remove, job of cron",
        _job,
        _removing(),
        both(data_once, lambda box: _table(box) and None),
        _is_no_job,
        finished="is not installed",
        init="openrc",
    ),
    Operation("remove", _two_versions, _removing(), data_once, _is_removed, finished="is not installed"),
    Operation("purge", used(), _removing("--purge"), nothing, _is_purged, finished="is not installed"),
    Operation(
        "snapshot", data_checks.wrote, lambda _: ("snapshot", "web"), data_checks.is_untouched, data_checks.is_kept
    ),
    Operation(
        "restore",
        data_checks.kept,
        lambda box: ("restore", "web", data_checks.first(box)),
        data_checks.is_either,
        data_checks.is_restored,
    ),
    Operation(
        "purge of a snapshot",
        data_checks.kept,
        lambda box: ("snapshot", "web", "--purge", data_checks.first(box)),
        data_checks.is_listed_or_gone,
        data_checks.is_purged,
        finished="there is no snapshot",
    ),
)
