"""Archives that GNU tar, bsdtar, Python and Go make, read as GNU tar and Python read them.

What is right is not ours to say, so two other readers say it: `tar --list -vv` for all of them, and Python's tarfile,
which gives the names and links as bytes and so settles what a listing only shows.
"""

from __future__ import annotations

import datetime
import io
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from typing import Final

import pytest

from appbox.errors import Refused
from appbox.oci.tar import Kind, Member
from tests.fuzz import corpus, repair
from tests.fuzz.targets import members

ARCHIVES = {name: data for name, data in corpus.seeds("tar").items() if not name.startswith("crash")}
GNU_TAR = shutil.which("tar")
MADE_BY_GNU_TAR = [name for name in ARCHIVES if name.startswith("gnu-")]

_LINE: Final = re.compile(
    r"(?P<kind>.)(?P<mode>[-rwxsStT]{9}).? (?P<uid>[0-9]+)/(?P<gid>[0-9]+) +(?P<size>[0-9]+|[0-9]+,[0-9]+)"
    r" (?P<time>[0-9-]+ [0-9:]+(?:\.[0-9]+)?) +(?P<rest>.*)"
)
_LETTERS: Final = {
    "-": Kind.FILE, "h": Kind.HARDLINK, "l": Kind.SYMLINK, "c": Kind.CHAR, "b": Kind.BLOCK, "d": Kind.DIRECTORY,
    "p": Kind.FIFO,
}  # fmt: skip
_TYPES: Final = {
    tarfile.REGTYPE: Kind.FILE, tarfile.AREGTYPE: Kind.FILE, tarfile.GNUTYPE_SPARSE: Kind.FILE,
    tarfile.LNKTYPE: Kind.HARDLINK, tarfile.SYMTYPE: Kind.SYMLINK, tarfile.CHRTYPE: Kind.CHAR,
    tarfile.BLKTYPE: Kind.BLOCK, tarfile.DIRTYPE: Kind.DIRECTORY, tarfile.FIFOTYPE: Kind.FIFO,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A member as `tar --list -vv` shows it: a device's size is its numbers, `rest` the name and the link."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    size: str
    time: str
    rest: str


def listed(data: bytes) -> list[Line]:
    """Return what GNU tar lists."""
    words = ["tar", "--list", "-vv", "--numeric-owner", "--full-time", "--quoting-style=escape", "-f", "-"]
    done = subprocess.run(words, input=data, capture_output=True, check=True, env={"TZ": "UTC", "LC_ALL": "C"})
    lines = [_LINE.fullmatch(line) for line in done.stdout.decode("ascii").splitlines() if line[:1] != "V"]
    assert all(lines)
    return [
        Line(
            kind=_LETTERS[line["kind"]],
            mode=_mode(line["mode"]),
            uid=int(line["uid"]),
            gid=int(line["gid"]),
            size=line["size"],
            time=line["time"].rstrip("0") if "." in line["time"] else line["time"],
            rest=line["rest"],
        )
        for line in lines
        if line
    ]


def _mode(letters: str) -> int:
    mode = 0
    for place, letter in enumerate(letters):
        mode |= (1 << (8 - place)) if letter in "rwxst" else 0
        mode |= (1 << (11 - place // 3)) if letter in "sStT" else 0
    return mode


def as_listed(member: Member) -> Line:
    """Return a member of ours as GNU tar would list it."""
    size = member.sparse.size if member.sparse else member.size
    device = member.kind in (Kind.CHAR, Kind.BLOCK)
    link = {Kind.SYMLINK: " -> ", Kind.HARDLINK: " link to "}.get(member.kind, "")
    return Line(
        kind=member.kind,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        size=f"{member.major},{member.minor}" if device else str(size),
        time=_time(member.mtime),
        rest=_escaped(member.name) + (link + _escaped(member.link) if link else ""),
    )


def _time(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 10**9)
    days, rest = divmod(seconds, 86400)
    year, month, day = _date(days)
    text = f"{year:04}-{month:02}-{day:02} {rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return text + (f".{fraction:09}".rstrip("0") if fraction else "")


def _date(days: int) -> tuple[int, int, int]:
    """Return the date of a day since 1970, also before it."""
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days)
    return date.year, date.month, date.day


def _escaped(name: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in name.replace(b"\\", b"\\\\"))


@pytest.mark.skipif(GNU_TAR is None, reason="needs GNU tar")
@pytest.mark.parametrize("name", ARCHIVES)
def test_as_gnu_tar_lists_them(name: str) -> None:
    mine = [as_listed(member) for member, _ in members(ARCHIVES[name], 512)]
    assert mine == listed(ARCHIVES[name])
    assert mine


@pytest.mark.parametrize("name", ARCHIVES)
def test_as_python_reads_them(name: str) -> None:
    """Names, links, owners, modes, sizes, times, device numbers, xattrs and every byte of content."""
    mine = members(ARCHIVES[name], 4096)
    with tarfile.open(fileobj=io.BytesIO(ARCHIVES[name]), encoding="utf-8", errors="surrogateescape") as archive:
        theirs = [one for one in archive.getmembers() if one.type in _TYPES]
        assert len(mine) == len(theirs)
        for (member, stored), info in zip(mine, theirs, strict=True):
            assert (member.kind, _bytes(info.name)) == (_TYPES[info.type], member.name.rstrip(b"/"))
            assert (member.mode, member.uid, member.gid) == (info.mode & 0o7777, info.uid, info.gid)
            assert abs(member.mtime - info.mtime * 10**9) < 1000  # Python's is a float
            if member.kind in (Kind.SYMLINK, Kind.HARDLINK):
                assert member.link == _bytes(info.linkname)
            if member.kind in (Kind.CHAR, Kind.BLOCK):
                assert (member.major, member.minor) == (info.devmajor, info.devminor)
            if member.kind is Kind.FILE:
                assert _whole(member, stored) == _content(archive, info)
            assert _xattrs(member) == {key: value for key, value in info.pax_headers.items() if "xattr" in key}


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None
    with file:
        return file.read()


def _whole(member: Member, stored: bytes) -> bytes:
    if member.sparse is None:
        return stored
    content, at = bytearray(member.sparse.size), 0
    for offset, length in member.sparse.segments:
        content[offset : offset + length] = stored[at : at + length]
        at += length
    return bytes(content)


def _xattrs(member: Member) -> dict[str, str]:
    pairs = ((key.decode(), value.decode("utf-8", "surrogateescape")) for key, value in member.records)
    return {key: value for key, value in pairs if "xattr" in key}


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


# No shorter and no other archive


def parsed(data: bytes) -> object:
    """Return what is in an archive, or None when it is refused."""
    try:
        return members(data, 1 << 16)
    except Refused:
        return None


@pytest.mark.parametrize("name", ARCHIVES)
def test_no_bit_of_a_header_can_flip_unnoticed(name: str) -> None:
    """Every bit of the checksum's field and of the first byte of every other field, and a tenth of all others."""
    data = ARCHIVES[name]
    assert parsed(data) is not None
    tried = 0
    starts = {0, 100, 108, 116, 124, 136, 156, 157, 257, 263, 265, 297, 329, 337, 345, 500, 511, *range(148, 156)}
    for index, start in enumerate(repair.headers(data)):
        rest = data[start:]  # an archive of its own, unless it begins between a header and what belongs to it
        whole = parsed(rest)
        for bit in range(4096):
            if bit // 8 in starts or (bit + index) % 29 == 0:
                broken = bytearray(rest)
                broken[bit // 8] ^= 1 << (bit % 8)
                found = parsed(bytes(broken))
                # Within the checksum a zero may become a space, or the NUL behind it: the same number.
                assert found is None or (found == whole and bit // 8 in range(148, 156)), (start, bit)
                tried += 1
    assert tried > 300


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_cut_anywhere_is_refused(name: str) -> None:
    """What is accepted of a cut archive has every member and every byte: only zeros behind the end were cut off."""
    data = ARCHIVES[name]
    whole = parsed(data)
    refused = 0
    for length in {*range(0, len(data), 512), *range(0, len(data), 37), *range(len(data) - 1600, len(data))}:
        found = parsed(data[:length])
        assert found is None or (found == whole and not any(data[length:])), length
        refused += found is None
    assert refused > 500
