"""Stacks of layers made by chance, the same ones for the same seed: small trees in which everything meets everything.

Many stacks fit into one image, each below a directory of its own, so that one unpack of a peer tries them all.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from appbox.errors import Refused
from appbox.oci import unpack
from appbox.oci.tar import Archive
from tests.ground.layers import (
    archive,
    device,
    directory,
    file,
    hardlink,
    header,
    layer,
    long_name,
    pax,
    symlink,
)

LAYERS = 4
_NAMES = (b"a", b"b", b"a/a", b"a/b", b"b/a", b"l/a", b"l/b/a", b"a/a/a", b"b/" + b"n" * 150)
_CHOICES = (
    "directory", "directory", "file", "file", "symlink", "hard link", "hard link", "setuid", "user xattr", "capability",
    "sparse", "device", "fifo", "hole", "directory xattr",
)  # fmt: skip
KINDS = frozenset((*_CHOICES, "whiteout", "opaque"))
"""What stacks are made of."""
_INNER = (b"a/a", b"a/b", b"b/a", b"a/f0", b"a/f1", b"l/f4", b"a/a/f1", b"b/h0")
_CAPABILITY = struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0)


@dataclass
class Stack:
    """The layers of one stack, lowest first, and the kinds of things in them."""

    layers: list[list[bytes]] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)


def stacks(count: int, seed: int, *, tame: bool = False) -> Iterator[Stack]:
    """Yield stacks that are valid: what the listing refuses is left out.

    Tame ones are what podman takes: no layer names a path twice or replaces what it has made itself, and nothing is
    put behind a symlink that leads nowhere.
    """
    chance = random.Random(seed)  # noqa: S311 - the same stacks each time
    number = 0
    while number < count:
        stack = _Maker(chance, b"%04d/" % number, tame=tame).stack()
        try:
            unpack.list_image([layer(archive(*members)) for members in stack.layers])
        except Refused:
            continue
        yield stack
        number += 1


def image(made: Sequence[Stack]) -> list[bytes]:
    """Return the archives of one image that holds all stacks beside each other."""
    root = [directory(b"./", mtime=1)]
    return [archive(*root, *(member for stack in made for member in stack.layers[index])) for index in range(LAYERS)]


class _Maker:
    """Makes one stack below the directory `top`."""

    def __init__(self, chance: random.Random, top: bytes, *, tame: bool) -> None:
        self.chance, self.top, self.kinds = chance, top, set[str]()
        self.tame = tame
        self.used: set[bytes] = set()  # names in this layer
        self.files: dict[bytes, dict[str, int]] = {}  # names of files, with the attributes of each

    def stack(self) -> Stack:
        base = [directory(self.top, mtime=2)]
        base += [directory(self.top + name, mtime=3) for name in (b"a", b"b")] if self.tame else []
        made = [[*base, *self.layer(lowest=True)]]
        made += [self.layer(lowest=False) for _ in range(LAYERS - 1)]
        return Stack(made, self.kinds)

    def layer(self, *, lowest: bool) -> list[bytes]:
        """Return members, whiteouts first, as all tools write them."""
        self.used = {self.top + b"a", self.top + b"b"} if lowest else set()
        count = self.chance.randrange(1, 7)
        made = [] if lowest else [self.whiteout() for _ in range(self.chance.randrange(3))]
        while len(made) < count:
            files, kinds = dict(self.files), set(self.kinds)
            member = self.member()
            if self.takes(member):
                made.append(member)
            else:
                self.files, self.kinds = files, kinds
        return made

    def takes(self, member: bytes) -> bool:
        """Tell whether the layer may have this member too, and remember its name."""
        (parsed,) = Archive(iter([archive(member)]), 1 << 30)
        name = parsed.name.rstrip(b"/")
        again = name in self.used or any(other.startswith(name + b"/") for other in self.used)
        self.used.add(name)
        return not (self.tame and again)

    def whiteout(self) -> bytes:
        name = self.top + self.chance.choice(_INNER if self.tame else _NAMES)
        parent, _, last = name.rpartition(b"/")
        opaque = self.chance.random() < 0.3 and parent != self.top[:-1]
        # podman walks over what is opaque without following the symlink that leads there, and so removes nothing.
        opaque = opaque and not (self.tame and parent.endswith(b"/l"))
        self.kinds.add("opaque" if opaque else "whiteout")
        path = parent + (b"/.wh..wh..opq" if opaque else b"/.wh." + last[:80])
        return file(path) if self.takes(file(path)) else self.whiteout()

    def member(self) -> bytes:
        name = self.top + self.chance.choice(_NAMES)
        kind = self.chance.choice(_CHOICES)
        if kind == "hard link" and not self.files:
            kind = "file"
        self.kinds.add(kind)
        made: bytes = getattr(self, "_" + kind.replace(" ", "_"))(name)
        return made

    def _of_a_file(self, name: bytes) -> tuple[bytes, dict[str, int]]:
        """Return the file's name and attributes, which the headers of links to it repeat, as those of all tools do."""
        # Behind a symlink numbers of their own: a file that went by two names would have two sets of attributes.
        first = 4 if b"/l/" in name else 0
        name = name.rpartition(b"/")[0] + b"/f%d" % (first + self.chance.randrange(4))
        self.files[name] = {"mtime": self.chance.randrange(10**9), **self._owner()}
        return name, self.files[name]

    def _owner(self) -> dict[str, int]:
        return {"uid": self.chance.randrange(3), "gid": self.chance.randrange(65536)}

    def _named(self, name: bytes, made: bytes) -> bytes:
        return made if len(name) <= 100 else long_name(name) + made

    def _directory(self, name: bytes) -> bytes:
        mode = self.chance.choice((0o755, 0o700, 0o1777, 0o2775))
        return self._named(name, directory(name[:100], mode=mode, mtime=self.chance.randrange(10**9), **self._owner()))

    def _directory_xattr(self, name: bytes) -> bytes:
        return pax({b"SCHILY.xattr.user.d": b"d"}) + directory(name[:90], mtime=7)

    def _file(self, name: bytes) -> bytes:
        name, fields = self._of_a_file(name)
        content = self.chance.randbytes(self.chance.choice((0, 1, 700)))
        return self._named(name, file(name[:100], content, **fields))

    def _setuid(self, name: bytes) -> bytes:
        name, fields = self._of_a_file(name)
        fields["mode"] = self.chance.choice((0o4755, 0o2711, 0o6777))
        return self._named(name, file(name[:100], b"#!", **fields))

    def _user_xattr(self, name: bytes) -> bytes:
        name, fields = self._of_a_file(name)
        records = {b"path": name, b"SCHILY.xattr.user.x": self.chance.randbytes(4), b"mtime": b"%d.000000001" % 10**8}
        self.files.pop(name)
        return pax(records) + file(b"x", b"x", **fields)

    def _capability(self, name: bytes) -> bytes:
        name, fields = self._of_a_file(name)
        self.files.pop(name)
        return pax({b"path": name, b"SCHILY.xattr.security.capability": _CAPABILITY}) + file(b"x", b"x", **fields)

    def _sparse(self, name: bytes) -> bytes:
        name, fields = self._of_a_file(name)
        # The oldest form, type S, is unknown to umoci.
        records = {
            b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": name,
            b"GNU.sparse.realsize": b"90000",
        }  # fmt: skip
        return pax(records) + file(b"x", b"2\n8192\n512\n65536\n512\n".ljust(512, b"\0") + b"S" * 1024, **fields)

    def _hole(self, name: bytes) -> bytes:
        name, fields = self._of_a_file(name)
        return self._named(name, file(name[:100], b"x" + bytes(70_000) + b"y", **fields))

    def _symlink(self, _: bytes) -> bytes:
        name = self.top + (b"l" if self.tame else self.chance.choice((b"l", b"l", b"a/l")))
        targets = (b"a", b"b", b"/" + self.top + b"a", b"../" + self.top + b"b")
        target = self.chance.choice(targets if self.tame else (*targets, b"new", b"/" + self.top + b"a/b"))
        return symlink(name, target, mtime=self.chance.randrange(10**9), **self._owner())

    def _hard_link(self, name: bytes) -> bytes:
        target = self.chance.choice(sorted(self.files))
        link = name.rpartition(b"/")[0] + b"/h%d" % self.chance.randrange(3)
        links = long_name(target, b"K") if len(target) > 100 else b""
        return links + self._named(link, hardlink(link[:100], target[:100], **self.files[target]))

    def _device(self, name: bytes) -> bytes:
        flag = self.chance.choice((b"3", b"4"))
        return device(name.rpartition(b"/")[0][:90] + b"/n", 1, 3, flag=flag, mtime=5, **self._owner())

    def _fifo(self, name: bytes) -> bytes:
        return header(name.rpartition(b"/")[0][:90] + b"/p", flag=b"6", mode=0o620, mtime=6)
