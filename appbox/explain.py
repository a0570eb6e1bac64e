"""What the system says when something fails, in the words of appbox."""

from __future__ import annotations

import errno
import os
from typing import Final

from appbox import owner
from appbox.errors import AppboxError, HostLacks

_HINTS: Final = {
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room and run the same command again",
    errno.EIO: "the disk may be failing: dmesg shows more",
}


def in_words(error: OSError) -> AppboxError:
    """Return an error of the system as one sentence, with what to do where that is known."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    what = error.strerror or str(error) or type(error).__name__
    what, where = what[:1].lower() + what[1:], " → ".join(names)
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return HostLacks(what, where=where, hint="run it as root")
    if isinstance(error, PermissionError) and (own := owner.current()) is not None:
        return AppboxError(what, where=where, hint=f"this is done as {own.name}")
    return AppboxError(what, where=where, hint=_HINTS.get(error.errno or 0, ""))
