"""mtree(5) manifests of a root file system: one line of text for each thing in it. Values in, values out.

The form is the one that all readers agree on (NetBSD's and FreeBSD's mtree(8), libarchive, go-mtree): the signature
`#mtree`, then full paths below `.`, each with all of its keywords on its own line, in the order of a walk (`order`).
What could be taken for something else (white space, control characters, `#`, `\\`, glob characters, bytes that are no
UTF-8) is written as `\\ooo`, three octal digits. Ids and modes are those on disk. Extended attributes are written as
go-mtree does (`xattr.NAME=BASE64`), which the BSDs' mtree does not know. `nlink` stands at everything but directories,
where it would depend on the file system. An empty file that stands for a device or a fifo of the image, which only root
of the host may make, has a tag that says for which: `tags=appbox-char-1-3`.

Reading is strict: a line that `line` would not have written may be of a damaged or a forged file, and is refused.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from appbox.errors import Refused
from appbox.oci.tar import Kind

HEADER: Final = b"#mtree\n"

LINE: Final = 8 << 20
"""Bytes of a line that are read: a path and a link of `limits.PATH` with every byte escaped, and as many extended
attributes as an extended header of `limits.EXTENDED_HEADER` bytes can hold, in base 64 and with escaped names."""

TYPES: Final = {
    Kind.FILE: "file",
    Kind.DIRECTORY: "dir",
    Kind.SYMLINK: "link",
    Kind.CHAR: "char",
    Kind.BLOCK: "block",
    Kind.FIFO: "fifo",
}
_KINDS: Final = {name.encode(): kind for kind, name in TYPES.items()}

_SAFE: Final = bytes(c for c in range(0x21, 0x7F) if c not in b"#*?[\\")
_OCTAL: Final = {c: f"\\{c:03o}" for c in {*range(256)} - {*_SAFE}}
_ASCII: Final = {c: text for c, text in _OCTAL.items() if c < 128}
_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2})")
_NEVER: Final = re.compile(rb"[\x00/]|\A\.{0,2}\Z")
"""What the last component of a path cannot be or have."""

_WORD: Final = rb"[^\x00-\x20\x7f]+"
_LINE: Final = re.compile(
    rb"\.(?:/(?P<path>" + _WORD + rb"))? type=(?P<type>[a-z]{3,5}) mode=(?P<mode>0|0[1-7][0-7]{0,3})"
    rb" uid=(?P<uid>0|[1-9][0-9]{0,9}) gid=(?P<gid>0|[1-9][0-9]{0,9})"
    rb" time=(?P<time>0|-?[1-9][0-9]{0,18})\.(?P<nano>[0-9]{9})"
    rb"(?: size=(?P<size>0|[1-9][0-9]{0,18}) sha256digest=(?P<digest>[0-9a-f]{64}))?"
    rb"(?: tags=appbox-(?P<instead>char|block|fifo)-(?P<first>0|[1-9][0-9]{0,9})-(?P<second>0|[1-9][0-9]{0,9}))?"
    rb"(?: link=(?P<link>" + _WORD + rb"))?"
    rb"(?: device=native,(?P<major>0|[1-9][0-9]{0,9}),(?P<minor>0|[1-9][0-9]{0,9}))?"
    rb"(?P<xattrs>(?: xattr\.[^\x00-\x20\x7f=]+=[A-Za-z0-9+/]*={0,2})*)"
    rb"(?: nlink=(?P<nlink>[1-9][0-9]{0,9}))?\n"
)
_FIELDS: Final = {
    Kind.FILE: {"size", "digest", "nlink"},
    Kind.DIRECTORY: set(),
    Kind.SYMLINK: {"link", "nlink"},
    Kind.CHAR: {"major", "minor", "nlink"},
    Kind.BLOCK: {"major", "minor", "nlink"},
    Kind.FIFO: {"nlink"},
}
"""The groups of `_LINE`, of those that not every line has, that a line must have."""
_OPTIONAL: Final = ("size", "digest", "link", "major", "minor", "nlink")


class Node(NamedTuple):
    """One thing of a root file system.

    `path` is relative to the root, which itself is empty. `mtime` is in nanoseconds since 1970; `digest` is the SHA-256
    of a file's content; `link` a symlink's target; `xattrs` are sorted by name. `nlink` is 0 for directories, and
    `size`, `digest`, `link` and `device` (major, minor) are empty where they mean nothing. `instead` is what an empty
    file stands for, with the numbers in `device`.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    digest: bytes = b""
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    nlink: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    instead: Kind | None = None


def order(path: bytes) -> bytes:
    """Return the sort key of a path: a directory comes first, then all that is in it, then its next sibling."""
    return path.replace(b"/", b"\0")


def line(node: Node) -> bytes:
    """Return the line of a manifest that describes `node`."""
    words = [common(node.kind, node.mode, node.uid, node.gid), f"time={time(node.mtime)}"]
    if node.kind is Kind.FILE:
        words += [f"size={node.size}", f"sha256digest={node.digest.hex()}"]
        if node.instead is not None:
            words.append(instead(node.instead, *node.device))
    elif node.kind is Kind.SYMLINK:
        words.append(f"link={escaped(node.link)}")
    elif node.kind is not Kind.DIRECTORY and node.kind is not Kind.FIFO:
        words.append(f"device={device(*node.device)}")
    if node.xattrs:
        words.append(attributes(node.xattrs))
    if node.kind is not Kind.DIRECTORY:
        words.append(f"nlink={node.nlink}")
    return name(node.path) + f" {' '.join(words)}\n".encode()


def name(path: bytes) -> bytes:
    """Return a path as the first word of a line."""
    if not path.translate(None, _SAFE):
        return b"./" + path if path else b"."
    return b"./" + escaped(path).encode()


def common(kind: Kind, mode: int, uid: int, gid: int) -> str:
    """Return the words that every line has."""
    return f"type={TYPES[kind]} mode={'0' if mode else ''}{mode:o} uid={uid} gid={gid}"


def time(mtime: int) -> str:
    """Return nanoseconds since 1970 as seconds, rounded down, and the nanoseconds above them."""
    seconds, nanoseconds = divmod(mtime, 1_000_000_000)
    return f"{seconds}.{nanoseconds:09d}"


def device(major: int, minor: int) -> str:
    """Return a device number in the one form that is the same for all readers."""
    return f"native,{major},{minor}"


def instead(kind: Kind, major: int, minor: int) -> str:
    """Return the word of an empty file that stands for a device or a fifo, whose numbers are 0."""
    return f"tags=appbox-{TYPES[kind]}-{major}-{minor}"


def attributes(xattrs: Iterable[tuple[str, bytes]]) -> str:
    """Return extended attributes as words, sorted."""
    return " ".join(
        f"xattr.{_key(key)}={binascii.b2a_base64(value, newline=False).decode()}" for key, value in sorted(xattrs)
    )


def _key(name: str) -> str:
    return escaped(name.encode("utf-8", "surrogateescape")).replace("=", "\\075")


def escaped(raw: bytes) -> str:
    """Return bytes of a name as a word of a manifest."""
    if not raw.translate(None, _SAFE):
        return raw.decode("ascii")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text and all(c < " " or c == "\x7f" or c.isprintable() for c in text):
        return text.translate(_ASCII)
    return raw.decode("latin-1").translate(_OCTAL)


def parse(lines: Iterable[bytes]) -> Iterator[Node]:
    """Yield what a manifest lists, in its order; raise `Refused` for anything that `line` would not have written.

    The order is that of a walk, without a gap: the root first, and every directory before what it holds. The caller
    bounds the lines by `LINE`.
    """
    above: list[bytes] = []  # the directories of the entry before, itself included
    before: bytes | None = None
    source = iter(lines)
    if next(source, b"") != HEADER:
        raise Refused("is no mtree manifest", why=f"its first line is not {HEADER.decode().strip()}")
    for number, text in enumerate(source, 2):
        try:
            node = parse_line(text)
            key = order(node.path)
            if before is not None and key <= before:
                raise ValueError("it is out of order")
            parent, _, _ = node.path.rpartition(b"/")
            while above and above[-1] != parent:
                above.pop()
            if bool(node.path) != bool(above):
                raise ValueError("its directory is not listed")
        except ValueError as error:
            raise Refused("is damaged", why=f"line {number}: {error}") from error
        before = key
        if node.kind is Kind.DIRECTORY:
            above.append(node.path)
        yield node
    if before is None:
        raise Refused("is damaged", why="it lists nothing")


def parse_line(text: bytes) -> Node:
    """Return what a line describes; ValueError, saying why, when `line` would not have written it."""
    found = _LINE.fullmatch(text)
    if found is None:
        raise ValueError("it is malformed")
    (
        path,
        kind_name,
        mode,
        uid,
        gid,
        seconds,
        nano,
        size,
        digest,
        was,
        first,
        second,
        link,
        major,
        minor,
        xattrs,
        nlink,
    ) = found.groups()
    kind = _KINDS.get(kind_name)
    if kind is None or {key for key in _OPTIONAL if found[key] is not None} != _FIELDS[kind]:
        raise ValueError("it is malformed")
    if was is not None and (kind is not Kind.FILE or size != b"0"):
        raise ValueError("it is malformed")
    node = Node(
        path=_path(path) if path else b"",
        kind=kind,
        mode=int(mode, 8),
        uid=int(uid),
        gid=int(gid),
        mtime=int(seconds) * 1_000_000_000 + int(nano),
        size=int(size or 0),
        digest=binascii.unhexlify(digest or b""),
        link=unescaped(link or b""),
        device=(int(major or first or 0), int(minor or second or 0)),
        nlink=int(nlink or 0),
        xattrs=_xattrs(xattrs) if xattrs else (),
        instead=_KINDS[was] if was is not None else None,
    )
    if line(node) != text:
        raise ValueError("it is not written as it should be")
    return node


def unescaped(word: bytes) -> bytes:
    """Return the bytes that a word stands for; ValueError for a backslash that begins no escape."""
    if b"\\" not in word:
        return word
    if b"\\" in _ESCAPE.sub(b"", word):
        raise ValueError("it is malformed")
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 8),)), word)


def _path(word: bytes) -> bytes:
    *parents, last = map(unescaped, word.split(b"/"))
    if _NEVER.search(last):
        raise ValueError("it names no path")
    return b"/".join((*parents, last))  # the directories are known from lines of their own


def _xattrs(text: bytes) -> tuple[tuple[str, bytes], ...]:
    found = []
    for word in text.split():
        key, _, value = word.removeprefix(b"xattr.").partition(b"=")
        name = unescaped(key).decode("utf-8", "surrogateescape")
        found.append((name, binascii.a2b_base64(value, strict_mode=True) if value else b""))
    if found != sorted(dict(found).items()):
        raise ValueError("its extended attributes are out of order")
    return tuple(found)
