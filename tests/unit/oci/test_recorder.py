"""What is recorded while a rootfs is written: held against a model that keeps a tree in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appbox.oci import mtree, recorder
from appbox.oci.digest import Digest
from appbox.oci.mtree import Node
from appbox.oci.recorder import Recorder
from appbox.oci.tar import Kind


@dataclass
class Made:
    """An inode of the model."""

    node: Node
    names: int = 0


@dataclass
class Model:
    """A tree, by path."""

    tree: dict[bytes, Made] = field(default_factory=dict)

    def make(self, node: Node) -> None:
        before = self.tree.get(node.path)
        if not (before and before.node.kind is node.kind is Kind.DIRECTORY):
            self.remove(node.path)
        self.tree[node.path] = Made(node)

    def remove(self, path: bytes, *, itself: bool = True) -> None:
        for name in list(self.tree):
            if (itself and name == path) or not path or name.startswith(path + b"/"):
                del self.tree[name]

    def nodes(self) -> list[Node]:
        for made in self.tree.values():
            made.names = 0
        for made in self.tree.values():
            made.names += 1
        return [
            made.node._replace(path=path, nlink=0 if made.node.kind is Kind.DIRECTORY else made.names)
            for path, made in sorted(self.tree.items(), key=lambda pair: mtree.order(pair[0]))
        ]


NAMES = [b"a", b"b", b"a-b", b"a b"]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
operations = st.lists(
    st.tuples(st.sampled_from(["file", "directory", "symlink", "fifo", "link", "remove", "empty"]), paths, paths),
    max_size=60,
)


class Both:
    """Does everything twice: to the recorder and to the model."""

    def __init__(self, record: Recorder) -> None:
        self.record, self.model, self.count = record, Model(), 0
        self.directory(b"")

    def node(self, path: bytes, kind: Kind) -> Node:
        self.count += 1
        return Node(path, kind, 0o644, 1, 2, self.count * 1_000_000_007)

    def directory(self, path: bytes) -> None:
        node = self.node(path, Kind.DIRECTORY)
        self.model.make(node)
        self.record.directory(path, node.mode, node.uid, node.gid, node.mtime)

    def parents(self, path: bytes) -> None:
        parts = path.split(b"/")[:-1]
        for depth in range(1, len(parts) + 1):
            here = b"/".join(parts[:depth])
            made = self.model.tree.get(here)
            if made is None or made.node.kind is not Kind.DIRECTORY:
                self.clear(here)
                self.directory(here)

    def clear(self, path: bytes) -> None:
        if path in self.model.tree:
            self.record.removed(path)
            self.model.remove(path)

    def do(self, what: str, path: bytes, other: bytes) -> None:
        if what == "remove":
            self.record.removed(path)
            self.model.remove(path)
        elif what == "empty":
            self.record.emptied(path)
            self.model.remove(path, itself=False)
        elif what == "link":
            self.link(path, other)
        else:
            self.parents(path)
            made = self.model.tree.get(path)
            if made and (made.node.kind is Kind.DIRECTORY) != (what == "directory"):
                self.clear(path)
            self.make(what, path)

    def make(self, what: str, path: bytes) -> None:
        if what == "directory":
            self.directory(path)
        elif what == "file":
            node = self.node(path, Kind.FILE)._replace(size=self.count, digest=bytes([self.count]) * 32)
            self.model.make(node)
            self.record.file(path, node.mode, node.uid, node.gid, node.mtime, node.size, node.digest)
        elif what == "symlink":
            node = self.node(path, Kind.SYMLINK)._replace(mode=0o777, link=b"t %d" % self.count)
            self.model.make(node)
            self.record.symlink(path, node.uid, node.gid, node.mtime, node.link)
        else:
            node = self.node(path, Kind.FIFO)
            self.model.make(node)
            self.record.special(path, Kind.FIFO, node.mode, node.uid, node.gid, node.mtime)

    def link(self, path: bytes, target: bytes) -> None:
        if target not in self.model.tree or self.model.tree[target].node.kind is Kind.DIRECTORY or path == target:
            return
        self.parents(path)
        self.clear(path)
        made = self.model.tree.get(target)
        if made is not None:  # it may have been in what was just cleared
            self.record.linked(path, target)
            self.model.tree[path] = made


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def written(record: Recorder) -> tuple[bytes, recorder.Written]:
    with tempfile.TemporaryFile() as file:
        result = record.write(file.fileno())
        file.seek(0)
        return file.read(), result


@settings(max_examples=150)
@given(operations=operations, run=st.sampled_from([1, 700, 5000, recorder.RUN]))
def test_the_manifest_is_what_the_model_has(operations: list[tuple[str, bytes, bytes]], run: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as scratch:
        patch.setattr(recorder, "RUN", run)
        fd = os.open(scratch, os.O_RDONLY)
        record = Recorder(fd)
        try:
            both = Both(record)
            for operation in operations:
                both.do(*operation)
            text, result = written(record)
        finally:
            record.close()
            os.close(fd)
        assert not os.listdir(scratch)
    assert list(mtree.parse(text.splitlines(keepends=True))) == both.model.nodes()
    assert result == recorder.Written(Digest.of(text), len(text), len(both.model.tree))


def test_every_kind(scratch: int) -> None:
    record = Recorder(scratch)
    record.directory(b"", 0o1755, 1, 2, 3, (("user.d", b"x"),))
    record.file(b"f", 0o4711, 3, 4, 5, 6, b"\1" * 32, (("user.b", b""), ("security.capability", b"\2")))
    record.symlink(b"s", 5, 6, 7, b"../x y")
    record.special(b"c", Kind.CHAR, 0o600, 7, 8, 9, 1, 3)
    record.special(b"p", Kind.FIFO, 0o600, 7, 8, 9)
    text, _ = written(record)
    record.close()
    assert list(mtree.parse(text.splitlines(keepends=True))) == [
        Node(b"", Kind.DIRECTORY, 0o1755, 1, 2, 3, xattrs=(("user.d", b"x"),)),
        Node(b"c", Kind.CHAR, 0o600, 7, 8, 9, device=(1, 3), nlink=1),
        Node(
            b"f",
            Kind.FILE,
            0o4711,
            3,
            4,
            5,
            6,
            b"\1" * 32,
            nlink=1,
            xattrs=(("security.capability", b"\2"), ("user.b", b"")),
        ),
        Node(b"p", Kind.FIFO, 0o600, 7, 8, 9, nlink=1),
        Node(b"s", Kind.SYMLINK, 0o777, 5, 6, 7, link=b"../x y", nlink=1),
    ]


def test_a_link_is_what_its_target_was_then(scratch: int) -> None:
    """A link to a link, whose names are replaced and removed in turn, keeps the first file alive."""
    record = Recorder(scratch)
    record.directory(b"", 0o755, 0, 0, 0)
    record.file(b"a", 0o644, 0, 0, 1, 1, b"\1" * 32)
    record.linked(b"b", b"a")
    record.linked(b"c", b"b")
    record.file(b"b", 0o644, 0, 0, 2, 1, b"\2" * 32)
    record.removed(b"a")
    record.linked(b"d", b"c")
    text, _ = written(record)
    record.close()
    found = {node.path: (node.digest[:1], node.nlink) for node in mtree.parse(text.splitlines(keepends=True))}
    assert found == {b"": (b"", 0), b"b": (b"\2", 1), b"c": (b"\1", 2), b"d": (b"\1", 2)}


def test_a_link_to_nothing_is_our_own_fault(scratch: int) -> None:
    record = Recorder(scratch)
    record.directory(b"", 0o755, 0, 0, 0)
    record.linked(b"a", b"b")
    with pytest.raises(ValueError, match="never made"):
        written(record)
    record.close()


def test_long_attributes_do_not_fill_the_memory(scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "RUN", 1 << 18)
    record = Recorder(scratch)
    record.directory(b"", 0o755, 0, 0, 0)
    value = bytes(65536)
    for number in range(20):
        record.file(b"%02d" % number, 0o644, 0, 0, 0, 0, bytes(32), (("user.x", value),))
        assert sum(map(len, record._texts)) < 1 << 19
    text, result = written(record)
    record.close()
    assert result.entries == 21
    assert all(node.xattrs == (("user.x", value),) for node in list(mtree.parse(text.splitlines(keepends=True)))[1:])


def test_a_file_system_without_nameless_files(scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "RUN", 1)
    opened = os.open

    def refusing(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "not supported")
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    record = Recorder(scratch)
    record.directory(b"", 0o755, 0, 0, 0)
    assert os.listdir(scratch) == []
    assert written(record)[1].entries == 1
    record.close()
