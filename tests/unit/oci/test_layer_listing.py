"""The listing of an image: merged layers, followed symlinks, files that were asked for."""

from __future__ import annotations

import pytest

from appbox.errors import Refused
from appbox.oci.rootfs import Node
from appbox.oci.stream import Layer
from appbox.oci.unpack import list_image
from tests.ground.layers import archive, device, directory, file, gzip_layer, hardlink, of, pax, symlink


def paths(*layers: Layer) -> list[str]:
    return list(list_image(layers).paths())


def test_layers_are_merged() -> None:
    lower = of(directory(b"d"), file(b"d/a"), file(b"d/b"), file(b"e"))
    upper = gzip_layer(archive(file(b"d/.wh.a"), file(b"d/c"), file(b"e"), file(b".wh.nothing"), file(b"no/.wh.x")))
    assert paths(lower, upper) == ["/", "/d", "/d/b", "/d/c", "/e"]


@pytest.mark.parametrize("first", [True, False])
def test_whiteouts_spare_their_own_layer(first: bool) -> None:
    lower = of(directory(b"d", uid=5), file(b"d/old"), directory(b"d/sub", uid=5), file(b"d/sub/old"), file(b"f"))
    whiteouts = [file(b"d/.wh..wh..opq"), file(b".wh.f")]
    made = [file(b"d/new"), file(b"d/sub/new"), file(b"f", uid=7)]
    listing = list_image([lower, of(*(whiteouts + made if first else made + whiteouts))])
    assert list(listing.paths()) == ["/", "/d", "/d/new", "/d/sub", "/d/sub/new", "/f"]
    assert listing.locate("/f") == Node("/f", "file", 7, 0, 0o644)
    assert listing.locate("/d") == Node("/d", "directory", 5, 0, 0o755)
    assert listing.locate("/d/sub") == Node("/d/sub", "directory", 0, 0, 0o755)


def test_whiteouts_of_one_name_that_the_layer_makes_again_as_a_directory() -> None:
    lower = of(directory(b"d"), file(b"d/old"))
    assert paths(lower, of(directory(b"d"), file(b"d/new"), file(b".wh.d"))) == ["/", "/d", "/d/new"]


def test_locate_follows_symlinks_inside() -> None:
    listing = list_image(
        [
            of(
                directory(b"usr/lib", uid=1, gid=2, mode=0o700),
                symlink(b"lib", b"usr/lib"),
                symlink(b"up", b"../../../usr/lib"),
                symlink(b"abs", b"/usr/lib/./"),
                symlink(b"dangling", b"not/there"),
                symlink(b"loop", b"loop"),
                file(b"lib/f"),
                device(b"null", 1, 3),
            )
        ]
    )
    for path in ("/usr/lib", "lib", "/up", "/abs", "/../lib/.", "/lib/../lib"):
        assert listing.locate(path) == Node("/usr/lib", "directory", 1, 2, 0o700)
    assert listing.locate("/abs/f") == Node("/usr/lib/f", "file", 0, 0, 0o644)
    assert listing.locate("/dangling/x") == Node("/not/there/x", "missing")
    assert listing.locate("/no") == Node("/no", "missing")
    assert listing.locate("/null") == Node("/null", "other", 0, 0, 0o644)
    assert listing.locate("/lib/f/x") is None
    assert listing.locate("/") == Node("/", "directory", 0, 0, 0o755)
    with pytest.raises(Refused, match="too many symlinks"):
        listing.locate("/loop/x")


class TestReading:
    def test_the_last_layer_wins(self) -> None:
        listing = list_image([of(file(b"etc/passwd", b"old")), of(file(b"./etc//passwd", b"new"))], ["/etc/passwd"])
        assert listing.read("/etc/passwd") == b"new"

    @pytest.mark.parametrize(
        "member", [symlink(b"etc/passwd", b"../usr/p"), symlink(b"etc", b"usr"), hardlink(b"etc/passwd", b"usr/p")]
    )
    def test_by_another_name(self, member: bytes) -> None:
        listing = list_image([of(file(b"usr/p", b"x"), file(b"usr/passwd", b"x"), member)], ["/etc/passwd"])
        assert listing.read("/etc/passwd") == b"x"

    def test_nothing(self) -> None:
        listing = list_image([of(file(b"etc/passwd")), of(file(b"etc/.wh.passwd"))], ["/etc/passwd", "/etc/group"])
        assert listing.read("/etc/passwd") is None
        assert listing.read("/etc/group") is None
        with pytest.raises(ValueError, match="not among"):
            listing.read("/etc/shadow")

    def test_sparse(self) -> None:
        records = pax([(b"GNU.sparse.size", b"6"), (b"GNU.sparse.map", b"0,1,3,2")])
        assert list_image([of(records, file(b"f", b"abc"))], ["/f"]).read("/f") == b"a\0\0bc\0"

    def test_what_is_no_file_or_too_large(self) -> None:
        listing = list_image([of(directory(b"d"), file(b"f", b"x" * 100))], ["/d", "/f"])
        with pytest.raises(Refused, match="not a regular file"):
            listing.read("/d")
        with pytest.raises(Refused, match="larger than 99"):
            listing.read("/f", 99)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([file(b"f"), file(b"f/g")], "is a file"),
        ([hardlink(b"h", b"nothing")], "no other file"),
        ([directory(b"d"), hardlink(b"h", b"d")], "no other file"),
        ([symlink(b"l", b"d"), file(b"d/f"), hardlink(b"l/f", b"d/f")], "no other file"),
    ],
)
def test_what_is_refused(members: list[bytes], words: str) -> None:
    with pytest.raises(Refused, match=words):
        list_image([of(*members)])
