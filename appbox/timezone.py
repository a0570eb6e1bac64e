"""process.timezone: the host's file of a time zone becomes the container's /etc/localtime. Pure.

Images link /etc/localtime to a zone of their own tz database, and a mount follows links: it would change what that
zone, mostly UTC, means to every program. So the run script takes the link away in the overlay, before anything of the
image runs. The image's TZ is left out, which would go before the file (tzset(3)).
"""

from __future__ import annotations

from typing import Final

from appbox.errors import Refused
from appbox.oci.rootfs import RootfsFacts

LOCALTIME: Final = "/etc/localtime"
FILE: Final = "etc/localtime"
"""The file of a generation."""
ZONES: Final = "/usr/share/zoneinfo"
LIMIT: Final = 1 << 20
"""Bytes of a zone's file; the largest of the tz database has four thousand."""
MAGIC: Final = b"TZif"
"""What such a file begins with (RFC 8536)."""


def place(rootfs: RootfsFacts | None, reference: str) -> str:
    """Return where the file is mounted; Refused for an image whose /etc is not a directory of its own."""
    folder = rootfs.nodes.get("/etc") if rootfs is not None else None
    if folder is not None and (folder.path != "/etc" or folder.kind not in {"directory", "missing"}):
        raise Refused("the image's /etc is not a directory", where=reference, hint="take out process.timezone")
    return LOCALTIME
