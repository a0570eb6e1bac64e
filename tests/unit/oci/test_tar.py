"""The tar parser: every form that is read, and every way to be wrong that Python's tarfile lets pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appbox.errors import Refused
from appbox.oci.sparse import SEGMENTS
from appbox.oci.tar import Archive, Kind, Member
from tests.ground.layers import (
    END,
    archive,
    base256,
    device,
    directory,
    file,
    hardlink,
    header,
    long_name,
    octal,
    pax,
    record,
    symlink,
)

LARGEST = 1 << 40


def blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, size: int = 4096) -> list[tuple[Member, bytes]]:
    parsed = Archive(blocks(data, size), LARGEST)
    return [(member, b"".join(block[a:b] for block, a, b in parsed.data())) for member in parsed]


def only(data: bytes) -> Member:
    ((member, _),) = read(data)
    return member


def refused(data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read(data)


def test_all_kinds_are_told_apart() -> None:
    parsed = read(
        archive(
            file(b"f", b"data", mode=0o4755, uid=1, gid=2, mtime=3),
            file(b"v7", b"x", flag=b"\0", magic=b""),
            file(b"contiguous", flag=b"7"),
            directory(b"d/"),
            header(b"v7-dir/", flag=b"\0", magic=b""),
            symlink(b"s", b"../t"),
            hardlink(b"h", b"f"),
            device(b"c", 1, 3),
            device(b"b", 8, 1, flag=b"4"),
            header(b"p", flag=b"6"),
        )
    )
    kinds = [member.kind for member, _ in parsed]
    assert kinds == [
        *[Kind.FILE] * 3,
        *[Kind.DIRECTORY] * 2,
        Kind.SYMLINK,
        Kind.HARDLINK,
        Kind.CHAR,
        Kind.BLOCK,
        Kind.FIFO,
    ]
    first, data = parsed[0]
    assert (first.name, data, first.mode, first.uid, first.gid, first.mtime) == (b"f", b"data", 0o4755, 1, 2, 3 * 10**9)
    assert parsed[5][0].link == b"../t"
    assert (parsed[7][0].major, parsed[7][0].minor) == (1, 3)


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 1 << 20])
def test_blocks_of_any_size_give_the_same(size: int) -> None:
    content = bytes(range(256)) * 9
    data = archive(pax({b"mtime": b"1.5"}), file(b"a", content), long_name(b"n" * 300), file(b"b", content[:513]))
    assert read(data, size) == read(data, len(data))
    assert [body for _, body in read(data, size)] == [content, content[:513]]


def test_data_may_be_left_unread() -> None:
    parsed = Archive(blocks(archive(file(b"a", b"x" * 5000), file(b"b", b"y")), 100), LARGEST)
    names = []
    for member in parsed:
        next(parsed.data(), None)
        names.append(member.name)
    assert names == [b"a", b"b"]


class TestNames:
    def test_ustar_prefix(self) -> None:
        assert only(archive(file(b"name", prefix=b"a/b"))).name == b"a/b/name"

    def test_a_full_name_and_prefix_have_no_nul(self) -> None:
        assert only(archive(file(b"n" * 100, prefix=b"p" * 155))).name == b"p" * 155 + b"/" + b"n" * 100

    def test_gnu_and_v7_have_no_prefix(self) -> None:
        assert only(archive(file(b"name", prefix=b"00001", magic=b"ustar  \0"))).name == b"name"
        assert only(archive(file(b"name", prefix=b"00001", magic=b""))).name == b"name"

    def test_star_has_times_in_the_prefix(self) -> None:
        prefix = b"p" * 131 + octal(7, 12) + octal(7, 12)
        assert only(archive(file(b"n", prefix=prefix, tail=b"tar\0"))).name == b"p" * 131 + b"/n"

    def test_gnu_long_name_and_link(self) -> None:
        member = only(archive(long_name(b"l" * 400, b"K"), long_name(b"n" * 300), symlink(b"n", b"l")))
        assert (member.name, member.link) == (b"n" * 300, b"l" * 400)

    def test_pax_path_and_linkpath(self) -> None:
        member = only(archive(pax({b"path": b"p\xff/q", b"linkpath": b"t\n"}), symlink(b"n", b"l")))
        assert (member.name, member.link) == (b"p\xff/q", b"t\n")

    def test_bytes_stay_as_they_are(self) -> None:
        assert only(archive(file(b"\xff\xfe \n\\"))).name == b"\xff\xfe \n\\"

    def test_an_empty_value_leaves_the_plain_one(self) -> None:
        assert only(archive(pax({b"path": b"", b"uid": b""}), file(b"n", uid=5)))[1:5:3] == (b"n", 5)

    def test_nul(self) -> None:
        refused(archive(pax({b"path": b"a\0b"}), file(b"n")), "NUL")
        refused(archive(pax({b"linkpath": b"a\0b"}), symlink(b"n", b"l")), "NUL")
        refused(archive(long_name(b"a\0b"), file(b"n")), "NUL")

    def test_two_names(self) -> None:
        refused(archive(long_name(b"a"), long_name(b"b"), file(b"n")), "two extended headers")
        refused(archive(pax({b"path": b"a"}), pax({b"path": b"b"}), file(b"n")), "two extended headers")
        refused(archive(long_name(b"a"), pax({b"path": b"b"}), file(b"n")), "two long names")

    def test_long_names_are_bounded(self) -> None:
        refused(archive(long_name(b"n" * 9000), file(b"n")), "absurd size")
        refused(header(b"././@LongLink", flag=b"L", size=3 << 30), "absurd size")

    def test_a_file_that_calls_itself_a_directory(self) -> None:
        refused(archive(file(b"name/", b"data")), "ends in a slash")


class TestNumbers:
    def test_octal_with_spaces_or_without_an_end(self) -> None:
        assert only(archive(file(b"f", mode=b"   644 \0", uid=b"0000017 ", mtime=b"00000000017\0"))).uid == 0o17
        assert only(archive(file(b"f", uid=b"00000017"))).uid == 0o17
        assert only(archive(file(b"f", uid=b""))).uid == 0

    def test_base256(self) -> None:
        member = only(archive(file(b"f", uid=base256(3_000_000, 8), mtime=base256(-5, 12), size=base256(0, 12))))
        assert (member.uid, member.mtime) == (3_000_000, -5 * 10**9)

    @pytest.mark.parametrize("text", [b"0000_17\0", b"+000017\0", b"-000017\0", b"0000018\0", b"00 0017\0", b"0o00017"])
    def test_what_python_would_take_for_a_number(self, text: bytes) -> None:
        refused(archive(file(b"f", uid=text)), "uid of a tar header is not a number")

    @pytest.mark.parametrize("field", ["size", "uid", "gid", "mode"])
    def test_negative(self, field: str) -> None:
        width = 12 if field == "size" else 8
        refused(archive(header(b"f", **{field: base256(-1, width)})), "negative|absurd size")  # type: ignore[arg-type]

    @pytest.mark.parametrize("size", [base256(1 << 90, 12), base256(1 << 62, 12), base256(-512, 12)])
    def test_absurd_sizes(self, size: bytes) -> None:
        refused(header(b"f", size=size), "absurd size")
        refused(header(b"d", flag=b"5", size=size), "absurd size")

    def test_times_beyond_what_linux_counts_are_clamped(self) -> None:
        assert only(archive(file(b"f", mtime=base256(1 << 80, 12)))).mtime == 2**62 * 10**9
        assert only(archive(file(b"f", mtime=base256(-(1 << 80), 12)))).mtime == -(2**62) * 10**9

    def test_only_files_have_data(self) -> None:
        parsed = read(archive(hardlink(b"h", b"t", size=4096), directory(b"d", size=512), file(b"f", b"x")))
        assert [(member.name, member.size) for member, _ in parsed] == [(b"h", 0), (b"d", 0), (b"f", 1)]


class TestExtendedHeaders:
    def test_everything_that_they_may_say(self) -> None:
        records = {
            b"size": b"4",
            b"uid": b"70000",
            b"gid": b"80000",
            b"mtime": b"-1.5",
            b"uname": b"u",
            b"comment": b"c",
        }
        ((member, data),) = read(archive(pax(records), file(b"f", b"data", size=0)[:512], b"data" + bytes(508)))
        assert (data, member.uid, member.gid, member.mtime) == (b"data", 70000, 80000, -1_500_000_000)
        assert (b"comment", b"c") in member.records

    @pytest.mark.parametrize(
        ("text", "time"),
        [
            (b"12", 12 * 10**9),
            (b"1.000000001999", 10**9 + 1),
            (b"0.5", 5 * 10**8),
            (b"-0.25", -25 * 10**7),
            (b"3.", 3 * 10**9),
        ],
    )
    def test_times(self, text: bytes, time: int) -> None:
        assert only(archive(pax({b"mtime": text}), file(b"f"))).mtime == time

    @pytest.mark.parametrize("text", [b"1e9", b"0x10", b" 1", b"1 ", b"1_0", b"--1", b".5", b"inf", b"9" * 21])
    def test_what_is_no_time(self, text: bytes) -> None:
        refused(archive(pax({b"mtime": text}), file(b"f")), "mtime of an extended tar header")

    @pytest.mark.parametrize("key", [b"size", b"uid", b"gid"])
    @pytest.mark.parametrize("text", [b"-1", b"1.5", b"0x1", b"1_0", b" 1", b"9" * 21])
    def test_what_is_no_number(self, key: bytes, text: bytes) -> None:
        refused(archive(pax({key: text}), file(b"f")), "is not a number")

    def test_an_absurd_size(self) -> None:
        refused(archive(pax({b"size": b"9" * 19}), file(b"f")), "absurd size")

    @pytest.mark.parametrize(
        "payload",
        [
            b"5 a=b\n",
            b"7 a=b\n",
            b"6 a=b",
            b"a=b\n",
            b"6 ab_\n",
            b"5 =b\n",
            b"-6 a=b\n",
            b"0 \n",
            b"6 a=b\n\0",
            b"99999999 a=b\n",
            b"3 \n",
            b"11 a\0b=cde\n",
        ],
    )
    def test_malformed_records(self, payload: bytes) -> None:
        refused(archive(file(b"x", payload, flag=b"x"), file(b"f")), "extended tar header")

    def test_an_enormous_claim_is_refused_before_it_is_read(self) -> None:
        refused(header(b"x", flag=b"x", size=base256(8 << 30, 12)), "absurd size")
        refused(header(b"g", flag=b"g", size=(1 << 20) + 1), "absurd size")

    def test_global_headers_are_checked_and_ignored(self) -> None:
        data = archive(pax({b"path": b"evil", b"comment": b"c"}, b"g"), file(b"f"))
        assert only(data).name == b"f"
        refused(archive(file(b"g", b"nonsense", flag=b"g"), file(b"f")), "extended tar header")

    def test_one_between_the_header_and_its_member(self) -> None:
        assert only(archive(pax({b"path": b"p"}), pax({b"a": b"b"}, b"g"), file(b"f"))).name == b"p"

    def test_one_without_a_member(self) -> None:
        refused(archive(file(b"f"), pax({b"path": b"p"})), "ends after an extended header")


class TestWholeness:
    GOOD = archive(file(b"a", b"data" * 200), file(b"b", b"more"))

    def test_a_wrong_checksum_anywhere(self) -> None:
        second = 512 + 1024
        for at in (0, 120, 300, second, second + 500):
            broken = bytearray(self.GOOD)
            broken[at] ^= 1
            refused(bytes(broken), "checksum")

    def test_a_signed_checksum(self) -> None:
        name = b"\xff\xfe"
        plain = header(name)
        total = int(plain[148:154], 8)
        assert only(archive(header(name, checksum=total - 512))).name == name
        refused(archive(header(name, checksum=total - 511)), "checksum")

    @pytest.mark.parametrize("length", [0, 1, 511, 512, 600, 1536, 2048, 2560, 2561, 3071, 3583])
    def test_truncated(self, length: int) -> None:
        assert len(self.GOOD) == 3584
        refused(self.GOOD[:length], "truncated")

    def test_a_missing_end(self) -> None:
        refused(file(b"a"), "truncated")

    def test_a_lone_zero_block(self) -> None:
        refused(file(b"a") + bytes(512) + file(b"b") + END, "lone zero block")

    def test_zeros_after_the_end(self) -> None:
        assert len(read(self.GOOD + bytes(10240 + 3))) == 2

    @pytest.mark.parametrize("size", [512, 100_000])
    def test_anything_else_after_the_end(self, size: int) -> None:
        for rest in (b"x", bytes(5000) + b"x", file(b"hidden") + END):
            with pytest.raises(Refused, match="after the end"):
                read(self.GOOD + rest, size)

    @pytest.mark.parametrize("flag", [b"Z", b"D", b"N", b"X", b"8", b"A"])
    def test_types_that_are_not_known(self, flag: bytes) -> None:
        refused(archive(header(b"f", flag=flag)), "is not known")

    @pytest.mark.parametrize("flag", [b"V", b"M"])
    def test_types_that_make_no_file(self, flag: bytes) -> None:
        assert only(archive(file(b"label", b"data", flag=flag), file(b"f"))).name == b"f"


class TestSparse:
    DATA = b"A" * 512 + b"B" * 512

    def old(self, pairs: list[tuple[int, int]], real: int, extended: bytes = b"", more: bytes = b"\0") -> bytes:
        fields = b"".join(octal(a, 12) + octal(b, 12) for a, b in pairs).ljust(96, b"\0")
        raw = bytearray(header(b"s", flag=b"S", size=1024, magic=b"ustar  \0"))
        raw[386:495] = fields + more + octal(real, 12)
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw)
        return bytes(raw) + extended

    def test_old_gnu(self) -> None:
        ((member, data),) = read(archive(self.old([(4096, 512), (8192, 512), (10000, 0)], 10000), self.DATA))
        assert data == self.DATA
        assert member.sparse == (10000, ((4096, 512), (8192, 512)))

    def test_old_gnu_with_more_blocks(self) -> None:
        fields = (octal(8192, 12) + octal(512, 12)).ljust(512, b"\0")
        data = archive(self.old([(0, 512)], 9000, fields, b"\1"), self.DATA)
        assert only(data).sparse == (9000, ((0, 512), (8192, 512)))

    def test_an_endless_map(self) -> None:
        block = bytes(504) + b"\1" + bytes(7)
        refused(self.old([], 10, block * (SEGMENTS // 20), b"\1"), "too long")

    @pytest.mark.parametrize(
        "records",
        [
            [(b"GNU.sparse.size", b"9000"), (b"GNU.sparse.map", b"0,512,8192,512")],
            [
                (b"GNU.sparse.size", b"9000"),
                (b"GNU.sparse.offset", b"0"),
                (b"GNU.sparse.numbytes", b"512"),
                (b"GNU.sparse.offset", b"8192"),
                (b"GNU.sparse.numbytes", b"512"),
            ],
        ],
    )
    def test_pax_0(self, records: list[tuple[bytes, bytes]]) -> None:
        member = only(archive(pax([*records, (b"GNU.sparse.name", b"real")]), file(b"GNUSparseFile/s", self.DATA)))
        assert (member.name, member.sparse) == (b"real", (9000, ((0, 512), (8192, 512))))

    def pax_1(self, lines: bytes) -> bytes:
        records = {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": b"real",
            b"GNU.sparse.realsize": b"9000",
        }
        return archive(pax(records), file(b"GNUSparseFile/s", lines + bytes(-len(lines) % 512) + self.DATA))

    def test_pax_1(self) -> None:
        ((member, data),) = read(self.pax_1(b"2\n0\n512\n8192\n512\n"))
        assert (member.name, data) == (b"real", self.DATA)
        assert member.sparse == (9000, ((0, 512), (8192, 512)))

    def test_pax_1_with_a_map_of_many_blocks(self) -> None:
        lines = b"600\n" + b"".join(b"%d\n0\n" % at for at in range(598)) + b"598\n512\n8192\n512\n"
        assert only(self.pax_1(lines)).sparse == (9000, ((598, 512), (8192, 512)))

    @pytest.mark.parametrize(
        "lines",
        [b"2\n0\n512\n100\n512\n", b"2\n0\n512\n8900\n512\n", b"1\n0\n512\n", b"x\n", b"9\n0\n", b"-1\n", b"1" * 2000],
    )
    def test_maps_that_cannot_be(self, lines: bytes) -> None:
        refused(self.pax_1(lines), "sparse")

    def test_absurd_sizes(self) -> None:
        records = [(b"GNU.sparse.size", b"9" * 18), (b"GNU.sparse.map", b"0,1024")]
        refused(archive(pax(records), file(b"s", self.DATA)), "absurd size")
        refused(archive(pax(records[1:]), file(b"s", self.DATA)), "no size")


VALID = archive(
    directory(b"./", mode=0o755),
    pax({b"path": b"a" * 120, b"SCHILY.xattr.user.x": b"y", b"mtime": b"1.25"}),
    file(b"a", b"content" * 100),
    long_name(b"b" * 150),
    symlink(b"b", b"a"),
    pax([(b"GNU.sparse.size", b"9000"), (b"GNU.sparse.map", b"0,512")]),
    file(b"s", b"s" * 512),
    device(b"null", 1, 3),
)


def survives(data: bytes, size: int) -> None:
    """The law: members, or `Refused`; never anything else."""
    try:
        for member, content in read(data, size):
            assert len(content) == member.size
    except Refused:
        return


@settings(max_examples=250, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    resum=st.booleans(),
    cut=st.integers(0, len(VALID)) | st.none(),
    size=st.sampled_from([100, 512, 4096]),
)
def test_mutations_of_a_valid_archive(changes: list[tuple[int, int]], resum: bool, cut: int | None, size: int) -> None:
    data = bytearray(VALID)
    for at, byte in changes:
        data[at] = byte
        if resum:  # get past the checksum, to what it protects
            start = at - at % 512
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    survives(bytes(data[:cut]), size)


@settings(max_examples=150, deadline=None)
@given(payload=st.binary(max_size=600), flag=st.sampled_from([b"x", b"g", b"L", b"K", b"S", b"0", b"V"]))
def test_any_payload(payload: bytes, flag: bytes) -> None:
    survives(archive(file(b"n", payload, flag=flag), file(b"f")), 512)


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from([b"path", b"size", b"mtime", b"uid", b"GNU.sparse.map", b"GNU.sparse.size"]),
    value=st.binary(max_size=40),
)
def test_any_record(key: bytes, value: bytes) -> None:
    survives(archive(file(b"x", record(key, value), flag=b"x"), file(b"f", b"data")), 512)
