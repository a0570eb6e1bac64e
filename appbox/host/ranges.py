"""Which range of host ids a service gets. Pure: the ranges in use come in, the answer goes out.

Each service has 65,536 ids of its own, so that container id N is host id base + N and no two services share an id.
The first base is 0x70000000: systemd's table of ids (docs/UIDS-GIDS.md) leaves 1879048192 to 2147483647 unused,
which is above what useradd hands out in /etc/subuid and below the signed 32-bit limit that old file systems have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from appbox import subids
from appbox.errors import AppboxError
from appbox.host.facts import IdRange, Taken

SIZE: Final = 65536
ALL: Final = 2**32 - 1
"""The ids of a service without a user namespace; the last one, -1, means "leave it" to chown(2)."""
FIRST: Final = 0x70000000
END: Final = 0x80000000


def allocate(name: str, ranges: Mapping[str, IdRange], taken: Iterable[IdRange]) -> IdRange:
    """Return the range of service `name`: the one that was allocated to it, or the lowest free one.

    Raises AppboxError when all 4,096 ranges are in use.
    """
    if name in ranges and is_allocated(ranges[name]):
        return ranges[name]
    used = {r.base for r in ranges.values() if is_allocated(r)}
    foreign = [r for r in (*taken, *ranges.values()) if r.base not in used and r.end > FIRST and r.base < END]
    for base in range(FIRST, END, SIZE):
        if base not in used and not any(IdRange(base, SIZE).overlaps(r) for r in foreign):
            return IdRange(base, SIZE)
    raise AppboxError("no free range of user ids is left", where=name, hint="remove --purge services no longer used")


def is_allocated(found: IdRange) -> bool:
    """Return whether `allocate` may have given a range; others stand in manifests."""
    return found.size == SIZE and FIRST <= found.base < END and (found.base - FIRST) % SIZE == 0


def holder(name: str, wanted: IdRange, ranges: Mapping[str, IdRange], taken: Iterable[Taken]) -> str:
    """Return who has ids of a range that service `name` is to have, in words; empty when nobody does."""
    for other, found in sorted(ranges.items()):
        if other != name and wanted.overlaps(found):
            return f"the service {other} (ids {found.base} to {found.end - 1})"
    first = next((one for one in taken if one.size and wanted.overlaps(one)), None)
    return "" if first is None else f"{first.whose} (ids {first.base} to {first.end - 1})"


def parse_subids(text: str, file: str = "/etc/subuid") -> list[Taken]:
    """Return the ranges of /etc/subuid or /etc/subgid, whoever's they are; lines that are none are skipped."""
    return [Taken(one.base, one.size, f"{one.owner.strip()} in {file}") for one in subids.table(text, file).entries]


def parse_users(text: str, file: str = "/etc/passwd") -> list[Taken]:
    """Return the ids of passwd(5) or group(5) lines, each as a range of one."""
    fields = (line.split(":") for line in text.splitlines())
    ids = ((parts[0], parts[2]) for parts in fields if len(parts) > 2)
    return [Taken(int(i), 1, f"{name} in {file}") for name, i in ids if i.isascii() and i.isdigit() and len(i) <= 10]
