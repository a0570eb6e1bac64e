"""Layers over one another, on a real file system: whiteouts, and what they spare."""

from __future__ import annotations

import contextlib
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import Refused
from appbox.oci import unpack
from tests.ground.layers import (
    directory,
    file,
    of,
    pax,
    symlink,
)
from tests.ground.rootfs import IDENTITY, Root

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    made.close()


class TestWhiteouts:
    def test_of_lower_layers(self, root: Root) -> None:
        root.unpack(
            of(
                file(b"a"),
                directory(b"d"),
                file(b"d/x"),
                file(b"d/y"),
                directory(b"e"),
                file(b"e/z"),
                symlink(b"l", b"d"),
            ),
            of(
                file(b".wh.a"),
                file(b"d/.wh.x"),
                file(b"e/.wh..wh..opq"),
                file(b".wh.l"),
                file(b"no/.wh.x"),
                file(b".wh.no"),
            ),
        )
        assert root.names() == ["d", "d/y", "e"]

    @pytest.mark.parametrize("order", [1, -1])
    def test_spare_their_own_layer_in_any_order(self, root: Root, order: int) -> None:
        lower = of(
            directory(b"d", uid=5, mode=0o700), file(b"d/old"), file(b"d/both", b"old"),
            pax({b"SCHILY.xattr.user.a": b"b"}), directory(b"d/sub", uid=5, mode=0o700, mtime=9), file(b"d/sub/old"),
            file(b"f", b"old"), directory(b"g"), file(b"g/old"),
        )  # fmt: skip
        made = [
            directory(b"d", uid=6), file(b"d/new"), file(b"d/both", b"new"), file(b"d/sub/new"),
            file(b"f", b"new"), directory(b"g"), file(b"g/new"),
        ]  # fmt: skip
        parts = [[file(b"d/.wh..wh..opq"), file(b".wh.f"), file(b".wh.g")], made][::order]
        root.unpack(lower, of(*parts[0], *parts[1]))
        assert root.names() == ["d", "d/both", "d/new", "d/sub", "d/sub/new", "f", "g", "g/new"]
        assert (root.read("d/both"), root.read("f"), root.stat("d").st_uid) == ("new", "new", 6)
        status = root.stat("d/sub")
        assert (status.st_uid, stat.S_IMODE(status.st_mode), status.st_mtime) == (0, 0o755, 0)
        assert os.listxattr(root.path / "d/sub") == []

    def test_through_symlinks(self, root: Root) -> None:
        root.unpack(
            of(directory(b"usr/lib"), symlink(b"lib", b"usr/lib"), file(b"usr/lib/a"), file(b"usr/lib/b")),
            of(file(b"lib/new"), file(b"usr/lib/.wh..wh..opq")),
            of(file(b"lib/.wh.new"), file(b"lib/c")),
        )
        assert root.names() == ["lib", "usr", "usr/lib", "usr/lib/c"]

    def test_in_the_lowest_layer(self, root: Root) -> None:
        root.unpack(of(file(b"f"), file(b".wh.f"), file(b".wh..wh..opq"), directory(b"d"), file(b"d/.wh..wh..opq")))
        assert root.names() == ["d", "f"]

    def test_of_a_symlink_out(self, root: Root) -> None:
        root.unpack(
            of(symlink(b"l", b"../outside")), of(file(b"l/.wh.file"), file(b"l/.wh..wh..opq")), of(file(b".wh.l"))
        )
        assert root.names() == []

    @pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b"d/.wh...", b"d/.wh.."])
    def test_that_delete_the_directory_or_its_parent(self, root: Root, name: bytes) -> None:
        root.refuse("whiteout", of(directory(b"d"), file(b"f")), of(file(name)))
        assert root.names() == []  # it was known before the lower layer was written

    def test_a_directory_of_lower_layers_keeps_its_content(self, root: Root) -> None:
        root.unpack(
            of(pax({b"SCHILY.xattr.user.a": b"1"}), directory(b"d", uid=1, mode=0o700, mtime=3), file(b"d/f")),
            of(pax({b"SCHILY.xattr.user.b": b"2"}), directory(b"d", uid=2, mode=0o711, mtime=4)),
        )
        status = root.stat("d")
        assert (status.st_uid, stat.S_IMODE(status.st_mode), status.st_mtime) == (2, 0o711, 4)
        assert os.listxattr(root.path / "d") == ["user.b"]
        assert root.names() == ["d", "d/f"]

    def test_times_of_directories_that_upper_layers_fill(self, root: Root) -> None:
        root.unpack(of(directory(b"d", mtime=3), directory(b"d/e", mtime=4)), of(file(b"d/e/f"), file(b"d/.wh.x")))
        assert (root.stat("d").st_mtime, root.stat("d/e").st_mtime) == (3, 4)

    def test_random_layers_agree_with_the_listing(self, root: Root) -> None:
        """Many layers over a small set of names, some of them symlinks: disk and listing come out the same."""
        chance = random.Random(7)  # noqa: S311 - the same layers each time
        names = [b"a", b"b", b"a/a", b"a/b", b"b/a", b"l/a", b"l/b/a", b"a/a/a", b"l"]

        def member() -> bytes:
            name = chance.choice(names)
            parent, _, last = name.rpartition(b"/")
            below = parent + b"/" if parent else b""
            makers = [
                lambda: directory(name, uid=chance.randrange(5)), lambda: file(below + b".wh." + last),
                lambda: file(below + b".wh..wh..opq"), lambda: directory(name),
                lambda: file(name + b"f", uid=chance.randrange(5)),
                lambda: symlink(b"l", chance.choice([b"a", b"b", b"/a/b", b"../b", b"new"])),
            ]  # fmt: skip
            return chance.choice(makers)()

        for turn in range(150):
            layers = [of(*(member() for _ in range(chance.randrange(1, 8)))) for _ in range(4)]
            path = root.path / str(turn)
            path.mkdir()
            fd = os.open(path, os.O_RDONLY)
            try:
                listing = unpack.list_image(layers)
            except Refused:
                with pytest.raises(Refused):
                    unpack.unpack(layers, fd, IDENTITY, durable=False)
            else:
                unpack.unpack(layers, fd, IDENTITY, durable=False)
                for name in listing.paths():
                    assert os.path.lexists(f"{path}{name}"), (turn, name)
                    with contextlib.suppress(Refused):
                        assert listing.locate(name) == unpack.locate(fd, name), (turn, name)
                assert len(list(listing.paths())) == 1 + sum(len(d) + len(f) for _, d, f in os.walk(path))
            finally:
                os.close(fd)
