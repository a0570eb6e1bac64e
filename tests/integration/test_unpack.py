"""Unpacking as root on a real file system: every kind of entry, its parents, owner and attributes."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.oci import unpack
from appbox.oci.rootfs import Node
from appbox.oci.unpack import IdMap
from tests.ground.layers import (
    archive,
    base256,
    device,
    directory,
    file,
    gzip_layer,
    hardlink,
    header,
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
                    device(b"disk", 259, 70000, flag=b"4", gid=6),
                    header(b"pipe", flag=b"6", mode=0o620),
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
        layer = of(device(b"c", 1, 3, mode=0o600), header(b"p", flag=b"6"))
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


class TestOwners:
    def test_are_shifted(self, root: Root) -> None:
        root.unpack(
            of(
                file(b"f", uid=65535, gid=1),
                symlink(b"s", b"x", uid=2),
                device(b"d", 1, 3, gid=3),
                directory(b"e", uid=4),
            ),
            idmap=IdMap(1879048192, 65536),
        )
        base = 1879048192
        owners = {name: (root.stat(name).st_uid - base, root.stat(name).st_gid - base) for name in root.names()}
        assert owners == {"f": (65535, 1), "s": (2, 0), "d": (0, 3), "e": (4, 0)}
        assert unpack.locate(root.fd, "/f", base) == Node("/f", "file", 65535, 1, 0o644)

    def test_out_of_the_range(self, root: Root) -> None:
        for member in (file(b"f", uid=65536), pax({b"uid": b"4294967295"}) + file(b"f")):
            root.refuse("outside the range of ids", of(member))
            root.empty()

    def test_nobody_meets_a_file_before_it_is_verified(self, root: Root) -> None:
        """While layers are written, the root is closed to others."""
        modes = []

        def progress(*_: object) -> None:
            modes.append(stat.S_IMODE(os.fstat(root.fd).st_mode))

        layer = gzip_layer(archive(directory(b".", mode=0o777), file(b"su", os.urandom(3 << 20), mode=0o4755)))
        unpack.unpack([layer], root.fd, IDENTITY, progress=progress)
        assert set(modes[1:]) == {0o700}
        assert stat.S_IMODE(root.stat("").st_mode) == 0o777


class TestXattrs:
    CAPABILITY = struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0)

    def member(self, **xattrs: bytes) -> bytes:
        records = {b"SCHILY.xattr." + key.replace("_", ".").encode(): value for key, value in xattrs.items()}
        return pax(records) + file(b"f", b"x", mode=0o4755, uid=5)

    def test_kept_and_dropped(self, root: Root) -> None:
        report = root.unpack(
            of(self.member(user_a=b"\0\xff", trusted_overlay_opaque=b"y", user_overlay_x=b"y", trusted_b=b""))
        )
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
