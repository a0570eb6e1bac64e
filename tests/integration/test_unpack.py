"""Unpacking as root on a real file system: the whole policy table, hostile layers, and what is left outside."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import AppboxError, HostLacks, Refused
from appbox.oci import unpack
from appbox.oci.rootfs import Node
from appbox.oci.unpack import IdMap, Layer, Limits
from tests.ground.layers import archive, base256, device, directory, file, gzip_layer, hardlink, header, of, pax, symlink

pytestmark = pytest.mark.root

IDENTITY = IdMap(0, 65536)


class Root:
    """An empty directory beside things that must not change."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "root"
        self.path.mkdir()
        (place / "secret").write_text("outside")
        (place / "outside").mkdir()
        (place / "outside/file").write_text("outside")
        self.fd = os.open(self.path, os.O_RDONLY)

    def unpack(self, *layers: Layer, idmap: IdMap = IDENTITY, limits: Limits | None = None) -> unpack.Report:
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        before = snapshot(self.place, self.path)
        try:
            return unpack.unpack(layers, self.fd, idmap, limits=limits or Limits(), durable=False)
        finally:
            assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (descriptors, threads)
            assert snapshot(self.place, self.path) == before

    def refuse(self, words: str, *layers: Layer) -> None:
        with pytest.raises(Refused, match=words):
            self.unpack(*layers)

    def names(self) -> list[str]:
        found = [Path(top, name) for top, below, files in os.walk(self.path) for name in below + files]
        return sorted(str(path.relative_to(self.path)) for path in found)

    def stat(self, name: str) -> os.stat_result:
        return os.lstat(self.path / name)

    def read(self, name: str) -> str:
        return (self.path / name).read_text()


def snapshot(place: Path, leave_out: Path) -> list[tuple[str, int, int, int, int]]:
    """Return everything about `place` except what is in one directory of it."""
    seen = []
    for top, below, files in os.walk(place):
        below[:] = [name for name in below if Path(top, name) != leave_out]
        for path in [Path(top), *(Path(top, name) for name in files)]:
            status = os.lstat(path)
            if path != place:
                seen.append((str(path), status.st_mode, status.st_uid, status.st_mtime_ns, status.st_size))
    return seen


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    os.close(made.fd)


class TestKinds:
    def test_a_plain_tree(self, root: Root) -> None:
        report = root.unpack(
            gzip_layer(
                archive(
                    directory(b"./", mode=0o750, uid=1, gid=2, mtime=5),
                    directory(b"d", mode=0o1777, mtime=7),
                    file(b"d/f", b"content", mode=0o6755, uid=10, gid=20, mtime=8),
                    symlink(b"d/s", b"../../../secret", uid=3, mtime=9),
                    hardlink(b"h", b"d/f"),
                    device(b"null", 1, 3, mode=0o666),
                    device(b"disk", 259, 70000, type=b"4", gid=6),
                    header(b"pipe", type=b"6", mode=0o620),
                )
            )
        )
        assert report.entries == 8
        status = root.stat("d/f")
        assert (status.st_mode, status.st_uid, status.st_gid) == (stat.S_IFREG | 0o6755, 10, 20)
        assert (status.st_mtime, status.st_nlink, root.read("h")) == (8, 2, "content")
        assert root.stat("h").st_ino == status.st_ino
        assert (root.stat("d").st_mode, root.stat("d").st_mtime) == (stat.S_IFDIR | 0o1777, 7)
        assert os.readlink(root.path / "d/s") == "../../../secret"
        assert (root.stat("d/s").st_uid, root.stat("d/s").st_mtime) == (3, 9)
        assert (root.stat("null").st_mode, root.stat("null").st_rdev) == (stat.S_IFCHR | 0o666, os.makedev(1, 3))
        assert root.stat("disk").st_rdev == os.makedev(259, 70000)
        assert (root.stat("disk").st_mode, root.stat("disk").st_gid) == (stat.S_IFBLK | 0o644, 6)
        assert root.stat("pipe").st_mode == stat.S_IFIFO | 0o620
        own = os.stat(root.path)
        assert (stat.S_IMODE(own.st_mode), own.st_uid, own.st_gid, own.st_mtime) == (0o750, 1, 2, 5)

    def test_what_nobody_describes(self, root: Root) -> None:
        root.path.chmod(0o777)
        root.unpack(of(file(b"a/b/f", uid=5)), idmap=IdMap(200_000, 65536))
        for name in ("", "a", "a/b"):
            status = root.stat(name)
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 200_000, 200_000)
            assert status.st_mtime_ns == 0

    def test_an_image_of_nothing(self, root: Root) -> None:
        assert root.unpack().entries == 0
        assert stat.S_IMODE(root.stat("").st_mode) == 0o755

    def test_times_to_the_nanosecond_and_before_1970(self, root: Root) -> None:
        root.unpack(
            of(
                pax({b"mtime": b"1.123456789"}),
                file(b"a"),
                pax({b"mtime": b"-3.25"}),
                directory(b"b"),
                file(b"c", mtime=base256(1 << 80, 12)),
                file(b"d", mtime=base256(1 << 40, 12)),
            )
        )
        assert root.stat("a").st_mtime_ns == 1_123_456_789
        assert root.stat("b").st_mtime_ns == -3_250_000_000
        assert root.stat("c").st_mtime == root.stat("d").st_mtime > 2**31  # the latest that the file system has

    def test_names_are_bytes(self, root: Root) -> None:
        root.unpack(of(file(b"\xff\n \\x"), symlink(b"l", b"\xfe")))
        assert set(os.listdir(os.fsencode(root.path))) == {b"\xff\n \\x", b"l"}
        assert os.readlink(os.fsencode(root.path) + b"/l") == b"\xfe"

    def test_the_last_of_duplicates_wins(self, root: Root) -> None:
        root.unpack(
            of(
                file(b"f", b"one"), file(b"f", b"two"),
                symlink(b"s", b"f"), file(b"s", b"file"),
                directory(b"d"), file(b"d/x"), symlink(b"d", b"f"),
                file(b"e"), directory(b"e"), file(b"e/y"),
                directory(b"m", uid=1), file(b"m/z"), directory(b"m", uid=2),
            )
        )  # fmt: skip
        assert root.names() == ["d", "e", "e/y", "f", "m", "m/z", "s"]
        assert (root.read("f"), root.read("s"), root.read("d")) == ("two", "file", "two")
        assert root.stat("m").st_uid == 2
        assert not stat.S_ISLNK(root.stat("s").st_mode)

    def test_devices_as_placeholders(self, root: Root) -> None:
        layer = of(device(b"c", 1, 3, mode=0o600), header(b"p", type=b"6"))
        report = unpack.unpack([layer], root.fd, IDENTITY, devices="empty")
        assert report.replaced == ("/c", "/p")
        assert root.stat("c").st_mode == stat.S_IFREG | 0o600


class TestContent:
    @pytest.mark.parametrize("size", [0, 1, 511, 512, 16384, 32768, 100_000, (1 << 20) - 512, 1 << 20, (3 << 20) + 7])
    def test_sizes(self, root: Root, size: int) -> None:
        content = os.urandom(size)
        root.unpack(gzip_layer(archive(file(b"a", b"x" * 700), file(b"f", content), file(b"z", b"end"))))
        assert (root.path / "f").read_bytes() == content
        assert root.read("z") == "end"

    def test_zeros_become_holes(self, root: Root) -> None:
        content = b"start" + bytes(8 << 20) + b"middle" + bytes(8 << 20)
        root.unpack(gzip_layer(archive(file(b"f", content), file(b"zeros", bytes(4 << 20)))))
        assert (root.path / "f").read_bytes() == content
        assert root.stat("f").st_blocks * 512 < 2 << 20
        assert root.stat("zeros").st_size == 4 << 20

    def test_sparse_members(self, root: Root) -> None:
        records = pax([(b"GNU.sparse.size", b"10000000"), (b"GNU.sparse.map", b"4096,512,9000000,512")])
        root.unpack(of(records, file(b"s", b"A" * 512 + b"B" * 512)))
        content = (root.path / "s").read_bytes()
        assert (len(content), content[4096:4608], content[9000000:9000512]) == (10000000, b"A" * 512, b"B" * 512)
        assert content.count(0) == 10000000 - 1024
        assert root.stat("s").st_blocks * 512 < 1 << 20


class TestParents:
    def test_symlinks_are_followed_inside(self, root: Root) -> None:
        root.unpack(
            of(
                directory(b"usr/lib"),
                symlink(b"lib", b"usr/lib"),
                symlink(b"abs", b"/usr/lib"),
                symlink(b"up", b"../../../../usr"),
                file(b"lib/a"),
                file(b"abs/b"),
                file(b"up/lib/c"),
                file(b"up/new/d"),
            )
        )
        assert [name for name in root.names() if name.startswith("usr/")] == [
            "usr/lib", "usr/lib/a", "usr/lib/b", "usr/lib/c", "usr/new", "usr/new/d",
        ]  # fmt: skip

    def test_symlinks_out_lead_inside(self, root: Root) -> None:
        place = os.fsencode(root.place)
        root.unpack(
            of(
                symlink(b"out", place + b"/outside"),
                file(b"out/file", b"evil"),
                symlink(b"up", b"../outside"),
                file(b"up/file", b"evil"),
                symlink(b"magic", b"/proc/self/root"),
                file(b"magic/evil", b"evil"),
            )
        )
        assert (root.place / "outside/file").read_text() == "outside"
        assert root.read("outside/file") == "evil"
        assert root.read("proc/self/root/evil") == "evil"

    def test_a_symlink_of_a_lower_layer(self, root: Root) -> None:
        root.unpack(of(symlink(b"etc", os.fsencode(root.place))), of(file(b"etc/secret", b"evil")))
        assert (root.place / "secret").read_text() == "outside"

    def test_loops_and_files_in_the_way(self, root: Root) -> None:
        root.refuse("symlinks", of(symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/f")))

    def test_files_in_the_way(self, root: Root) -> None:
        root.refuse("is a file", of(file(b"f"), file(b"f/g")))

    def test_an_open_directory_is_forgotten_when_it_is_replaced(self, root: Root) -> None:
        """The parent is in the cache each time when it becomes something else."""
        root.unpack(
            of(
                directory(b"a/b"), file(b"a/b/1"), symlink(b"a", b"elsewhere"), file(b"a/b/2"),
                file(b"a/b/3"), directory(b"a"), file(b"a/b/4"),
                directory(b"x"), symlink(b"l", b"x"), file(b"l/5"), directory(b"y"), symlink(b"l", b"y"), file(b"l/6"),
            )
        )  # fmt: skip
        assert [name for name in root.names() if name[-1].isdigit()] == [
            "a/b/4", "elsewhere/b/2", "elsewhere/b/3", "x/5", "y/6",
        ]  # fmt: skip

    def test_and_across_layers(self, root: Root) -> None:
        root.unpack(
            of(directory(b"a"), file(b"a/1")),
            of(symlink(b"a", b"b"), file(b"a/2")),
            of(file(b".wh.a"), file(b"a/3")),
        )
        assert root.names() == ["a", "a/3", "b", "b/2"]

    def test_more_directories_than_are_kept_open(self, root: Root) -> None:
        count = 500
        made = [directory(b"d%d" % i, mtime=i) for i in range(count)]
        root.unpack(of(*made, *(file(b"d%d/f" % i) for i in reversed(range(count)))))
        assert len(root.names()) == 2 * count
        assert root.stat("d7").st_mtime == 7

    def test_a_tree_deeper_than_a_path(self, root: Root) -> None:
        """Symlinks make it possible to go deeper than 4,096 bytes; a layer that does is done or refused, never half."""
        step = b"/".join([b"d" * 200] * 10)
        members = [pax({b"path": b"l0/" + step}), directory(b"d")]
        for i in range(3):
            members += [pax({b"linkpath": b"l%d/" % i + step}), symlink(b"l%d" % (i + 1), b"x")]
            members += [pax({b"path": b"l%d/" % (i + 1) + step}), directory(b"d")]
        root.refuse("cannot be|too many symlinks", of(*members))
        place = os.open(root.place, os.O_RDONLY)
        unpack.remove_tree(place, "root")
        os.close(place)


class TestHardLinks:
    def test_to_a_lower_layer_and_through_a_symlink(self, root: Root) -> None:
        root.unpack(
            of(directory(b"d"), file(b"d/f", b"x", mode=0o600, uid=7), symlink(b"l", b"/d")),
            of(hardlink(b"h", b"d/f", mode=0o4777, uid=9), hardlink(b"i", b"l/f")),
        )
        assert root.stat("h").st_ino == root.stat("i").st_ino == root.stat("d/f").st_ino
        assert (stat.S_IMODE(root.stat("h").st_mode), root.stat("h").st_uid) == (0o600, 7)

    def test_never_through_the_last_symlink(self, root: Root) -> None:
        root.unpack(of(symlink(b"s", os.fsencode(root.place / "secret")), hardlink(b"h", b"s")))
        assert stat.S_ISLNK(root.stat("h").st_mode)
        assert (root.place / "secret").stat().st_nlink == 1

    def test_writing_through_a_link_to_a_symlink(self, root: Root) -> None:
        root.unpack(of(symlink(b"s", b"../secret"), hardlink(b"h", b"s"), file(b"h", b"evil")))
        assert (root.place / "secret").read_text() == "outside"
        assert root.read("h") == "evil"

    def test_replacing_one_name_leaves_the_other(self, root: Root) -> None:
        root.unpack(of(file(b"a", b"old"), hardlink(b"b", b"a")), of(file(b"a", b"new")))
        assert (root.read("a"), root.read("b")) == ("new", "old")

    @pytest.mark.parametrize(
        "members",
        [
            [hardlink(b"h", b"missing")],
            [hardlink(b"h", b"/etc/passwd")],
            [symlink(b"up", b"../.."), hardlink(b"h", b"up/secret")],
            [directory(b"d"), hardlink(b"h", b"d")],
            [file(b"f"), hardlink(b"h", b"f/x")],
            [directory(b"d"), file(b"d/f"), hardlink(b"d", b"d/f")],
            [directory(b"d"), symlink(b"l", b"d"), file(b"d/f"), hardlink(b"l/f", b"d/f")],
        ],
    )
    def test_refused(self, root: Root, members: list[bytes]) -> None:
        root.refuse("hard link leads to", of(*members))

    @pytest.mark.parametrize("order", [1, -1])
    def test_to_what_the_same_layer_removes(self, root: Root, order: int) -> None:
        root.refuse("leads to nothing", of(file(b"f")), of(*[file(b".wh.f"), hardlink(b"h", b"f")][::order]))


class TestWhiteouts:
    def test_of_lower_layers(self, root: Root) -> None:
        root.unpack(
            of(file(b"a"), directory(b"d"), file(b"d/x"), file(b"d/y"), directory(b"e"), file(b"e/z"), symlink(b"l", b"d")),
            of(file(b".wh.a"), file(b"d/.wh.x"), file(b"e/.wh..wh..opq"), file(b".wh.l"), file(b"no/.wh.x"), file(b".wh.no")),
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
        root.unpack(of(symlink(b"l", b"../outside")), of(file(b"l/.wh.file"), file(b"l/.wh..wh..opq")), of(file(b".wh.l")))
        assert root.names() == []

    @pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b"d/.wh...", b"d/.wh.."])
    def test_that_delete_the_directory_or_its_parent(self, root: Root, name: bytes) -> None:
        root.refuse("whiteout", of(directory(b"d"), file(b"f")), of(file(name)))
        assert root.names() == ["d", "f"]

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
        import random

        chance = random.Random(7)
        names = [b"a", b"b", b"a/a", b"a/b", b"b/a", b"l/a", b"l/b/a", b"a/a/a", b"l"]

        def member() -> bytes:
            name = chance.choice(names)
            parent, _, last = name.rpartition(b"/")
            below = parent + b"/" if parent else b""
            makers = [
                lambda: directory(name, uid=chance.randrange(5)), lambda: file(below + b".wh." + last),
                lambda: file(below + b".wh..wh..opq"), lambda: directory(name), lambda: file(name + b"f", uid=chance.randrange(5)),
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


class TestOwners:
    def test_are_shifted(self, root: Root) -> None:
        root.unpack(
            of(file(b"f", uid=65535, gid=1), symlink(b"s", b"x", uid=2), device(b"d", 1, 3, gid=3), directory(b"e", uid=4)),
            idmap=IdMap(1879048192, 65536),
        )
        base = 1879048192
        owners = {name: (root.stat(name).st_uid - base, root.stat(name).st_gid - base) for name in root.names()}
        assert owners == {"f": (65535, 1), "s": (2, 0), "d": (0, 3), "e": (4, 0)}
        assert unpack.locate(root.fd, "/f", base) == Node("/f", "file", 65535, 1, 0o644)

    def test_out_of_the_range(self, root: Root) -> None:
        for member in (file(b"f", uid=65536), pax({b"uid": b"4294967295"}) + file(b"f")):
            root.refuse("outside the range of ids", of(member))
            unpack_again(root)

    def test_nobody_meets_a_file_before_it_is_verified(self, root: Root) -> None:
        """While layers are written, the root is closed to others."""
        modes = []

        def progress(*_: object) -> None:
            modes.append(stat.S_IMODE(os.fstat(root.fd).st_mode))

        layer = gzip_layer(archive(directory(b".", mode=0o777), file(b"su", os.urandom(3 << 20), mode=0o4755)))
        unpack.unpack([layer], root.fd, IDENTITY, progress=progress)
        assert set(modes[1:]) == {0o700}
        assert stat.S_IMODE(root.stat("").st_mode) == 0o777


def unpack_again(root: Root) -> None:
    for name in os.listdir(root.path):
        unpack.remove_tree(root.fd, name)


class TestXattrs:
    CAPABILITY = struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0)

    def member(self, **xattrs: bytes) -> bytes:
        records = {b"SCHILY.xattr." + key.replace("_", ".").encode(): value for key, value in xattrs.items()}
        return pax(records) + file(b"f", b"x", mode=0o4755, uid=5)

    def test_kept_and_dropped(self, root: Root) -> None:
        report = root.unpack(of(self.member(user_a=b"\0\xff", trusted_overlay_opaque=b"y", user_overlay_x=b"y", trusted_b=b"")))
        assert os.listxattr(root.path / "f") == ["user.a"]
        assert os.getxattr(root.path / "f", "user.a") == b"\0\xff"
        assert report.dropped_xattrs == ("trusted.b", "trusted.overlay.opaque", "user.overlay.x")

    def test_capabilities_survive_the_change_of_owner(self, root: Root) -> None:
        root.unpack(of(self.member(security_capability=self.CAPABILITY)))
        assert os.getxattr(root.path / "f", "security.capability") == self.CAPABILITY
        assert root.stat("f").st_mode == stat.S_IFREG | 0o4755

    def test_capabilities_belong_to_the_service(self, root: Root) -> None:
        root.unpack(of(self.member(security_capability=self.CAPABILITY)), idmap=IdMap(200_000, 65536))
        value = os.getxattr(root.path / "f", "security.capability")
        assert struct.unpack("<6I", value) == (0x03000001, 0x2000, 0, 0, 0, 200_000)

    def test_malformed_capabilities(self, root: Root) -> None:
        root.refuse("malformed", of(self.member(security_capability=b"x")))


class TestRefusals:
    """Nothing of a refused layer is outside the root, and the error is one that can be told to people."""

    @pytest.mark.parametrize(
        "member",
        [
            file(b"../evil", b"x"),
            file(b"a/../../evil", b"x"),
            file(b""),
            file(b"/"),
            symlink(b".", b"/etc"),
            device(b"d", 0o10000, 1),
            device(b"d", base256(-1, 8), 1),
            pax({b"path": b"a\0b"}) + file(b"f"),
            header(b"f", type=b"Z"),
            header(b"f", size=base256(-1, 12)),
            header(b"f", size=base256(1 << 70, 12)),
            header(b"f", checksum=1),
            file(b"n" * 50 + b"/.wh.x/y"),
        ],
    )
    def test_hostile_members(self, root: Root, member: bytes) -> None:
        with pytest.raises(Refused) as caught:
            root.unpack(gzip_layer(archive(file(b"first"), member, file(b"last"))))
        assert str(caught.value).startswith("layer sha256:")
        assert "\n" not in str(caught.value)

    def test_a_directory_that_is_not_empty(self, root: Root) -> None:
        (root.path / "there").touch()
        with pytest.raises(AppboxError, match="not empty"):
            root.unpack(of(file(b"f")))

    def test_a_full_disk(self, root: Root, tmp_path: Path) -> None:
        small = tmp_path / "outside" / "small"
        small.mkdir()
        with mounted(small, "tmpfs", "size=1m"):
            fd = os.open(small, os.O_RDONLY)
            with pytest.raises(AppboxError, match="no space left") as caught:
                unpack.unpack([gzip_layer(archive(file(b"f", os.urandom(4 << 20))))], fd, IDENTITY)
            os.close(fd)
        assert type(caught.value) is AppboxError

    def test_a_mount_point_in_the_way(self, root: Root) -> None:
        (root.path / "d").mkdir()
        with mounted(root.path / "d", "tmpfs"):
            with pytest.raises(AppboxError, match="mount point"):
                unpack.remove_tree(root.fd, "d")
            (root.path / "d/survives").touch()
        bound = root.path / "e/bound"
        bound.mkdir(parents=True)
        with mounted(bound, "none", "bind", source=root.place / "outside"):
            with pytest.raises(AppboxError, match="mount point"):
                unpack.remove_tree(root.fd, "e")
            assert (root.place / "outside/file").exists()

    def test_a_file_system_without_the_attribute(self, root: Root, tmp_path: Path) -> None:
        place = tmp_path / "outside" / "ramfs"
        place.mkdir()
        with mounted(place, "ramfs"):
            fd = os.open(place, os.O_RDONLY)
            with pytest.raises(HostLacks, match=r"user\.a"):
                unpack.unpack([of(pax({b"SCHILY.xattr.user.a": b""}), file(b"f"))], fd, IDENTITY)
            os.close(fd)


@contextlib.contextmanager
def mounted(place: Path, kind: str, options: str = "rw", source: Path | str = "none") -> Iterator[None]:
    subprocess.run(["mount", "-t", kind, "-o", options, str(source), str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


SWAPPER = """
import os, sys
os.chdir(sys.argv[1])
print("ready", flush=True)
while True:
    for name in ("d", "d/e"):
        try:
            os.rename(name, "away")
            os.symlink(sys.argv[2], name)
            os.unlink(name)
            os.rename("away", name)
        except OSError:
            for again in (lambda: os.unlink(name), lambda: os.rename("away", name)):
                try:
                    again()
                except OSError:
                    pass
"""


def test_a_process_that_swaps_directories_for_symlinks_gains_nothing(root: Root) -> None:
    """Each attempt is done or refused, and whatever it is, nothing beside the root is made or changed."""
    import sys

    members = [directory(b"d"), directory(b"d/e")]
    for i in range(600):
        members += [directory(b"d/e"), file(b"d/e/file", b"evil %d" % i), symlink(b"d/e/s", b"x"), device(b"d/e/n", 1, 3)]
        members += [directory(b"x%d" % i), file(b"x%d/f" % i), file(b"d/f", mode=0o4755), directory(b"d", mode=0o777)]
    layer = of(*members)
    before = snapshot(root.place / "outside", root.path)
    swapper = subprocess.Popen([sys.executable, "-c", SWAPPER, root.path, root.place / "outside"], stdout=subprocess.PIPE)
    try:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        for _ in range(6):
            with contextlib.suppress(AppboxError):
                unpack.unpack([layer], root.fd, IDENTITY, durable=False)
            assert snapshot(root.place / "outside", root.path) == before
            for name in os.listdir(root.path):
                with contextlib.suppress(AppboxError, OSError):
                    unpack.remove_tree(root.fd, name)
            assert snapshot(root.place / "outside", root.path) == before
    finally:
        swapper.kill()
        swapper.communicate()


def test_durable_means_the_file_system_was_synced(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(unpack.syscalls, "syncfs", synced.append)
    unpack.unpack([of(file(b"f"))], root.fd, IDENTITY)
    assert synced == [root.fd]


def test_an_old_kernel_is_named(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(unpack.syscalls, "openat2", lacking)
    with pytest.raises(HostLacks, match="openat2"):
        unpack.unpack([of(file(b"d/f"))], root.fd, IDENTITY)
