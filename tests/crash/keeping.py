"""Data that is copied, put aside and brought back, versions that come back, and what goes from host to host."""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.crash.checks import (
    data_at_hand,
    data_at_home,
    data_once,
    mine,
    put,
    settled,
    tidy,
    whole,
)
from tests.crash.operation import Operation, Words, applying, both, is_still, is_whole, members, nothing, used
from tests.ground.sandbox import Sandbox

COPIED: Final[dict[str, Any]] = {"upgrade": {"data": "copy"}}
MOVED: Final[dict[str, Any]] = {"upgrade": {"data": "move"}}
KEEPING_ALL: Final[dict[str, Any]] = {"upgrade": {"data": "copy", "keep": 5}}
CLONED: Final[dict[str, Any]] = {"upgrade": {"data": "snapshot"}}
KINDS: Final = ("tmpfs", "ext4", "xfs", "btrfs")
CLONING: Final = ("xfs", "btrfs")
"""File systems whose files can share blocks."""


def _both_have_data(box: Sandbox) -> None:
    settled(box, "2.0")
    for version in ("1.0", "2.0"):
        assert (box.containers / f"web-{version}/data/data/mine").read_text() == "x"
    # A copy that may have been seen by the service is kept as a snapshot when another one takes its place.
    assert {path.read_text() for path in mine(box)} == {"x"}


def _upgrading(name: str, tables: dict[str, Any], kinds: tuple[str, ...]) -> Operation:
    return Operation(
        name,
        used(**tables),
        applying(version="2.0", **tables),
        both(is_whole("1.0", "2.0"), data_at_hand),
        _both_have_data,
        kept=both(is_whole("1.0"), data_at_hand),
        kinds=kinds,
    )


def _moved_copied(box: Sandbox) -> None:
    used(**COPIED)(box)
    box.image("1.0", *members(b"m"))


def _moved_has_data(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_hand(box)
    assert {path.read_text() for path in mine(box)} == {"x"}
    assert (box.current() / "rootfs/seed/version").read_text() == "m"


def _upgraded(**tables: Any) -> Callable[[Sandbox], None]:
    """Return what installs two versions one after the other, each of which writes something."""

    def upgrade(box: Sandbox) -> None:
        used(**tables)(box)
        box.apply(version="2.0", **tables)
        put(box, "newer", "y")

    return upgrade


def _back(**tables: Any) -> Callable[[Sandbox], Words]:
    def command(box: Sandbox) -> Words:
        box.manifest(**tables)
        return ("rollback", "web", "--to", "1.0")

    return command


def _upgraded_twice(box: Sandbox) -> None:
    """Install three versions one after the other, each of which but the last writes something."""
    box.image("3.0", *members(b"3"))
    _upgraded(**KEEPING_ALL)(box)
    box.apply(version="3.0", **KEEPING_ALL)
    put(box, "newest", "z")


def _is_back_at_first(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_hand(box)
    assert not (box.current() / "data/data/newer").exists()
    kept = {path.read_text() for path in box.containers.rglob("newest")}
    assert kept == {"z"}, "what was written last is nowhere"


def _newer_once(box: Sandbox) -> None:
    found = list(box.containers.rglob("newer"))
    assert len(found) == 1, f"what was written last is in {found}"
    assert found[0].read_text() == "y"


def _is_back_with_its_own_data(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_hand(box)
    _newer_once(box)
    assert not (box.current() / "data/data/newer").exists()


def _is_back_with_data(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_home(box)
    _newer_once(box)
    assert (box.current() / "data/data/newer").exists()


def _snapshots(box: Sandbox) -> list[Path]:
    """Return the data directories of the snapshots that are listed; there are no others."""
    listed = [one["id"] for one in box.appbox("--json", "snapshot", "--list", "web").data()["snapshots"]]
    shelf = box.containers / ".snapshots/web"
    assert sorted(path.name for path in shelf.glob("2*")) == sorted(listed)
    return [shelf / one / "data" for one in listed]


def _is_kept(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_hand(box)
    found = _snapshots(box)
    assert found
    assert all((data / "data/mine").read_text() == "x" for data in found)


def _kept_and_changed(box: Sandbox) -> None:
    used()(box)
    box.appbox("snapshot", "web")
    (box.current() / "data/data/mine").write_text("y")


def _restoring(box: Sandbox) -> Words:
    box.manifest()
    return ("restore", "web", _snapshots(box)[0].parent.name)


def _neither_lost(box: Sandbox) -> None:
    whole(box, ("1.0",))
    # A copy that was cut off may have an empty one, which nobody is ever shown.
    assert {path.read_text() for path in mine(box)} - {""} == {"x", "y"}
    assert (box.current() / "data/data/mine").read_text()


def _is_restored(box: Sandbox) -> None:
    settled(box, "1.0")
    _neither_lost(box)
    data_at_hand(box)


def _forgetting(box: Sandbox) -> Words:
    box.manifest()
    return ("snapshot", "web", "--purge", _snapshots(box)[0].parent.name, "--yes")


def _is_forgotten(box: Sandbox) -> None:
    settled(box, "1.0")
    assert not _snapshots(box)
    data_at_home_changed(box)


def data_at_home_changed(box: Sandbox) -> None:
    assert (box.current() / "data/data/mine").read_text() == "y"


SEVERAL: Final = ("web", "api", "db", "mail")


def _several(box: Sandbox) -> Words:
    for name in SEVERAL:
        box.manifest(name)
    return ("apply", box.services)


def _several_whole(box: Sandbox) -> None:
    found = {one["name"]: one["problem"] for one in box.appbox("--json", "status").data()}
    assert found.keys() <= set(SEVERAL)
    for name, problem in found.items():
        if problem:  # it was published, and not made the current one yet
            assert not os.path.lexists(box.containers / name), problem
            continue
        bundle = box.current(name)
        assert (bundle / "rootfs/seed/version").read_text() == "1"
        assert (bundle / "bundle.toml").read_text().startswith("created = ")


def _several_settled(box: Sandbox) -> None:
    _several_whole(box)
    box.settled()
    tidy(box)
    assert [one["name"] for one in box.appbox("--json", "status").data()] == sorted(SEVERAL)
    assert len(set(box.ranges.values())) == (len(SEVERAL) if box.gives_ranges else 0)
    box.appbox("verify")


def _two_services(box: Sandbox) -> None:
    used()(box)
    box.apply(name="api")


def _retiring(box: Sandbox) -> Words:
    (box.services / "web.toml").unlink()
    return ("apply", box.services, "--prune", "--yes")


def _is_retired(box: Sandbox) -> None:
    assert [one["name"] for one in box.appbox("--json", "status").data()] == ["api"]
    assert not (box.units / "web.service").exists()
    data_once(box)
    tidy(box)
    assert "rootfs" not in os.listdir(box.containers / "web-1.0"), "it is half removed"
    assert box.appbox("apply", box.services, "--prune").out == "nothing to do\n"


def _old_versions(box: Sandbox) -> None:
    box.image("3.0", *members(b"3"))
    used(upgrade={"keep": 1, "data": "move"})(box)
    for version in ("2.0", "3.0"):
        box.apply(version=version, upgrade={"keep": 5, "data": "move"})
    box.appbox("rollback", "web", "--to", "1.0")


def _pruning(box: Sandbox) -> Words:
    box.manifest(upgrade={"keep": 1, "data": "move"})
    return ("prune",)


def _is_pruned(box: Sandbox) -> None:
    settled(box, "1.0")
    data_at_home(box)
    assert [path.name for path in box.containers.glob("web-*")] == ["web-1.0"]


def _locking(box: Sandbox) -> Words:
    path = box.root / "srv/web.toml"
    box.folder(path.parent)
    path.write_text(box.manifest().read_text())
    return ("lock", path)


def _lock_whole(box: Sandbox) -> None:
    path = box.root / "srv/appbox.lock"
    if path.exists():
        assert [one["name"] for one in tomllib.loads(path.read_text())["service"]] == ["web"]


def _is_locked(box: Sandbox) -> None:
    _lock_whole(box)
    tidy(box)
    assert sorted(path.name for path in (box.root / "srv").iterdir()) == ["appbox.lock", "web.toml"]
    box.appbox("apply", "--locked", box.root / "srv/web.toml")


def _exported(box: Sandbox) -> None:
    used()(box)
    box.appbox("export", "web", "--data", "-o", box.place / "web.tar")
    box.appbox("remove", "web", "--purge")


def _exporting(box: Sandbox) -> Words:
    box.manifest()
    box.folder(box.root / "srv")
    return ("export", "web", "--data", "-o", box.root / "srv/web.tar")


def _export_whole(box: Sandbox) -> None:
    whole(box, ("1.0",))
    data_at_home(box)
    path, there = box.root / "srv/web.tar", box.place / "there"
    if path.exists():
        box.folder(there)
        box.appbox("--root", there, "import", path, "-d", there / "srv", root=False)
        shutil.rmtree(there)


def _is_exported(box: Sandbox) -> None:
    settled(box, "1.0")
    _export_whole(box)
    assert os.listdir(box.root / "srv") == ["web.tar"]


def _importing(box: Sandbox) -> Words:
    shutil.rmtree(box.root / "srv", ignore_errors=True)
    return ("import", box.place / "web.tar", "-d", box.root / "srv", "--force")


def _is_imported(box: Sandbox) -> None:
    tidy(box)
    box.appbox("apply", "--locked", box.root / "srv")
    assert box.appbox("apply", "--locked", box.root / "srv").out == "nothing to do\n"
    data_at_home(box)
    box.appbox("verify")


KEEPING: Final = (
    _upgrading("upgrade, data copied", COPIED, KINDS),
    _upgrading("upgrade, data cloned", CLONED, CLONING),
    Operation(
        "moved tag, data copied",
        _moved_copied,
        applying(**COPIED),
        both(is_whole("1.0"), data_at_hand),
        _moved_has_data,
        kept=both(is_whole("1.0"), data_at_hand),
    ),
    Operation(
        "rollback, data moved",
        _upgraded(**MOVED),
        _back(**MOVED),
        both(is_whole("1.0", "2.0"), data_once, _newer_once),
        _is_back_with_data,
        finished="is current already",
        kept=is_still("2.0", "2"),
    ),
    Operation(
        "rollback, data was copied",
        _upgraded(**COPIED),
        _back(**COPIED),
        both(is_whole("1.0", "2.0"), data_at_hand, _newer_once),
        _is_back_with_its_own_data,
        finished="is current already",
        kept=both(is_whole("2.0"), data_at_hand),
    ),
    Operation(
        "rollback --to an older one",
        _upgraded_twice,
        _back(**KEEPING_ALL),
        both(is_whole("1.0", "3.0"), data_at_hand),
        _is_back_at_first,
        finished="is current already",
        kept=both(is_whole("3.0"), data_at_hand),
    ),
    Operation(
        "snapshot",
        used(),
        lambda box: (box.manifest(), ("snapshot", "web"))[1],
        both(is_whole("1.0"), data_at_hand),
        _is_kept,
    ),
    Operation("restore", _kept_and_changed, _restoring, _neither_lost, _is_restored),
    Operation(
        "snapshot --purge",
        _kept_and_changed,
        _forgetting,
        both(is_whole("1.0"), data_at_home_changed),
        _is_forgotten,
        finished="there is no snapshot",
    ),
    Operation("first install of four", nothing, _several, _several_whole, _several_settled),
    Operation("apply --prune", _two_services, _retiring, data_once, _is_retired),
    Operation("prune", _old_versions, _pruning, both(is_whole("1.0"), data_once), _is_pruned),
    Operation("lock", nothing, _locking, _lock_whole, _is_locked),
    Operation("export with data", used(), _exporting, _export_whole, _is_exported, by_any=False),
    Operation("import with data", _exported, _importing, nothing, _is_imported),
)
