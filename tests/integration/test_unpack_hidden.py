"""Files that upper layers hide are left out, and nobody can tell: not from the tree, not from what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ground.layers import directory, file, hardlink, of, pax, symlink
from tests.ground.rootfs import Root

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        ([file(b"a/.wh.f")], "a hard link leads to nothing"),
        ([file(b"a/.wh..wh..opq")], "a hard link leads to nothing"),
        ([file(b".wh.a")], "a hard link leads to nothing"),
        ([directory(b"a/f")], "a hard link leads to a directory"),
        ([directory(b"b"), symlink(b"a", b"b")], "a hard link leads to nothing"),
    ],
)
@pytest.mark.parametrize("apart", [False, True], ids=["same-layer", "layers-of-their-own"])
def test_a_link_to_nothing_is_refused_although_nobody_would_see_it(
    root: Root, middle: list[bytes], words: str, *, apart: bool
) -> None:
    link = hardlink(b"h", b"a/f")
    between = [of(*middle), of(link)] if apart else [of(*middle, link)]
    root.refuse(words, of(file(b"a/f", b"1")), *between, of(file(b"h"), file(b".wh.a")))


def test_a_link_to_what_its_own_layer_has_may_be_left_out(root: Root) -> None:
    lower = of(file(b"a/f", b"1" * 5000), hardlink(b"a/g", b"a/f"), hardlink(b"h", b"a/g"))
    root.unpack(lower, of(file(b"h", b"2"), file(b"a/.wh..wh..opq")))
    assert root.names() == ["a", "h"]
    assert root.read("h") == "2"


CAPABILITY = b"SCHILY.xattr.security.capability"
OF_ANOTHER = bytes.fromhex("0000000300200000000000000000000000000000") + (70000).to_bytes(4, "little")


@pytest.mark.parametrize("value", [b"short", bytes(20), OF_ANOTHER], ids=["short", "no revision", "of no user"])
def test_a_malformed_capability_is_refused_although_nobody_would_see_it(root: Root, value: bytes) -> None:
    lower = of(pax({CAPABILITY: value}) + file(b"f"))
    root.refuse("security.capability", lower)
    root.empty()
    root.refuse("security.capability", lower, of(file(b"f")))


def test_zeros_over_a_file_take_no_disk(root: Root) -> None:
    root.unpack(of(file(b"f", b"1"), file(b"g", b"1")), of(hardlink(b"h", b"g"), file(b"f", bytes(16 << 20))))
    assert root.stat("f").st_size == 16 << 20
    assert root.stat("f").st_blocks * 512 < 1 << 20
