"""What a service wrote: the upper layer of a real overlay, told from the lower one, whatever is in it."""

from __future__ import annotations

import os
import socket
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appbox.host.upper import DEPTH, Upper, Write
from appbox.suggestion import Suggestion
from appbox.units.render import OVERLAY
from tests.ground.rootfs import mounted

pytestmark = pytest.mark.root

BASE = 1_879_048_192


@dataclass
class Layers:
    """An overlay below `place`: `merged` is what the service sees."""

    place: Path

    @property
    def lower(self) -> Path:
        return self.place / "lower"

    @property
    def upper(self) -> Path:
        return self.place / "upper"

    @property
    def merged(self) -> Path:
        return self.place / "merged"

    def look(self, *hidden: str) -> tuple[dict[str, Write], list[str]]:
        """Return the writes by path, in their order, and what could not be looked into."""
        upper, lower = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (self.upper, self.lower))
        try:
            found = Upper(upper, lower, BASE, frozenset(hidden))
            return {write.path: write for write in found.writes()}, found.unseen
        finally:
            os.close(upper)
            os.close(lower)

    def changes(self, *hidden: str) -> dict[str, str]:
        return {path: " ".join((write.change, *write.what)) for path, write in self.look(*hidden)[0].items()}


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Layers]:
    found = Layers(tmp_path)
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    for name in ("etc/app", "var/cache/app", "var/lib/app/sub", "srv"):
        (found.lower / name).mkdir(parents=True)
    for name in ("etc/one", "etc/two", "etc/app/conf", "var/lib/app/sub/deep", "srv/file"):
        (found.lower / name).write_text(f"{name}\n")
    (found.lower / "etc/link").symlink_to("one")
    for path in (found.lower, found.upper, *found.lower.rglob("*")):
        os.chown(path, BASE, BASE, follow_symlinks=False)
    options = f"lowerdir={found.lower},upperdir={found.upper},workdir={tmp_path / 'work'},{OVERLAY}"
    with mounted(found.merged, "overlay", options):
        yield found


def test_nothing_written_is_nothing_shown(layers: Layers) -> None:
    assert layers.look() == ({}, [])
    with (layers.merged / "etc/one").open("r+b"):
        pass  # copied up, and the same
    (layers.merged / "etc/gone").write_text("")
    (layers.merged / "etc/gone").unlink()
    assert (layers.upper / "etc/one").exists()
    assert layers.look() == ({}, [])


def test_everything_is_told_from_what_was_there(layers: Layers) -> None:
    merged = layers.merged
    (merged / "etc/one").write_text("other")
    (merged / "etc/two").chmod(0o600)
    os.chown(merged / "etc/app", BASE + 7, BASE)
    os.setxattr(merged / "var/lib/app/sub/deep", "user.note", b"x")
    (merged / "etc/link").unlink()
    (merged / "etc/link").symlink_to("two")
    os.chown(merged / "etc/link", BASE, BASE, follow_symlinks=False)
    (merged / "srv/file").unlink()
    (merged / "srv/file").mkdir()
    (merged / "srv/file/in").write_text("123")
    (merged / "var/cache/app").rmdir()
    os.mkfifo(merged / "srv/fifo")
    os.mknod(merged / "srv/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(merged / "srv/socket"))
    assert layers.changes() == {
        "/etc/app": "changed owner",
        "/etc/link": "changed content",
        "/etc/one": "changed content",
        "/etc/two": "changed mode",
        "/srv/fifo": "added",
        "/srv/file": "changed type",
        "/srv/file/in": "added",
        "/srv/null": "added",
        "/srv/socket": "added",
        "/var/cache/app": "deleted",
        "/var/lib/app/sub/deep": "changed xattr",
    }
    found, _ = layers.look()
    assert (found["/etc/one"].size, found["/etc/one"].was) == (5, len("etc/one\n"))
    assert [found[f"/srv/{name}"].kind for name in ("fifo", "null", "socket")] == ["fifo", "device", "socket"]


def test_a_directory_made_anew_hides_what_was_in_it(layers: Layers) -> None:
    (layers.merged / "var/lib/app/sub/deep").unlink()
    (layers.merged / "var/lib/app/sub").rmdir()
    (layers.merged / "var/lib/app/sub").mkdir()
    os.chown(layers.merged / "var/lib/app/sub", BASE, BASE)
    (layers.merged / "var/lib/app/sub/new").write_text("")
    assert layers.changes() == {"/var/lib/app/sub/new": "added", "/var/lib/app/sub/deep": "deleted"}


def test_what_the_runtime_makes_for_its_mounts_is_nobody_s_write(layers: Layers) -> None:
    for path in ("srv/a/b", "data", "srv/c/d"):
        (layers.merged / path).mkdir(parents=True)
    (layers.merged / "srv/c/mine").write_text("")
    (layers.merged / "data/old").write_text("from before there was a volume")
    assert layers.changes("/srv/a/b", "/data", "/srv/c/d") == {"/srv/c": "added", "/srv/c/mine": "added"}


def test_hostile_names_and_depths(layers: Layers, tmp_path: Path) -> None:
    names = [b"new\nline", b"\xff\xfe", "\u202eüñ🎉".encode(), b'quote"\\', b"\x1b[31m", b"-rf", b"x" * 255]
    for name in names:
        Path(os.fsdecode(os.fsencode(layers.merged / "srv") + b"/" + name)).write_text("")
    (layers.merged / "srv/out").symlink_to(tmp_path)
    (layers.merged / "srv/loop").symlink_to("loop")
    deep = os.open(layers.merged / "srv", os.O_RDONLY)
    for _ in range(DEPTH + 50):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    found, unseen = layers.look()
    shown = {os.fsencode(path.removeprefix("/srv/")) for path in found}
    assert {*names, b"out", b"loop"} <= shown
    assert len(unseen) == 1
    assert unseen[0].count("/d") == DEPTH
    assert not any(path.startswith("/srv/out/") for path in found)
    suggestion = Suggestion("0:0")
    for write in found.values():
        suggestion.add(write)
    text = suggestion.text("web", has_security=False)
    assert all(line.isprintable() for line in text.splitlines())
    made = tomllib.loads(text)
    assert made["security"] == {"rootfs": "read-only"}
    # There are files in /srv itself, so that it covers the directory, which would do with a volume of its own.
    assert {volume["path"] for volume in made["volumes"].values()} == {"/srv"}


def test_a_whiteout_that_a_service_made_itself_is_no_surprise(layers: Layers) -> None:
    (layers.merged / "etc/one").unlink()
    os.mknod(layers.upper / "etc/ghost", stat.S_IFCHR, 0)
    assert layers.changes() == {"/etc/one": "deleted"}
