"""Looking as somebody else: a child gives up root for good, looks, and tells what it saw as JSON.

Nothing that a user can lead elsewhere is written by root, and what the user may not do is seen as it is.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any, Final, NoReturn

from appbox.errors import AppboxError

_LIMIT: Final = 1 << 20
_PATIENCE: Final = 90
"""Seconds after which the kernel ends the child: a network file system may never answer."""


def as_user(uid: int, gid: int, look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `look` returns as a user who is in no group but `gid`; AppboxError when it does not come back."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _become(uid, gid, look, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        data = pipe.read(_LIMIT)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0:
        why = data.decode("utf-8", "replace") if code > 0 else f"it was ended by signal {-code}"
        raise AppboxError(f"what the user id {uid} may do cannot be seen", why=why)
    found = json.loads(data)
    return dict(found)


def _become(uid: int, gid: int, look: Callable[[], dict[str, Any]], pipe: int) -> NoReturn:
    """In the child: become the user, look, tell, end."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_PATIENCE)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        os.chdir("/")
        os.write(pipe, json.dumps(look()).encode())
        os._exit(0)
    except (AppboxError, OSError, ImportError, LookupError) as error:  # modules may be where only root can read
        os.write(pipe, str(error).encode()[:4096])
    finally:
        os._exit(1)
