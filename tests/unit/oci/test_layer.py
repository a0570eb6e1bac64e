"""What members mean as parts of an image: names, whiteouts, owners, links, devices, extended attributes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import Refused
from appbox.oci import xattrs
from appbox.oci.layer import Entry, IdMap, Whiteout, components, interpret
from appbox.oci.tar import Archive, Kind
from tests.ground.layers import archive, device, directory, file, hardlink, header, long_name, pax, symlink

MAP = IdMap(0, 65536)


def changes(data: bytes, idmap: IdMap = MAP) -> list[Entry | Whiteout]:
    return [interpret(member, idmap) for member in Archive([data], 1 << 40)]


def only(*members: bytes) -> Entry | Whiteout:
    (change,) = changes(archive(*members))
    return change


def entry(*members: bytes) -> Entry:
    change = only(*members)
    assert isinstance(change, Entry)
    return change


def refused(words: str, *members: bytes) -> None:
    with pytest.raises(Refused, match=words):
        changes(archive(*members))


class TestNames:
    @pytest.mark.parametrize("name", [b"a/b/c", b"/a/b/c", b"./a/b/c", b"a//b/./c", b"//a/b/c", b"a/b/c/"])
    def test_are_relative_to_the_root(self, name: bytes) -> None:
        found = entry(directory(name))
        assert (found.path, found.parent, found.name) == (b"a/b/c", b"a/b", b"c")

    def test_in_the_root(self) -> None:
        found = entry(file(b"a"))
        assert (found.path, found.parent, found.name) == (b"a", b"", b"a")

    @pytest.mark.parametrize("name", [b"..", b"../a", b"a/..", b"a/../b", b"/..", b"./../a", b"a/b/../../../c"])
    def test_dot_dot(self, name: bytes) -> None:
        refused(r"contains \.\.", file(name))
        refused(r"contains \.\.", directory(name))
        refused(r"contains \.\.", hardlink(b"h", name))

    @pytest.mark.parametrize("name", [b"...", b"..a", b"a..", b".a", b"a/..b/c"])
    def test_dots_that_mean_nothing(self, name: bytes) -> None:
        assert entry(file(name)).path == name

    def test_empty(self) -> None:
        refused("empty name", file(b""))
        refused("empty name", directory(b""))
        refused("empty name", long_name(b""), file(b"f"))

    @pytest.mark.parametrize("name", [b"/", b".", b"./", b"/./", b"//"])
    def test_the_root(self, name: bytes) -> None:
        assert entry(directory(name)).path == b""
        for member in (symlink(name, b"x"), hardlink(name, b"x"), device(name, 1, 1), header(name, flag=b"6")):
            refused("the root of the image is a", member)

    def test_a_root_that_is_a_file(self) -> None:
        refused("the root of the image is a file", file(b"."))

    def test_lengths(self) -> None:
        longest = b"/".join([b"d" * 254] * 16)
        assert entry(pax({b"path": longest}), file(b"n")).path == longest
        for name in (b"n" * 256, longest + b"/d" * 10, b"/".join([b"d"] * 600)):
            refused("longer than Linux allows", pax({b"path": name}), file(b"n"))


@given(st.binary(min_size=1, max_size=60))
def test_no_name_leaves_the_root(name: bytes) -> None:
    try:
        parts = components(name)
    except Refused:
        return
    assert not {b"", b".", b".."} & set(parts)
    assert not any(b"/" in part for part in parts)


class TestWhiteouts:
    def test_of_a_name(self) -> None:
        assert only(file(b"a/.wh.b")) == Whiteout(b"a", b"b")
        assert only(file(b".wh.b")) == Whiteout(b"", b"b")

    def test_of_everything(self) -> None:
        assert only(file(b"a/.wh..wh..opq")) == Whiteout(b"a", b"")

    @pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b"a/.wh.", b"a/.wh..", b"a/.wh...", b"/./.wh..."])
    def test_of_a_directory_itself(self, name: bytes) -> None:
        refused("whiteout of a directory itself", file(name))

    def test_of_names_with_dots(self) -> None:
        assert only(file(b".wh....")) == Whiteout(b"", b"...")
        assert only(file(b".wh..a")) == Whiteout(b"", b".a")

    def test_in_the_middle_of_a_name(self) -> None:
        refused("begins with .wh.", file(b".wh.a/b"))
        refused("leads to no file", hardlink(b"h", b".wh.a"))
        assert entry(file(b"a.wh.b")).path == b"a.wh.b"

    def test_owners_do_not_matter(self) -> None:
        assert only(file(b".wh.a", uid=100_000)) == Whiteout(b"", b"a")


class TestOwners:
    def test_in_the_range(self) -> None:
        found = entry(file(b"f", uid=65535, gid=65535))
        assert (found.uid, found.gid) == (65535, 65535)

    @pytest.mark.parametrize("member", [file(b"f", uid=65536), file(b"f", gid=65536), hardlink(b"f", b"t", uid=65536)])
    def test_out_of_the_range(self, member: bytes) -> None:
        refused("outside the range of ids", member)

    def test_what_would_become_root_when_it_wraps(self) -> None:
        refused("outside the range of ids", pax({b"uid": b"4294967295"}), file(b"f"))
        refused("outside the range of ids", pax({b"gid": b"4294967296"}), file(b"f"))


class TestLinksAndDevices:
    def test_symlink_targets_stay_as_they_are(self) -> None:
        assert entry(symlink(b"s", b"../../..//./etc/passwd")).link == b"../../..//./etc/passwd"

    def test_symlink_targets_have_a_length(self) -> None:
        refused("no target", symlink(b"s", b""))
        refused("longer than Linux allows", pax({b"linkpath": b"x" * 4096}), symlink(b"s", b"x"))

    def test_hard_link_targets_are_names_of_the_image(self) -> None:
        assert entry(hardlink(b"h", b"/a//./b")).link == b"a/b"

    @pytest.mark.parametrize("target", [b"", b"/", b".", b"h", b"./h"])
    def test_hard_links_that_lead_nowhere(self, target: bytes) -> None:
        refused("hard link", hardlink(b"h", target))

    def test_device_numbers(self) -> None:
        assert entry(device(b"d", 0xFFF, 0xFFFFF)).kind is Kind.CHAR
        for major, minor in ((0x1000, 0), (0, 0x100000)):
            refused("numbers that Linux does not have", device(b"d", major, minor))
            refused("numbers that Linux does not have", device(b"d", major, minor, flag=b"4"))


def capability(revision: int, *more: int) -> bytes:
    return struct.pack(f"<{5 + len(more)}I", revision, 0x2000, 0, 0, 0, *more)


class TestXattrs:
    def test_what_is_kept_and_what_is_dropped(self) -> None:
        names = [
            b"user.a", b"security.capability", b"trusted.overlay.opaque", b"user.overlay.whiteout", b"trusted.b",
            b"security.selinux", b"system.posix_acl_access", b"user.overlay.overlay.opaque",
        ]  # fmt: skip
        records = {b"SCHILY.xattr." + name: b"value" for name in names}
        found = entry(pax({**records, b"LIBARCHIVE.xattr.user.c": b"dmFs"}), file(b"f")).xattrs
        assert [name for name, _ in found.kept] == ["user.a", "security.capability"]
        assert len(found.dropped) == 6

    def test_binary_values(self) -> None:
        value = bytes(range(256))
        assert entry(pax({b"SCHILY.xattr.user.a": value}), file(b"f")).xattrs.kept == (("user.a", value),)

    def test_limits(self) -> None:
        for key, value in ((b"user." + b"n" * 251, b""), (b"user.a", bytes(65537)), (b"user.", b"")):
            refused("extended attribute", pax({b"SCHILY.xattr." + key: value}), file(b"f"))

    def test_capabilities_without_a_shift_stay(self) -> None:
        value = capability(0x02000001)
        assert xattrs.capability(value, 0, 65536) == value
        assert xattrs.capability(capability(0x03000001, 0), 0, 65536) == value

    def test_capabilities_with_a_shift_name_their_root(self) -> None:
        assert xattrs.capability(capability(0x02000001), 200_000, 65536) == capability(0x03000001, 200_000)
        assert xattrs.capability(capability(0x03000000, 5), 200_000, 65536) == capability(0x03000000, 200_005)

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            bytes(20),
            capability(0x02000001)[:-1],
            capability(0x03000001),
            capability(0x02000001, 0),
            capability(0x02000003),
        ],
    )
    def test_malformed_capabilities(self, value: bytes) -> None:
        with pytest.raises(Refused, match="malformed"):
            xattrs.capability(value, 0, 65536)

    def test_capabilities_of_a_root_outside_the_range(self) -> None:
        with pytest.raises(Refused, match="outside the range"):
            xattrs.capability(capability(0x03000001, 65536), 0, 65536)
