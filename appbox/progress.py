"""How far a download is: bars on a terminal, a line for each finished layer otherwise, nothing with -q."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from appbox.session import Options
from appbox.sizes import megabytes

if TYPE_CHECKING:
    from appbox.oci.digest import Digest
    from appbox.oci.source import Progress


@contextlib.contextmanager
def progress(options: Options) -> Iterator[Progress | None]:
    """Yield what to hand to a source; None when nothing is to be shown."""
    if options.verbosity < 0 or options.json:
        yield None
    elif on_terminal():
        with _bars(colored=options.colored(sys.stdout)) as shown:
            yield shown
    else:
        yield _lines()


def on_terminal() -> bool:
    """Return whether standard output is a terminal that can go back over what it shows."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def _lines() -> Progress:
    finished: set[str] = set()

    def show(digest: Digest, done: int, total: int) -> None:
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

        def show(digest: Digest, done: int, total: int) -> None:
            key = str(digest)
            if key not in tasks:
                tasks[key] = display.add_task(f"layer {digest.hex[:12]}", total=total)
                display.start()
            display.update(tasks[key], completed=done)
            if display.finished:
                display.stop()  # what comes after is not for a line below bars

        yield show
