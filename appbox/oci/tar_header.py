"""Headers of tar members, written: ustar, and POSIX's extended headers for what that cannot say. Values in, bytes out.

Not here: archives of images (`tar_writer`), whose members have neither owners nor times. Times keep their nanoseconds,
extended attributes are stored as star, GNU tar and bsdtar do it (`SCHILY.xattr.NAME`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from appbox.oci.pax import Records
from appbox.oci.tar import BLOCK, Kind

END: Final = bytes(2 * BLOCK)
"""What ends an archive."""
XATTR: Final = b"SCHILY.xattr."
_FLAGS: Final = {Kind.FILE: b"0", Kind.HARDLINK: b"1", Kind.SYMLINK: b"2", Kind.DIRECTORY: b"5", Kind.FIFO: b"6"}
_NAME: Final = 100
_SECOND: Final = 10**9


def padding(size: int) -> bytes:
    """Return what follows `size` bytes of data up to the next header."""
    return bytes(-size % BLOCK)


def header(  # noqa: PLR0917  # the fields of a header
    kind: Kind,
    name: bytes,
    mode: int,
    owner: tuple[int, int] = (0, 0),
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    more: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return the header of a member, behind an extended one where it needs that.

    `size` counts the bytes that are stored, `mtime` nanoseconds since 1970; `more` are records of the extended header.
    """
    records: Records = []
    seconds, fraction = divmod(mtime, _SECOND)
    if len(name) > _NAME:
        records.append((b"path", name))
    if len(link) > _NAME:
        records.append((b"linkpath", link))
    if fraction or not 0 <= seconds < 1 << 33:
        records.append((b"mtime", _time(mtime)))
    for key, value, most in ((b"uid", owner[0], 1 << 21), (b"gid", owner[1], 1 << 21), (b"size", size, 1 << 33)):
        if value >= most:
            records.append((key, b"%d" % value))
    records += more
    plain = _block(_FLAGS[kind], name, mode, owner, size, seconds, link)
    return _extended(records) + plain if records else plain


def sparse_map(segments: Sequence[tuple[int, int]], size: int) -> bytes:
    """Return the map that stands in front of a sparse member's data: GNU tar's PAX form 1.0."""
    # An empty segment at the end says how large the file is to those who do not look at its record.
    every = [*segments, (size, 0)]
    text = b"".join([b"%d\n" % len(every), *(b"%d\n%d\n" % pair for pair in every)])
    return text + padding(len(text))


def sparse_records(name: bytes, size: int) -> Records:
    """Return the records of a sparse member that is called `name` and has `size` bytes with its holes."""
    return [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", b"%d" % size),
    ]


def _time(nanoseconds: int) -> bytes:
    sign, seconds = (b"-" if nanoseconds < 0 else b""), divmod(abs(nanoseconds), _SECOND)
    return b"%s%d.%09d" % (sign, *seconds)


def _extended(records: Records) -> bytes:
    data = b"".join(_record(key, value) for key, value in records)
    return _block(b"x", b"PaxHeader", 0o644, (0, 0), len(data), 0, b"") + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """Return `LENGTH KEY=VALUE newline`; the length counts its own digits."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d%s" % (length, rest)


def _block(  # noqa: PLR0917  # the fields of a block
    flag: bytes, name: bytes, mode: int, owner: tuple[int, int], size: int, seconds: int, link: bytes
) -> bytes:
    fields = [
        name[:_NAME].ljust(_NAME, b"\0"),
        _octal(mode, 8),
        _octal(owner[0], 8),
        _octal(owner[1], 8),
        _octal(size, 12),
        _octal(seconds, 12),
        b" " * 8,
        flag,
        link[:_NAME].ljust(_NAME, b"\0"),
        b"ustar\0" + b"00",
        bytes(64),
        _octal(0, 8),
        _octal(0, 8),
    ]
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(value: int, width: int) -> bytes:
    """Return a number as octal digits; 0 for one that only an extended header can say."""
    return b"%0*o\0" % (width - 1, value if 0 <= value < 8 ** (width - 1) else 0)
