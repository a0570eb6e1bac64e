"""Whether a start has come to a service that runs: waited for, within limits, and explained where it has not."""

from __future__ import annotations

import time
from typing import Final

from appbox.errors import AppboxError
from appbox.host import runc, services
from appbox.host.facts import InitKind

LIMIT: Final = 90.0
"""Seconds within which a start must have got a container to run: as many as systemd gives any unit by default.

Where a manifest says how long its service takes to get well, the init system has waited for that before.
"""

_SETTLE: Final = 0.5
"""Seconds that a started container must stay alive: most wrong configurations end it sooner."""


def wait_until_runs(kind: InitKind, name: str, after: int = 0) -> None:
    """Return when the service's container runs and stays alive for a moment, or has ended well: a job may be quick.

    Raises AppboxError with the last words of a service that failed; `after`: where its log ended before its start. One
    that is started again meanwhile has failed, too: on a slow host it may be tried for ever without reaching its limit,
    and be caught between two tries by nobody.
    """
    control = services.of_kind(kind)
    deadline = time.monotonic() + LIMIT
    what = f"has not come to run within {LIMIT:.0f} seconds"
    before = -1  # systemd may still count the tries of an earlier start
    while time.monotonic() < deadline:
        if _stays(name):
            services.refuse_unhealthy(control, (name,), after)
            return
        state = control.state(name)
        if state == "ended":
            return
        tries = control.tries(name)
        if state == "failed" or -1 < before < tries:
            what = "does not stay up"
            break
        before = tries if before < 0 else before
        time.sleep(0.05)
    why = services.last_words(control, name, after)
    raise AppboxError(what, where=name, why=why, hint=f"appbox logs {name} shows more")


def _stays(name: str) -> bool:
    """Return whether a container runs, and runs still after a moment."""
    found = runc.running(name)
    if found is None:
        return False
    time.sleep(_SETTLE)
    again = runc.running(name)
    return again is not None and again.pid == found.pid
