"""Several places with data of one service: which of them is current after rollbacks, moved tags, kills and removals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from appbox import remembered
from appbox.differences import fingerprint
from appbox.store import failed, journal, state
from appbox.store.failed import Failure
from appbox.store.journal import Entry, Place
from appbox.store.paths import CONTAINERS
from appbox.store.root import Root
from tests.ground.sandbox import Sandbox, members

pytestmark = pytest.mark.root

WAYS: dict[str, dict[str, Any]] = {way: {"upgrade": {"data": way, "keep": 9}} for way in ("copy", "move")}
COPY, MOVE = WAYS["copy"], WAYS["move"]
ALL = ("a", "b", "c", "d", "e")


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    box = Sandbox(tmp_path)
    for tag in ("2.0", "3.0"):
        box.image(tag, *members(tag.encode()))
    return box


def put(box: Sandbox, name: str) -> None:
    (box.current() / "data/data" / name).write_text(name)


def has(box: Sandbox) -> str:
    return "".join(name for name in ALL if (box.current() / "data/data" / name).exists())


def image(box: Sandbox) -> str:
    return (box.current() / "rootfs/seed/version").read_text()


def killed(box: Sandbox, *, made: bool = True) -> None:
    """Leave a note of a change from 1.0 to 2.0 that was killed."""
    with Root(str(box.root)) as root:
        journal.write(root, Entry("web", Place("web-1.0", 1), Place("web-2.0", 2), running=False, made=made))


def copied(box: Sandbox) -> Path:
    """Leave what a kill between copying the data to 2.0 and switching to it leaves, and return the copy."""
    box.apply(**COPY)
    put(box, "a")
    box.apply(version="2.0", **COPY)
    box.appbox("rollback", "web")
    copy = box.containers / "web-2.0/data"
    shutil.rmtree(copy)
    shutil.copytree(box.containers / "web-1.0/data", copy)
    (copy / ".copied").touch()
    put(box, "b")
    return copy


@pytest.mark.parametrize("how", ["apply", "rollback"])
def test_a_copy_that_nobody_has_seen_is_nobodys_data(box: Sandbox, how: str) -> None:
    copied(box)
    if how == "apply":
        box.apply(version="2.0", **MOVE)
    else:
        box.appbox("rollback", "web", "--to", "2.0")
    assert box.current().name == "web-2.0"
    assert has(box) == "ab"
    assert not (box.containers / ".snapshots").exists()
    assert not box.debris()


def test_a_copy_that_nobody_has_seen_goes_with_the_change(box: Sandbox) -> None:
    copy = copied(box)
    killed(box)
    assert "was undone" in box.appbox("prune").err
    assert not copy.parent.exists()
    # One that was there before stays, without what the change had begun in it.
    copy = copied(box)
    (copy.parent / ".data.appbox-tmp").mkdir()
    killed(box, made=False)
    assert "was undone" in box.appbox("prune").err
    assert (copy.parent / "rootfs").is_dir()
    assert not copy.exists()
    assert not box.debris()
    assert has(box) == "ab"


def test_a_copy_that_was_migrated_is_made_anew(box: Sandbox) -> None:
    copy = copied(box)
    large = b"x" * (9 << 20)
    (box.current() / "data/data/c").write_bytes(large)
    shutil.copy2(box.current() / "data/data/c", copy / "data/c")
    with (copy / "data/c").open("r+b") as file:
        file.write(b"migrated")
    shutil.copystat(box.current() / "data/data/c", copy / "data/c")
    (copy / ".migrating").write_text("b")
    box.apply(version="2.0", **COPY)
    assert (box.current() / "data/data/c").read_bytes() == large


@pytest.mark.parametrize("way", WAYS)
def test_a_tag_that_moves_to_and_fro(box: Sandbox, way: str) -> None:
    for text, name in zip("ABA", "abc", strict=True):
        box.image("1.0", *members(text.encode()))
        box.apply(**WAYS[way])
        put(box, name)
    box.appbox("rollback", "web", "--to", "@2")
    assert (image(box), has(box)) == ("B", "ab" if way == "copy" else "abc")
    box.appbox("rollback", "web", "--to", "@3")
    assert (image(box), has(box)) == ("A", "abc")
    for text, name in zip("BA", "de", strict=True):
        box.image("1.0", *members(text.encode()))
        box.apply(**WAYS[way])
        put(box, name)
    assert (image(box), has(box)) == ("A", "abcde")
    box.settled()
    box.appbox("rollback", "web")
    assert image(box) == "B"
    assert not box.debris()


@pytest.mark.parametrize("keep", ["", "--keep-data"])
@pytest.mark.parametrize("way", WAYS)
def test_a_replaced_image_comes_back_from_another_version(box: Sandbox, way: str, keep: str) -> None:
    box.apply(**WAYS[way])
    put(box, "a")
    box.image("1.0", *members(b"B"))
    box.apply(**WAYS[way])
    put(box, "b")
    box.apply(version="2.0", **WAYS[way])
    put(box, "c")
    goes_along = way == "move" or bool(keep)
    for number, text, version, own in (("@1", "1", "1.0", "a"), ("@3", "2.0", "2.0", "abc"), ("@2", "B", "1.0", "ab")):
        box.appbox("rollback", "web", "--to", number, *([keep] if keep else []))
        assert box.current().name == f"web-{version}"
        assert (image(box), has(box)) == (text, "abc" if goes_along else own)
    assert not box.debris()


@pytest.mark.parametrize("way", WAYS)
def test_a_replaced_image_takes_its_place_when_nothing_has_it(box: Sandbox, way: str) -> None:
    box.apply(**WAYS[way])
    put(box, "a")
    box.image("1.0", *members(b"B"))
    box.apply(**WAYS[way])
    box.apply(version="2.0", **WAYS[way])
    shutil.rmtree(box.containers / "web-1.0")
    box.appbox("rollback", "web", "--to", "@1")
    assert (image(box), has(box)) == ("1", "a")
    box.appbox("rollback", "web", "--to", "2.0")
    assert has(box) == "a"


def test_the_present_data_goes_along_to_a_replaced_image(box: Sandbox) -> None:
    box.apply(**COPY)
    put(box, "a")
    box.image("1.0", *members(b"B"))
    box.apply(**COPY)
    put(box, "b")
    box.appbox("rollback", "web", "--keep-data")
    assert (image(box), has(box)) == ("1", "ab")
    (kept,) = (box.containers / ".snapshots/web").iterdir()
    assert (kept / "data/data/a").exists()


def test_what_was_just_replaced_is_not_removed_as_old(box: Sandbox) -> None:
    for text in "ABAB":
        box.image("1.0", *members(text.encode()))
        box.apply(upgrade={"data": "move", "keep": 2})
    box.appbox("rollback", "web")
    assert image(box) == "A"


@pytest.mark.parametrize("version", ["1.0", "2.0", "3.0"])
def test_after_a_removal_the_last_data_is_found_again(box: Sandbox, version: str) -> None:
    copied(box)
    box.appbox("remove", "web")
    box.apply(version=version, **COPY)
    assert has(box) == "ab"
    put(box, "c")
    box.apply(version="3.0" if version != "3.0" else "1.0", **COPY)
    put(box, "d")
    box.appbox("remove", "web")
    box.apply(version=version, **COPY)
    assert has(box) == "abcd"


def test_half_migrated_data_is_not_gone_back_with(box: Sandbox) -> None:
    box.apply(**MOVE)
    put(box, "a")
    box.apply(version="2.0", **MOVE)
    (box.current() / "data/.migrating").write_text("b")
    killed(box)
    said = box.appbox("prune").err
    assert "web: an interrupted change could be neither finished nor undone: web: upgrade.migrate of its data" in said
    error = box.appbox("rollback", "web", code=1).err
    assert "web: upgrade.migrate of its data has not come to its end; apply the manifest that asks for it" in error
    assert box.current().name == "web-2.0"


def test_prune_leaves_what_still_waits_to_be_moved(box: Sandbox) -> None:
    box.apply(**MOVE)
    put(box, "a")
    box.apply(version="2.0", **MOVE)
    box.apply(version="3.0", **MOVE)
    data = box.current() / "data"
    data.rename(box.containers / "web-1.0/data")
    (box.current() / ".carry").symlink_to("../web-1.0/data")
    box.apply("--no-start", version="3.0", upgrade={"data": "move", "keep": 1})
    assert has(box) == "a"
    (box.current() / "data").rename(box.containers / "web-1.0/data")
    (box.current() / ".carry").symlink_to("../web-1.0/data")
    assert "web-1.0" not in box.appbox("prune", "--purge").out
    assert (box.containers / "web-1.0/data/data/a").exists()
    shutil.rmtree(box.current())
    box.appbox("prune", "--purge")
    assert (box.containers / "web-1.0/data/data/a").exists()


def test_what_failed_is_no_obstacle_to_a_repair_and_forgotten_with_the_service(box: Sandbox) -> None:
    box.apply()
    with Root(str(box.root)) as root:
        with root.directory(CONTAINERS) as containers:
            current = state.stored(containers, "web", "web-1.0", 1)
        ill = Failure(
            fingerprint(remembered.recall(current)), 1, "1.0", current.digest, "2026-01-01T00:00:00Z", "it was ill"
        )
        failed.save(root, "web", ill)
    unit = box.root / "etc/systemd/system/web.service"
    unit.write_text(f"{unit.read_text()}# mine\n")
    box.apply()
    assert "# mine" not in unit.read_text()
    with Root(str(box.root)) as root:
        assert failed.load(root, "web") == []  # it is well now
        failed.save(root, "web", ill)
    box.apply(version="2.0")
    error = box.apply(code=1).err
    assert "1.0 did not get well on 2026-01-01T00:00:00Z, and is not tried again: it was ill" in error
    box.appbox("remove", "web", "--purge")
    with Root(str(box.root)) as root:
        assert failed.load(root, "web") == []
    box.apply()
