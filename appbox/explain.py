"""What the system says when something fails, in the words of appbox."""

from __future__ import annotations

import errno
import os

from appbox.errors import AppboxError, HostLacks


def in_words(error: OSError) -> AppboxError:
    """Return an error of the system as one sentence, with what to do where that is known."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    what = error.strerror or str(error) or type(error).__name__
    what, where = what[:1].lower() + what[1:], " → ".join(names)
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return HostLacks(what, where=where, hint="run it as root")
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return AppboxError(what, where=where, hint="make room and run the same command again" if full else "")
