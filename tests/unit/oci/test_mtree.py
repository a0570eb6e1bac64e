"""mtree manifests as text: what is written is read back, and nothing else is read at all."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appbox.errors import Refused
from appbox.oci import mtree
from appbox.oci.mtree import Node
from appbox.oci.tar import Kind

components = st.binary(min_size=1, max_size=12).filter(
    lambda b: b"\0" not in b and b"/" not in b and b not in {b".", b".."}
)
paths = st.lists(components, max_size=4).map(b"/".join)
names = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=9).map("user.".__add__)
xattrs = st.dictionaries(names, st.binary(max_size=20), max_size=3).map(lambda d: tuple(sorted(d.items())))
common = {
    "path": paths,
    "mode": st.integers(0, 0o7777),
    "uid": st.integers(0, 2**32 - 2),
    "gid": st.integers(0, 2**32 - 2),
    "mtime": st.integers(-(2**62), 2**62),
    "xattrs": xattrs,
}
links = st.integers(1, 70000)
nothing = {key: st.just(Node._field_defaults[key]) for key in ("size", "digest", "link", "device", "nlink", "instead")}


def built(kind: st.SearchStrategy[Kind], **fields: st.SearchStrategy[object]) -> st.SearchStrategy[Node]:
    return st.builds(Node, kind=kind, **{**nothing, **common, **fields})  # type: ignore[arg-type]


nodes = st.one_of(
    built(
        st.just(Kind.FILE),
        size=st.integers(0, 2**60),
        digest=st.binary(min_size=32, max_size=32),
        nlink=links,
    ),
    built(st.just(Kind.DIRECTORY)),
    built(st.just(Kind.SYMLINK), link=st.binary(min_size=1).filter(lambda b: b"\0" not in b), nlink=links),
    built(
        st.sampled_from([Kind.CHAR, Kind.BLOCK]),
        device=st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)),
        nlink=links,
    ),
    built(st.just(Kind.FIFO), nlink=links),
    built(
        st.just(Kind.FILE),
        digest=st.binary(min_size=32, max_size=32),
        device=st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)),
        nlink=links,
        instead=st.sampled_from([Kind.CHAR, Kind.BLOCK, Kind.FIFO]),
    ),
)


def listed(*nodes: Node) -> list[Node]:
    return list(mtree.parse([mtree.HEADER, *map(mtree.line, nodes)]))


@given(nodes)
@example(Node(b"\n", Kind.DIRECTORY, 0o755, 0, 0, 0))
@example(Node(b"a/..\n", Kind.DIRECTORY, 0o755, 0, 0, 0))
def test_what_is_written_is_read_back(node: Node) -> None:
    text = mtree.line(node)
    assert mtree.parse_line(text) == node
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    assert not set(text[:-1]) & {*range(0x20), 0x7F, *b"#*?["}
    text.decode("utf-8")


@pytest.mark.parametrize(
    ("path", "word"),
    [
        (b"", b"."),
        (b"usr/bin/x", b"./usr/bin/x"),
        (b"usr/bin/[", b"./usr/bin/\\133"),
        (b"a b\n#=\\", b"./a\\040b\\012\\043=\\134"),
        ("F\u0151tan\u00fas".encode(), "./F\u0151tan\u00fas".encode()),  # UTF-8 that can be read stays as it is
        (b"a\xc3\xa9\xff", b"./a\\303\\251\\377"),
        ("\u202ex\u00a0".encode(), b"./\\342\\200\\256x\\302\\240"),  # what a terminal would obey does not
    ],
)
def test_names(path: bytes, word: bytes) -> None:
    assert mtree.name(path) == word


def test_a_line() -> None:
    node = Node(
        b"bin/su", Kind.FILE, 0o4755, 5, 6, -1_500_000_000, 3, bytes(32), nlink=2, xattrs=(("user.a b", b"\0"),)
    )
    assert mtree.line(node) == (
        b"./bin/su type=file mode=04755 uid=5 gid=6 time=-2.500000000 size=3 sha256digest=" + b"00" * 32 + b""
        b" xattr.user.a\\040b=AA== nlink=2\n"
    )


def test_an_empty_file_says_for_which_device_it_stands() -> None:
    node = Node(b"null", Kind.FILE, 0o666, 0, 0, 0, 0, bytes(32), device=(1, 3), nlink=1, instead=Kind.CHAR)
    text = mtree.line(node)
    assert b" tags=appbox-char-1-3 nlink=1\n" in text
    with pytest.raises(ValueError, match="malformed"):
        mtree.parse_line(text.replace(b"size=0", b"size=1"))


ROOT = Node(b"", Kind.DIRECTORY, 0o755, 0, 0, 0)
FILE = Node(b"f", Kind.FILE, 0o644, 0, 0, 0, 1, bytes(32), nlink=1)
GOOD = mtree.line(FILE)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"# a comment\n",
        b"/set type=file\n",
        GOOD[:-1],
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(b" mode", b"  mode"),
        GOOD.replace(b"./f", b"f"),
        GOOD.replace(b"./f", b"/f"),
        GOOD.replace(b"./f", b"./"),
        GOOD.replace(b"./f", b"./f/"),
        GOOD.replace(b"./f", b"./."),
        GOOD.replace(b"./f", b"./.."),
        GOOD.replace(b"./f", b"./\\056\\056"),
        GOOD.replace(b"./f", b"./a\\057b"),
        GOOD.replace(b"./f", b"./a\\000"),
        GOOD.replace(b"./f", b"./a\\"),
        GOOD.replace(b"./f", b"./a\\9"),
        GOOD.replace(b"./f", b"./a\\400"),
        GOOD.replace(b"file", b"dir"),
        GOOD.replace(b"file", b"link"),
        GOOD.replace(b"file", b"socket"),
        GOOD.replace(b"mode=0644", b"mode=644"),
        GOOD.replace(b"mode=0644", b"mode=010000"),
        GOOD.replace(b"mode=0644", b"mode=0"),  # fine by itself, but see below
        GOOD.replace(b"uid=0", b"uid=-1"),
        GOOD.replace(b"uid=0", b"uid=00"),
        GOOD.replace(b"uid=0", b"uid=12345678901"),
        GOOD.replace(b"size=1", b"size=" + b"9" * 5000),
        GOOD.replace(b" size=1", b""),
        GOOD.replace(b"time=0.000000000", b"time=0.0"),
        GOOD.replace(b"time=0.", b"time=-0."),
        GOOD.replace(b"=00000000", b"=0000000G"),
        GOOD.replace(b" nlink=1", b""),
        GOOD.replace(b"nlink=1", b"nlink=0"),
        GOOD.replace(b"nlink=1", b"nlink=1 nlink=1"),
        GOOD.replace(b" nlink", b" link=x nlink"),
        GOOD.replace(b" nlink", b" device=native,1,2 nlink"),
        GOOD.replace(b" nlink", b" flags=none nlink"),
        GOOD.replace(b" nlink", b" xattr.a=A nlink"),
        GOOD.replace(b" nlink", b" xattr.b=AA== xattr.a=AA== nlink"),
        GOOD.replace(b" nlink", b" xattr.a=AA== xattr.a=AA== nlink"),
    ],
)
def test_lines_that_nobody_wrote(text: bytes) -> None:
    if b"mode=0 " in text:
        assert mtree.parse_line(text).mode == 0
        return
    with pytest.raises(ValueError):  # noqa: PT011
        mtree.parse_line(text)
    with pytest.raises(Refused, match="is damaged: line 3: "):
        list(mtree.parse([mtree.HEADER, mtree.line(ROOT), text]))


def test_the_order_is_that_of_a_walk() -> None:
    """A directory's content comes before a sibling whose name goes on with a character below the slash."""
    tree = [b"", b"a", b"a/b", b"a/b/c", b"a-b", b"a.b", b"b"]
    assert sorted(set(tree), key=mtree.order) == tree
    listed(*(ROOT._replace(path=path) for path in tree))


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ([b"a"], "its directory is not listed"),
        ([b"", b"a/b"], "its directory is not listed"),
        ([b"", b"f", b"f/b"], "its directory is not listed"),
        ([b"", b""], "it is out of order"),
        ([b"", b"b", b"a"], "it is out of order"),
        ([b"", b"a", b"a"], "it is out of order"),
        ([b"", b"a", b"a-b", b"a/b"], "it is out of order"),
        ([], "it lists nothing"),
    ],
)
def test_a_list_with_gaps_or_out_of_order(tree: list[bytes], why: str) -> None:
    with pytest.raises(Refused, match=why):
        listed(*((FILE if path == b"f" else ROOT)._replace(path=path) for path in tree))


@pytest.mark.parametrize("first", [b"", b"#mtree", b"#MTREE\n", b"\n", mtree.line(ROOT)])
def test_a_file_that_is_no_manifest(first: bytes) -> None:
    with pytest.raises(Refused, match="is no mtree manifest"):
        list(mtree.parse([first] if first else []))


@given(nodes, st.data())
def test_damage_is_refused_in_words(node: Node, data: st.DataObject) -> None:
    """Whatever one byte becomes: the line is refused in words, or says something else."""
    text = bytearray(mtree.line(node))
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        mtree.parse_line(bytes(text))


@given(st.lists(st.binary(max_size=60)))
def test_junk_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(Refused):
        list(mtree.parse([mtree.HEADER, *lines]))
