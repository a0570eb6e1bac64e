"""A second process that swaps directories for symlinks, against each kind of entry; and what strace sees of all."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import AppboxError
from appbox.oci import unpack
from tests.ground.layers import archive, device, directory, file, hardlink, header, layer, of, pax, symlink
from tests.ground.rootfs import IDENTITY, Root, snapshot

pytestmark = pytest.mark.root

TREE = Path(__file__).parents[2]

SWAPPER = """
import os, sys
os.chdir(sys.argv[1])
print("ready", flush=True)
while True:
    for name in ("d", "d/e"):
        try:
            os.rename(name, "away")
            os.symlink(sys.argv[2], name)
            os.unlink(name)
            os.rename("away", name)
        except OSError:
            for again in (lambda: os.unlink(name), lambda: os.rename("away", name)):
                try:
                    again()
                except OSError:
                    pass
"""

BASE = [directory(b"d"), directory(b"d/e"), file(b"d/e/file", b"x"), file(b"d/f", b"y"), directory(b"d/e/file.d")]
# What is outside has these very names, so that a step out of the root would meet something to change.
KINDS = {
    "file": [file(b"d/e/file", b"evil"), file(b"d/file", b"evil")],
    "setuid file": [file(b"d/e/file", b"evil", mode=0o6755, uid=5)],
    "directory": [directory(b"d/e", mode=0o777, uid=5), directory(b"d/e/new", mode=0o777)],
    "symlink": [symlink(b"d/e/file", b"evil"), symlink(b"d/file", b"evil")],
    "hard link": [hardlink(b"d/e/link", b"d/f"), hardlink(b"d/link", b"d/e/file")],
    "device": [device(b"d/e/file", 1, 3), device(b"d/file", 8, 0, flag=b"4")],
    "fifo": [header(b"d/e/file", flag=b"6"), header(b"d/file", flag=b"6")],
    "xattr": [pax({b"SCHILY.xattr.user.evil": b"1"}) + file(b"d/e/file", b"x")],
    "whiteout": [file(b"d/e/.wh.file"), file(b"d/.wh.file"), file(b"d/e/file"), file(b"d/.wh.e")],
    "opaque": [file(b"d/e/.wh..wh..opq"), file(b"d/.wh..wh..opq"), file(b"d/e/x")],
}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    (made.place / "outside/e").mkdir()
    for name in ("e/file", "f", "e/link"):
        (made.place / "outside" / name).write_text("outside")
    yield made
    made.close()


@pytest.fixture
def swapper(root: Root) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", SWAPPER, str(root.path), str(root.place / "outside")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_gained(root: Root, swapper: subprocess.Popen[bytes], kind: str) -> None:
    """Done or refused, whatever it is: nothing beside the root is made, changed or removed.

    Rounds go on until the swapper was met in eight of them; what starts in a directory that is not empty would be
    refused for that, and prove nothing, so the swapper is held while it is emptied.
    """
    layers = [of(*BASE), *(of(*KINDS[kind] * 12) for _ in range(8))]
    before = snapshot(root.place / "outside", root.path)
    met = 0
    for _ in range(100):
        try:
            unpack.unpack(layers, root.fd, IDENTITY, durable=False)
        except AppboxError as error:
            met += "not empty" not in str(error)
        for name in os.listdir(root.path):
            with contextlib.suppress(AppboxError, OSError):
                unpack.remove_tree(root.fd, name)
        assert snapshot(root.place / "outside", root.path) == before
        assert all(os.listxattr(path) == [] for path in (root.place / "outside").rglob("*"))
        if met == 8:
            break
        swapper.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, swapper.pid, os.WSTOPPED)
        root.empty()
        swapper.send_signal(signal.SIGCONT)
    assert met == 8


TRACED = """
import os, sys
from appbox.oci import unpack
from tests.integration.test_unpack_race import LAYERS
root = os.open(sys.argv[1], os.O_RDONLY)
os.path.exists("/begin")
unpack.unpack(LAYERS, root, unpack.IdMap(100000, 65536))
os.path.exists("/end")
"""

LAYERS = [
    of(directory(b"usr/lib"), symlink(b"lib", b"/usr/lib"), file(b"lib/a", b"x"), file(b"lib/b", b"x", mode=0o4755),
       directory(b"etc"), file(b"etc/x"), file(b"etc/y"), directory(b"opt/deep/tree"), file(b"opt/deep/tree/f")),
    of(file(b"lib/.wh.a"), hardlink(b"bin/linked", b"lib/b"), file(b"etc/.wh..wh..opq"), file(b"etc/new"),
       hardlink(b"usr/same", b"bin/linked"), file(b".wh.opt")),
    layer(archive(directory(b"opt"), device(b"dev/null", 1, 3), header(b"run/p", flag=b"6"), symlink(b"etc/new", b"x"),
                  pax({b"SCHILY.xattr.user.a": b"b"}), file(b"usr/attr", bytes(300_000)), file(b"usr/.wh.same"))),
    of(file(b".wh..wh..opq"), file(b"lib/again"), hardlink(b"h", b"lib/again")),
]  # fmt: skip

_CALL = re.compile(r"^[0-9]+ +(?:<\.\.\. )?([a-z0-9_]+)")


def test_layers_with_whiteouts_and_hard_links_by_descriptor_only(root: Root) -> None:
    """No call names a path of the host below the root, none starts a program, and every walk stays inside."""
    log = root.place / "log"
    trace = ["strace", "-f", "-e", "trace=%file,%process,openat2,chdir,fchdir,chroot", "-o", str(log)]
    done = [*trace, sys.executable, "-c", TRACED, str(root.path)]
    subprocess.run(done, check=True, cwd=TREE, env={**os.environ, "PYTHONPATH": "."})
    _, _, rest = log.read_text().partition('"/begin"')
    lines = rest.partition('"/end"')[0].splitlines()[1:-1]
    calls = {match[1] for line in lines if (match := _CALL.match(line))}
    assert {"openat2", "linkat", "unlinkat", "mkdirat", "symlinkat", "mknodat"} <= calls
    assert not calls & {"execve", "execveat", "fork", "vfork", "chdir", "fchdir", "chroot"}
    assert not [line for line in lines if str(root.path) in line]
    # By a path goes only Python itself, looking for modules.
    by_path = [line for line in lines if "AT_FDCWD" in line or re.search(r"\(\"/", line)]
    assert not [line for line in by_path if "/lib" not in line and "appbox" not in line and str(TREE) not in line]
    walks = [line for line in lines if "openat2(" in line]
    assert walks
    assert all("RESOLVE_IN_ROOT" in line or "RESOLVE_BENEATH" in line for line in walks)
    print(f"{len(lines)} calls, {len(walks)} walks by openat2, {len(by_path)} by path (Python's modules), no execve")
