"""Laws of the tar parser: what was written is read again, whatever the names, sizes and forms."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appbox.errors import Refused
from appbox.oci import pax as extended
from appbox.oci.tar import Archive, Kind, Member
from tests.ground.layers import END, archive, base256, file, header, long_name, octal, pax, record

LARGEST = 1 << 40
NAMES = st.binary(min_size=1, max_size=300).map(lambda raw: raw.replace(b"\0", b"0").strip(b"/") or b"n")
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=120
).map(lambda text: text.strip("/") or "n")


def read(data: bytes, size: int = 1000) -> list[tuple[Member, bytes]]:
    source: Iterator[bytes] = (data[at : at + size] for at in range(0, len(data), size))
    parsed = Archive(source, LARGEST)
    return [(member, b"".join(block[a:b] for block, a, b in parsed.data())) for member in parsed]


@given(
    names=st.lists(TEXTS, min_size=1, max_size=4),
    content=st.binary(max_size=2000),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    uid=st.integers(0, 2**31),
    mtime=st.integers(-(2**33), 2**33),
    mode=st.integers(0, 0o7777),
)
def test_what_python_writes_is_read(  # noqa: PLR0917 - one parameter for each field
    names: list[str], content: bytes, form: int, uid: int, mtime: int, mode: int
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.mtime, info.mode = len(content), uid, mtime, mode
            tar.addfile(info, io.BytesIO(content))
    found = read(out.getvalue())
    assert [(member.name, data) for member, data in found] == [(name.encode(), content) for name in names]
    assert {member[3:8] for member, _ in found} == {(mode, uid, 0, len(content), mtime * 10**9)}


@given(name=NAMES, link=NAMES, by=st.sampled_from(["pax", "gnu"]))
def test_names_are_bytes_by_either_way(name: bytes, link: bytes, by: str) -> None:
    front = pax({b"path": name, b"linkpath": link}) if by == "pax" else long_name(name) + long_name(link, b"K")
    ((member, _),) = read(archive(front, header(b"x", flag=b"2", link=b"y")))
    assert (member.name, member.link) == (name, link)


@given(number=st.integers(0, 2**62), width=st.sampled_from([8, 12]))
def test_numbers_in_octal_and_in_base_256(number: int, width: int) -> None:
    field = octal(number, width) if number < 8 ** (width - 1) else base256(number % (1 << (8 * width - 2)), width)
    ((member, _),) = read(archive(header(b"f", **({"mtime": field} if width == 12 else {"uid": field}))))
    assert (member.mtime // 10**9 if width == 12 else member.uid) == number % (1 << (8 * width - 2))


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=1200)), max_size=8))
def test_records_parse_back(pairs: list[tuple[bytes, bytes]]) -> None:
    clean = [(key.replace(b"=", b"_").replace(b"\0", b"_"), value) for key, value in pairs]
    clean = [(key, value.replace(b"\0", b"_")) for key, value in clean]
    assert extended.records(b"".join(record(key, value) for key, value in clean)) == clean


@st.composite
def maps(draw: st.DrawFn) -> tuple[list[tuple[int, int]], int]:
    """Segments of a sparse file in order, and its size."""
    at, segments = 0, []
    for hole, length in draw(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 700)), max_size=9)):
        segments.append((at + hole, length))
        at += hole + length
    return segments, at + draw(st.integers(0, 3000))


def sparse_member(form: str, segments: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    """Return a sparse member in one of the four forms."""
    numbers = [number for pair in segments for number in pair]
    name = [(b"GNU.sparse.name", b"real")]
    if form == "1.0":
        lines = b"".join(b"%d\n" % number for number in [len(segments), *numbers])
        records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"%d" % size)]
        return pax([*records, *name]) + file(b"x", lines + bytes(-len(lines) % 512) + data)
    if form == "0.1":
        records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.map", b",".join(b"%d" % n for n in numbers))]
        return pax([*records, *name]) + file(b"x", data)
    if form == "0.0":
        keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        records = [(b"GNU.sparse.size", b"%d" % size)]
        records += [(keys[index % 2], b"%d" % number) for index, number in enumerate(numbers)]
        return pax([*records, *name]) + file(b"x", data)
    block = bytearray(header(b"real", flag=b"S", size=len(data), magic=b"ustar  \0"))
    fields = b"".join(octal(number, 12) for number in numbers)
    rest = fields[96:]
    block[386:495] = fields[:96].ljust(96, b"\0") + (b"\1" if rest else b"\0") + octal(size, 12)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = b""
    while rest:
        more += rest[:504].ljust(504, b"\0") + (b"\1" if rest[504:] else b"\0") + bytes(7)
        rest = rest[504:]
    return bytes(block) + more + data + bytes(-len(data) % 512)


@settings(max_examples=60)
@given(made=maps(), form=st.sampled_from(["old", "0.0", "0.1", "1.0"]))
def test_sparse_files_in_every_form(made: tuple[list[tuple[int, int]], int], form: str) -> None:
    segments, size = made
    if form in ("0.0", "0.1") and not segments:
        form = "1.0"  # an empty map cannot be said in records
    data = bytes(index % 255 + 1 for index in range(sum(length for _, length in segments)))
    ((member, stored), (after, _)) = read(archive(sparse_member(form, segments, size, data), file(b"after")))
    assert (member.name, stored, member.sparse) == (b"real", data, (size, tuple(segments)))
    assert after.name == b"after"


@settings(max_examples=60)
@given(
    made=maps(),
    form=st.sampled_from(["old", "0.0", "0.1", "1.0"]),
    change=st.sampled_from(["overlap", "beyond", "short", "long", "backwards"]),
)
def test_maps_that_lie_are_refused(made: tuple[list[tuple[int, int]], int], form: str, change: str) -> None:
    segments, size = [*made[0], (made[1], 5)], made[1] + 5
    length = sum(length for _, length in segments)
    lies = {
        "overlap": [*segments, (segments[-1][0] + 1, 4)],
        "beyond": [*segments[:-1], (size, 5)],
        "short": [*segments[:-1], (segments[-1][0], 4)],
        "long": [*segments, (size, 1)],
        "backwards": [*segments, (0, 0), (size - 1, 1)][::-1],
    }
    with pytest.raises(Refused):
        read(archive(sparse_member(form, lies[change], size, b"x" * length)))


@given(kind=st.sampled_from([b"1", b"2", b"3", b"4", b"5", b"6"]), size=st.integers(0, 8**11 - 1))
def test_what_has_no_data_takes_none(kind: bytes, size: int) -> None:
    """A size in the header of a link or a directory means nothing; what follows is the next header."""
    ((first, data), (second, _)) = read(archive(header(b"a", flag=kind, size=size, link=b"b"), file(b"next")))
    assert (first.size, data, second.name, second.kind) == (0, b"", b"next", Kind.FILE)


def test_every_bit_of_a_plain_header_counts() -> None:
    """All 4,096 of them: refused, or (in the checksum's own padding) the same."""
    good = header(b"name", uid=5, mtime=9, prefix=b"dir") + END
    whole = read(good)
    same = []
    for bit in range(4096):
        broken = bytearray(good)
        broken[bit // 8] ^= 1 << (bit % 8)
        try:
            assert read(bytes(broken)) == whole
        except Refused:
            continue
        same.append(bit // 8)
    assert set(same) <= set(range(148, 156))
