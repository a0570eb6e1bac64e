"""How far a download is: bars on a terminal, a line for each finished layer otherwise, nothing with -q."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from appbox.session import Options
from appbox.sizes import megabytes

if TYPE_CHECKING:
    from appbox.oci.digest import Digest
    from appbox.oci.source import Progress


@contextlib.contextmanager
def progress(options: Options) -> Iterator[Progress | None]:
    """Yield what to hand to a source, or to several at once; None when nothing is to be shown."""
    if options.verbosity < 0 or options.json:
        yield None
    elif on_terminal():
        with _bars(colored=options.colored(sys.stdout)) as shown:
            yield shown
    else:
        yield _lines()


@contextlib.contextmanager
def copying(options: Options, what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield whom to tell the bytes that are copied, and all; None when nothing is to be shown.

    Elsewhere than on a terminal, a copy that takes long says each tenth of it.
    """
    if options.verbosity < 0 or options.json:
        yield None
    elif not on_terminal():
        yield _tenths(what)
    else:
        from rich import progress as rich  # noqa: PLC0415  # a third of a second that only a terminal pays

        columns = ("    [progress.description]{task.description}", rich.BarColumn(), rich.DownloadColumn())
        with rich.Progress(*columns, rich.TransferSpeedColumn(), transient=True) as display:
            task = display.add_task(what, total=None)
            yield lambda done, total: display.update(task, completed=done, total=total)


_LONG = 10.0
"""Seconds after which a copy begins to say how far it is."""


def _tenths(what: str) -> Callable[[int, int], None]:
    began, said = time.monotonic(), 0

    def show(done: int, total: int) -> None:
        nonlocal said
        tenth = done * 10 // total if total else 0
        if said < tenth < 10 and time.monotonic() - began > _LONG:
            said = tenth
            sys.stdout.write(f"    {what}: {tenth * 10} % of {megabytes(total)}\n")
            sys.stdout.flush()

    return show


def on_terminal() -> bool:
    """Return whether standard output is a terminal that can go back over what it shows."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def _lines() -> Progress:
    finished: set[str] = set()
    lock = threading.Lock()

    def show(digest: Digest, done: int, total: int) -> None:
        with lock:
            if done >= total and str(digest) not in finished:
                finished.add(str(digest))
                sys.stdout.write(f"    layer {digest.hex[:12]} {megabytes(total)}\n")

    return show


@contextlib.contextmanager
def _bars(*, colored: bool) -> Iterator[Progress]:
    from rich import progress as rich  # noqa: PLC0415  # a third of a second that only a terminal pays
    from rich.console import Console  # noqa: PLC0415

    columns = ("    [progress.description]{task.description}", rich.BarColumn(), rich.DownloadColumn())
    console = Console(no_color=not colored)
    with rich.Progress(*columns, rich.TransferSpeedColumn(), console=console, transient=True) as display:
        tasks: dict[str, rich.TaskID] = {}
        lock = threading.Lock()

        def show(digest: Digest, done: int, total: int) -> None:
            key = str(digest)
            with lock:
                if key not in tasks:
                    tasks[key] = display.add_task(f"layer {digest.hex[:12]}", total=total)
                    display.start()
                display.update(tasks[key], completed=done)
                if display.finished:
                    display.stop()  # what comes after is not for a line below bars

        yield show
