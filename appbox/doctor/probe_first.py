"""Starting the smallest container, to see that everything from the runtime to the kernel works, and how fast."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import Final

from appbox.doctor import trivial
from appbox.doctor.seen import Login, Tried
from appbox.errors import AppboxError
from appbox.host import process, ranges
from appbox.host.facts import IdRange

_PREFIX: Final = ".appbox-doctor-"
_PATIENCE: Final = 30.0
_IDS: Final = IdRange(ranges.END - ranges.SIZE, ranges.SIZE)
"""Ids for a moment in which nothing is written: the last that a service of root could get."""


def start(runtime: str, place: str, login: Login | None) -> Tried | None:
    """Run an empty container below `place`, as root or as the user of `login`; None where no program for it is known.

    This process has to be that user. What it makes there is removed again; what a killed doctor left, too.
    """
    program = trivial.program(os.uname().machine)
    if program is None:
        return None
    _sweep(place)
    uids, gids = _maps(login)
    try:
        with _bundle(place, program, json.dumps(trivial.spec(uids, gids))) as bundle:
            return _run(runtime, bundle, login)
    except OSError as error:
        return Tried(f"{place}: {error.strerror}", "bundle")


def _maps(login: Login | None) -> tuple[list[tuple[int, IdRange]], list[tuple[int, IdRange]]]:
    if login is None:
        return [(0, _IDS)], [(0, _IDS)]
    first = ([(0, IdRange(login.uid, 1))], [(0, IdRange(login.gid, 1))])
    if login.uids and login.gids:
        first[0].append((1, login.uids[0]))
        first[1].append((1, login.gids[0]))
    return first


@contextlib.contextmanager
def _bundle(place: str, program: bytes, spec: str) -> Iterator[str]:
    bundle = f"{place.rstrip('/')}/{_PREFIX}{os.getpid()}"
    os.umask(0o022)
    os.mkdir(bundle, 0o711)  # root of the container has to reach its root file system
    try:
        for folder in ("rootfs", "state", *(f"rootfs/{name}" for name in trivial.FOLDERS)):
            os.mkdir(f"{bundle}/{folder}", 0o755)
        with open(f"{bundle}/config.json", "x", encoding="utf-8") as file:
            file.write(spec)
        with open(f"{bundle}/rootfs/{trivial.PROGRAM}", "xb") as binary:
            binary.write(program)
            os.fchmod(binary.fileno(), 0o755)
        yield bundle
    finally:
        shutil.rmtree(bundle, ignore_errors=True)


def _run(runtime: str, bundle: str, login: Login | None) -> Tried:
    name = os.path.basename(bundle).lstrip(".")
    words = [runtime, "--root", f"{bundle}/state", "run", "-b", bundle, name]
    extra = {"HOME": login.home, "XDG_RUNTIME_DIR": f"{bundle}/state"} if login is not None else None
    begun = time.monotonic()
    try:
        done = process.run(words, timeout=_PATIENCE, extra=extra)
    except AppboxError as error:
        return Tried(str(error), "run")
    seconds = time.monotonic() - begun
    return Tried(_reason(done.message) if done.code else "", "run", seconds)


def _reason(message: str) -> str:
    """Return the words of a runtime's last line, without its log's frame."""
    found = re.search(r'msg="((?:[^"\\]|\\.)*)"', message)
    return (found[1].replace('\\"', '"') if found else message)[:500]


def _sweep(place: str) -> None:
    """Remove what doctors left that were killed: their numbers are in the names."""
    with contextlib.suppress(OSError):
        for name in os.listdir(place):
            number = name.removeprefix(_PREFIX)
            gone = name.startswith(_PREFIX) and number.isdigit() and not os.path.exists(f"/proc/{number}")
            if gone and not os.path.islink(f"{place}/{name}"):
                shutil.rmtree(f"{place}/{name}", ignore_errors=True)
