"""Headers that are written: our own strict reader, Python's and GNU tar's take them, to the nanosecond."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.oci import tar_header
from appbox.oci.tar import Archive, Kind

NAMES = st.lists(st.binary(min_size=1, max_size=120).filter(lambda b: not {0, 47} & set(b)), min_size=1, max_size=4)


def members(data: bytes) -> list[tuple[object, ...]]:
    return [
        (m.kind, m.name, m.mode, m.uid, m.gid, m.size, m.mtime, m.link, m.records) for m in Archive([data], 1 << 40)
    ]


@given(
    NAMES,
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    st.integers(-(2**40) * 10**9, 2**50 * 10**9),
    NAMES,
)
def test_what_is_written_is_read(parts: list[bytes], mode: int, owner: int, mtime: int, link: list[bytes]) -> None:
    name, target = b"/".join(parts), b"/".join(link)
    data = tar_header.header(Kind.SYMLINK, name, mode, (owner, owner), 0, mtime, target) + tar_header.END
    ((kind, found, bits, uid, gid, size, when, to, _),) = members(data)
    assert (kind, found, bits, uid, gid, size, when, to) == (Kind.SYMLINK, name, mode, owner, owner, 0, mtime, target)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 8**11 - 1, 8**11, 1 << 39])
def test_sizes(size: int) -> None:
    data = tar_header.header(Kind.FILE, b"large", 0o600, size=size)
    member = next(iter(Archive(iter([data]), 1 << 40)))
    assert member.size == size


def test_attributes_and_lengths_of_records() -> None:
    for length in range(85, 110):
        more = [(tar_header.XATTR + b"user.note", b"x" * length)]
        data = tar_header.header(Kind.FILE, b"file", 0o600, more=more) + tar_header.END
        ((*_, records),) = members(data)
        assert records == more


def test_pythons_tarfile_reads_a_sparse_file() -> None:
    segments = [(512, 3), (4096, 2)]
    table = tar_header.sparse_map(segments, 10000)
    more = tar_header.sparse_records(b"dir/holes", 10000)
    data = tar_header.header(Kind.FILE, b"GNUSparseFile.0/holes", 0o600, size=len(table) + 5, more=more)
    data += table + b"abcde" + tar_header.padding(len(table) + 5) + tar_header.END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (info,) = archive.getmembers()
        content = archive.extractfile(info)
        assert content is not None
        whole = content.read()
    assert (info.name, len(whole), whole[512:515], whole[4096:4098]) == ("dir/holes", 10000, b"abc", b"de")
    (member,) = Archive([data], 1 << 20)
    assert member.name == b"dir/holes"
    assert member.sparse is not None
    assert (member.sparse.size, member.sparse.segments) == (10000, tuple(segments))
