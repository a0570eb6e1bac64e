"""The same images through appbox, umoci and podman: stacks of layers made by chance, and real images.

Everything is compared: contents, owners, modes, xattrs, links, device numbers, times to the nanosecond. Where a peer is
known to do something else, `KNOWN` says what and why, and the reports say how often.
"""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from appbox.oci import unpack
from tests.ground import stacks, unpackers
from tests.ground.layers import archive, directory, file, hardlink, of, pax, symlink
from tests.ground.rootfs import Root
from tests.ground.trees import Thing
from tests.ground.unpackers import by_appbox, by_podman, by_umoci

pytestmark = pytest.mark.root

Tree = Mapping[str, Thing]


@dataclass(frozen=True)
class Known:
    """Something that a peer does otherwise. `excuses` is given a name and both trees."""

    peers: str
    reason: str
    excuses: Callable[[str, Tree, Tree], bool]


def _is_directory(thing: Thing | None) -> bool:
    return thing is not None and stat.S_ISDIR(thing.mode)


def _but(name: str, mine: Tree, theirs: Tree, **fields: object) -> bool:
    """Tell whether both have the name, as a directory, and all else but these fields is equal."""
    a, b = mine.get(name), theirs.get(name)
    if a is None or b is None or not (_is_directory(a) and _is_directory(b)):
        return False
    return replace(a, **fields) == replace(b, **fields)  # type: ignore[arg-type]


def _implied(name: str, mine: Tree) -> bool:
    """Tell whether we have the name as a directory that no header describes: of 1970 and without attributes."""
    return name in mine and mine[name].mtime == 0 and _plain(mine[name])


def _plain(thing: Thing) -> bool:
    """Tell whether a directory is one that somebody made on the way: root's, 0755, no extended attributes."""
    return (stat.S_IMODE(thing.mode), thing.uid, thing.gid, thing.xattrs) == (0o755, 0, 0, ())


KNOWN = (
    Known(
        "umoci podman",
        "a directory to which a later layer adds, without a header for it, keeps the time of now",
        lambda name, mine, theirs: _but(name, mine, theirs, mtime=0),
    ),
    Known(
        "umoci podman",
        "a directory that no header describes takes the group of a set-group-ID directory above it",
        lambda name, mine, theirs: (
            _implied(name, mine) and _but(name, mine, theirs, mtime=0, mode=stat.S_IFDIR, gid=0)
            if name in mine
            else False
        ),
    ),
    Known(
        "podman",
        "a directory over a directory of a lower layer keeps the extended attributes of that one",
        lambda name, mine, theirs: (
            _but(name, mine, theirs, mtime=0, xattrs=()) and set(mine[name].xattrs) < set(theirs[name].xattrs)
        ),
    ),
    Known(
        "podman",
        "the directory of a whiteout is made, though there is nothing to remove in it",
        lambda name, mine, theirs: name not in mine and _is_directory(theirs[name]) and _plain(theirs[name]),
    ),
)
"""What the peers are known to do otherwise (umoci 0.4.7, podman 4.3.1), each with its reason."""


def differences(peer: str, mine: Tree, theirs: Tree) -> tuple[list[str], Counter[str]]:
    """Return the names that differ without an excuse, and how often each excuse was needed."""
    known = [one for one in KNOWN if peer in one.peers.split()]
    faults, excused = [], Counter[str]()
    for name in sorted({*mine, *theirs}):
        if mine.get(name) == theirs.get(name):
            continue
        reason = next((one.reason for one in known if one.excuses(name, mine, theirs)), None)
        if reason is None:
            faults.append(f"{name}: {mine.get(name)} here, {theirs.get(name)} there")
        else:
            excused[reason] += 1
    return faults, excused


def agree(peer: str, mine: Tree, theirs: Tree) -> Counter[str]:
    """Check that two trees are equal but for what is known, and print what was counted."""
    faults, excused = differences(peer, mine, theirs)
    assert not faults, "\n".join(faults[:10])
    print(f"{peer}: {len(mine)} things compared, {sum(excused.values())} differ for {len(excused)} known reasons")
    return excused


# Stacks made by chance

STACKS = 75
"""Of each image; there are four."""


@pytest.mark.parametrize("seed", [1, 2])
def test_tame_stacks_as_umoci_and_podman_do(seed: int, tmp_path: Path) -> None:
    """All forms of compression; umoci, which knows less, is given gzip of the same layers."""
    made = list(stacks.stacks(STACKS, seed, tame=True))
    tars = stacks.image(made)
    mixed = unpackers.layout(tmp_path / "mixed", tars, ["gzip", "zstd", "plain", "members"])
    plain = unpackers.layout(tmp_path / "plain", tars, ["gzip", "plain", "gzip", "gzip"])
    mine = by_appbox(mixed, tmp_path / "appbox")
    assert mine == by_appbox(plain, tmp_path / "again")
    kinds = Counter(kind for stack in made for kind in stack.kinds)
    assert min(kinds[kind] for kind in stacks.KINDS) > 10
    print(f"{len(made)} stacks of {stacks.LAYERS} layers: {dict(sorted(kinds.items()))}")
    agree("podman", mine, by_podman(mixed, tmp_path / "podman"))
    agree("umoci", mine, by_umoci(plain, tmp_path / "umoci"))


@pytest.mark.parametrize("seed", [3, 4])
def test_wild_stacks_as_umoci_does(seed: int, tmp_path: Path) -> None:
    """Layers that name a path twice, replace what they made, and put files behind symlinks to nowhere."""
    made = list(stacks.stacks(STACKS, seed))
    image = unpackers.layout(tmp_path / "layout", stacks.image(made), ["gzip", "plain", "gzip", "gzip"])
    print(f"{len(made)} stacks of {stacks.LAYERS} layers")
    agree("umoci", by_appbox(image, tmp_path / "appbox"), by_umoci(image, tmp_path / "umoci"))


def test_every_known_fault_is_one_that_is_seen(tmp_path: Path) -> None:
    """An excuse that nobody needs would only hide something."""
    tars = [
        archive(directory(b"./", mtime=1), directory(b"d", mtime=2), directory(b"s", mode=0o2775, gid=7),
                pax({b"SCHILY.xattr.user.a": b"b"}), directory(b"x", mtime=3)),
        archive(directory(b"./", mtime=1), file(b"d/new"), file(b"s/implied/f"), directory(b"x", mtime=3),
                file(b"nothing/.wh.f")),
    ]  # fmt: skip
    image = unpackers.layout(tmp_path / "layout", tars, ["gzip", "gzip"])
    mine = by_appbox(image, tmp_path / "appbox")
    podmans = agree("podman", mine, by_podman(image, tmp_path / "podman"))
    umocis = agree("umoci", mine, by_umoci(image, tmp_path / "umoci"))
    seen = {"podman": podmans, "umoci": umocis}
    assert [(peer, one.reason) for one in KNOWN for peer in one.peers.split() if not seen[peer][one.reason]] == []


def test_a_difference_is_found() -> None:
    """The comparison itself: of two trees that differ in one field, whichever it is."""
    one = Thing(stat.S_IFREG | 0o644, 0, 0, 1, 5, 0, "", "d", "f", ())
    changed = [
        replace(one, mode=stat.S_IFREG | 0o600), replace(one, uid=1), replace(one, gid=1), replace(one, size=2),
        replace(one, mtime=6), replace(one, device=1), replace(one, link="x"), replace(one, digest="e"),
        replace(one, same_as="g"), replace(one, xattrs=(("user.a", b""),)),
    ]  # fmt: skip
    for peer in ("umoci", "podman"):
        assert differences(peer, {"f": one}, {"f": one}) == ([], Counter())
        assert all(differences(peer, {"f": one}, {"f": other})[0] for other in changed)
        assert differences(peer, {"f": one}, {})[0]
        assert differences(peer, {}, {"f": one})[0]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("target", [b"d/h", b"h"])
def test_a_link_whose_directory_is_replaced_later_in_its_layer(root: Root, target: bytes) -> None:
    """The last of duplicates wins; a hard link that was right when it was made is no fault afterwards."""
    layers = [of(directory(b"d"), file(b"d/f", b"x")), of(hardlink(target, b"d/f"), symlink(b"d", b"new"))]
    assert "/h" in set(unpack.list_image(layers).paths()) or target == b"d/h"
    root.unpack(*layers)
    assert root.names() == (["d", "h"] if target == b"h" else ["d"])


# Real images


def as_layout(name: str, image: Callable[[str], Path]) -> str:
    layout = image(name)
    ref = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"][
        "org.opencontainers.image.ref.name"
    ]
    return f"{layout}:{ref}"


@pytest.mark.images
@pytest.mark.parametrize("name", ["busybox", "valkey", "mariadb", "debian"])
def test_real_images_as_umoci_and_podman_do(name: str, image: Callable[[str], Path], tmp_path: Path) -> None:
    where = as_layout(name, image)
    mine = by_appbox(where, tmp_path / "appbox")
    assert len(mine) > (100 if name == "busybox" else 1000)
    kinds = Counter(stat.S_IFMT(thing.mode) for thing in mine.values())
    shown = {"files": stat.S_IFREG, "directories": stat.S_IFDIR, "symlinks": stat.S_IFLNK, "devices": stat.S_IFCHR}
    print(f"{name}: { {word: kinds[kind] for word, kind in shown.items()} }")
    for peer, unpacked in (("umoci", by_umoci), ("podman", by_podman)):
        excused = agree(peer, mine, unpacked(where, tmp_path / peer))
        assert sum(excused.values()) < 10
