"""Data as a tar stream: everything comes back, GNU tar reads it, and no member of a hostile one leaves its place."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from appbox.errors import AppboxError, Refused
from appbox.host.facts import IdRange
from appbox.oci import tar_header
from appbox.oci.tar import Kind
from appbox.store import data_archive, files
from appbox.store.data_archive import DataReader
from tests.ground import layers

ME = IdRange(min(os.getuid(), os.getgid()), 65536)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data directory with something of everything that a user may make."""
    top = tmp_path / "data"
    volume = top / "db"
    (volume / "sub/deeper").mkdir(parents=True)
    (volume / "file").write_bytes(b"content" * 1000)
    os.link(volume / "file", volume / "sub/twin")
    (volume / "link").symlink_to("../../../../etc/passwd")
    os.mkfifo(volume / "pipe", 0o620)
    (volume / ("n" * 255)).write_text("long")
    (volume / "empty").touch()
    with (volume / "holes").open("wb") as file:
        file.seek(1 << 22)
        file.write(b"end")
        file.truncate(1 << 23)
    (volume / "sub/deeper/w\udcffrd").write_text("bytes")
    (volume / "file").chmod(0o4751)
    (volume / "sub").chmod(0o1777)
    os.setxattr(volume / "file", "user.note", b"kept\0too")
    os.setxattr(volume / "sub", "user.note", b"of a directory")
    os.utime(volume / "sub/deeper", ns=(1, 1_234_567_891_234_567_891))
    os.utime(volume / "link", ns=(1, 987_654_321), follow_symlinks=False)
    (top / "logs").mkdir()
    (top / ".unfinished").mkdir()
    (top / ".format").write_text("9")
    return top


def archive(top: Path) -> bytes:
    with files.directory(str(top)) as fd:
        reader = DataReader(fd, ME)
        first = b"".join(reader.blocks())
        assert first == b"".join(reader.blocks())
        return first


def unpack(data: bytes, top: Path) -> frozenset[str]:
    top.mkdir()
    # In pieces that end anywhere.
    pieces = [data[at : at + 1009] for at in range(0, len(data), 1009)]
    with files.directory(str(top)) as fd:
        return data_archive.write(pieces, fd, ME)


def seen(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        info = path.lstat()
        content: object = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        xattrs = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
        key = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, content, str(xattrs))
        found[str(path.relative_to(top))] = key
    return found


def test_everything_comes_back(data: Path, tmp_path: Path) -> None:
    stream = archive(data)
    assert data_archive.check([stream], 65536) == {"db", "logs"}
    copy = tmp_path / "copy"
    assert unpack(stream, copy) == {"db", "logs"}
    hidden = {".unfinished", ".format"}
    assert seen(copy) == {path: found for path, found in seen(data).items() if path not in hidden}
    assert (copy / "db/file").stat().st_ino == (copy / "db/sub/twin").stat().st_ino
    assert (copy / "db/holes").stat().st_blocks * 512 < 1 << 20
    assert archive(copy) == stream


def test_gnu_tar_reads_it(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    command = [
        "tar",
        "--extract",
        "--xattrs",
        "--xattrs-include=user.*",
        "--preserve-permissions",
        "--no-same-owner",
        "-C",
        str(copy),
    ]
    subprocess.run(command, input=archive(data), check=True)
    assert (copy / "db/holes").read_bytes() == (data / "db/holes").read_bytes()
    assert os.getxattr(copy / "db/file", "user.note") == b"kept\0too"
    assert (copy / "db/sub/deeper").stat().st_mtime_ns == 1_234_567_891_234_567_891
    assert stat.S_IMODE((copy / "db/file").stat().st_mode) == 0o4751


def test_owners_are_those_of_the_container(data: Path) -> None:
    with files.directory(str(data)) as fd:
        reader = DataReader(fd, IdRange(os.getuid() + 1, 10))
        with pytest.raises(AppboxError, match="nobody in the service"):
            list(reader.blocks())


def test_sockets_are_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "data/db").mkdir(parents=True)
    os.mknod(tmp_path / "data/db/socket", stat.S_IFSOCK | 0o600)
    (tmp_path / "data/stray").touch()
    with files.directory(str(tmp_path / "data")) as fd:
        reader = DataReader(fd, ME)
        assert data_archive.check(reader.blocks(), 65536) == {"db"}
        assert reader.left_out == ["db/socket (a socket)", "stray (no volume)"]


DB = tar_header.header(Kind.DIRECTORY, b"db/", 0o700)


def entry(kind: Kind, name: bytes, *, owner: int = 0, link: bytes = b"", xattr: bytes = b"") -> bytes:
    more = [(tar_header.XATTR + xattr, b"x")] if xattr else []
    return tar_header.header(kind, name, 0o600, (owner, owner), 0, 0, link, more)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (DB + entry(Kind.FILE, b"db/../../etc/passwd"), "no file can have"),
        (entry(Kind.FILE, b"/etc/passwd"), "no file can have"),
        (DB + entry(Kind.FILE, b"db//x"), "no file can have"),
        (DB + entry(Kind.FILE, b"db/./x"), "no file can have"),
        (DB + entry(Kind.FILE, b"db/" + b"a" * 256), "no file can have"),
        (DB + entry(Kind.FILE, b"db/" + b"a/" * 600 + b"x"), "no file can have"),
        (entry(Kind.FILE, b"db"), "is no volume"),
        (entry(Kind.DIRECTORY, b".hidden/"), "is no volume"),
        (entry(Kind.SYMLINK, b"db", link=b"/etc"), "is no volume"),
        (DB + entry(Kind.FILE, b"db/sub/x"), "before its directory"),
        (DB + entry(Kind.SYMLINK, b"db/s", link=b"/etc") + entry(Kind.FILE, b"db/s/passwd"), "before its directory"),
        (DB + entry(Kind.FILE, b"db/x") + entry(Kind.FILE, b"db/x"), "is there twice"),
        (DB + DB, "is there twice"),
        (DB + entry(Kind.HARDLINK, b"db/x", link=b"../../etc/passwd"), "link to no file"),
        (DB + entry(Kind.HARDLINK, b"db/x", link=b"db"), "link to no file"),
        (DB + entry(Kind.SYMLINK, b"db/x"), "link to nowhere"),
        (DB + layers.header(b"db/null", flag=b"3", major=1, minor=3), "is a character device"),
        (DB + layers.header(b"db/disk", flag=b"4", major=8), "is a block device"),
        (DB + entry(Kind.FILE, b"db/x", owner=65536), "belongs to the id 65536"),
        (DB + entry(Kind.FILE, b"db/x", owner=2**32 - 1), "belongs to the id"),
        (DB + entry(Kind.FILE, b"db/x", xattr=b"trusted.overlay.opaque"), "has the attribute"),
        (DB + entry(Kind.FILE, b"db/x", xattr=b"security.selinux"), "has the attribute"),
        (DB + entry(Kind.FILE, b"db/x", xattr=b"system.posix_acl_access"), "malformed"),
    ],
)
def test_hostile_members(bad: bytes, words: str, tmp_path: Path) -> None:
    stream = bad + tar_header.END
    with pytest.raises(Refused, match=words):
        data_archive.check([stream], 65536)
    with pytest.raises(Refused, match=words):
        unpack(stream, tmp_path / "data")
    assert sorted(os.listdir(tmp_path)) == ["data"]


@pytest.mark.parametrize("cut", [1, 511, 512, 600, 1024])
def test_truncated(data: Path, cut: int) -> None:
    stream = archive(data)
    with pytest.raises(Refused):
        data_archive.check([stream[:-cut]], 65536)
