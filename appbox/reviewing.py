"""`plan -o FILE` and `apply FILE.plan`: a plan is written down, and held against the host when it is its turn."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from appbox import plan_data, plan_file, report
from appbox.errors import AppboxError, UsageError, printable
from appbox.explain import in_words
from appbox.lock_file import NAME as LOCK_NAME
from appbox.plan_file import PlanFile, Wish
from appbox.planning import Planned
from appbox.session import Options
from appbox.sources import Loaded
from appbox.store import files

SUFFIX: Final = ".plan"
_SHOWN: Final = 5
"""Differences that a refusal names."""


def is_plan(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of `plan` or `apply` are a plan and no manifests; UsageError for both at once."""
    plans = [argument for argument in arguments if _is_plan(argument)]
    if plans and len(arguments) > 1:
        raise UsageError("is a plan, and comes alone", where=plans[0], hint="give it by itself")
    return bool(plans)


def _is_plan(argument: str) -> bool:
    """A plan is called so, or begins as no manifest can."""
    return not os.path.isdir(argument) and (argument.endswith(SUFFIX) or _head(argument).startswith(b"{"))


def _head(path: str) -> bytes:
    """Return the first bytes of a regular file; nothing of anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return os.read(fd, len(plan_file.MARK)) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)


def read(path: str) -> PlanFile:
    """Return the plan in a file; AppboxError when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise AppboxError("cannot be read", where=path, why=error.strerror or str(error)) from error
    return plan_file.parse(files.read_descriptor(fd, plan_file.SIZE_LIMIT, where=path), path)


def show(options: Options, wish: Wish, output: str) -> bool:
    """Print the plan in the file that a wish names, as it was written down; return whether it holds any change."""
    path = wish.manifests[0]
    if output:
        raise UsageError("is a plan already", where=path, hint="plan its manifests again to write another one")
    refuse_options(wish, path)
    plan = read(path).plan
    text = report.recorded_text(plan, verbosity=options.verbosity)
    options.result(plan, "" if options.json else text)
    options.say(f"that is what {printable(path)} says; appbox apply {printable(path)} does it if nothing has changed\n")
    return bool(plan.get("actions"))


def refuse_options(given: Wish, path: str) -> None:
    """Raise UsageError for options that a plan file has answered: they cannot be said otherwise afterwards."""
    if given.prune or given.locked or given.verify or given.retry or not given.start:
        what = "what --prune, --locked, --verify, --retry and --no-start say is in it already"
        raise UsageError(what, where=path, hint="give them to appbox plan -o")


def make(wish: Wish, loaded: Sequence[Loaded], planned: Planned) -> PlanFile:
    """Return a plan with what it was made from."""
    facts = planned.facts.for_templates()
    plan = planned.plan
    # As it will be read again: tuples are lists then.
    data = json.loads(json.dumps(plan_data.plan_data(plan, facts)))
    read_ = {path: hashlib.sha256(text).hexdigest() for one in loaded for path, text in _read_for(one)}
    places = tuple(map(os.path.abspath, wish.manifests))
    wish = replace(wish, manifests=places, root=os.path.realpath(wish.root))
    return PlanFile(wish, dict(sorted(read_.items())), plan_file.fingerprint(plan, facts), data)


def _read_for(one: Loaded) -> Iterator[tuple[str, bytes]]:
    """Yield every file that was read for a manifest: its absolute path and its bytes, or what was taken from them."""
    yield os.path.abspath(one.document.file), one.document.text.encode()
    if one.document.overlay is not None:
        yield os.path.abspath(one.document.overlay.file), one.document.overlay.text.encode()
    for config in one.configs.values():
        if config.origin:
            yield os.path.abspath(config.origin), config.data
    for name, data in one.encrypted.items():
        yield os.path.join(one.folder, str(one.manifest.secrets[name].age)), data
    for key in one.keys:
        yield os.path.join(one.folder, key.name), key.der
    lock = os.path.join(one.folder, LOCK_NAME)
    if one.pin is not None and (text := files.read_if_present(lock, plan_file.SIZE_LIMIT)) is not None:
        yield lock, text


def write(path: str, file: PlanFile) -> None:
    """Write a plan for its owner's eyes, whole or not at all; what is no plan is not replaced."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        info = None
    if info is not None and not stat.S_ISREG(info.st_mode):
        raise AppboxError("cannot be written", where=path, why="it is no regular file", hint="name a new file")
    if info is not None and info.st_size and not _head(path).startswith(plan_file.MARK):
        raise AppboxError("is there and is no plan", where=path, hint="name a new file, or delete this one")
    folder, name = os.path.split(os.path.abspath(path))
    try:
        with files.directory(os.path.realpath(folder)) as fd:
            files.replace(name, plan_file.text(file), mode=0o600, dir_fd=fd, owner=(os.geteuid(), os.getegid()))
    except OSError as error:
        raise AppboxError("cannot be written", where=path, why=in_words(error).what) from error


def refuse_changes(path: str, was: PlanFile, now: PlanFile) -> None:
    """Raise AppboxError when the plan of a file is not what would be done now."""
    if not now.plan["actions"] and was.files == now.files:
        return  # it was carried out already, and the same command once more does nothing
    found = list(islice(plan_file.differences(was, now), _SHOWN + 1))
    if found:
        more = ["and more"] if len(found) > _SHOWN else []
        raise AppboxError(
            "is not carried out, as it is not what was planned any more",
            where=path,
            why="; ".join([*found[:_SHOWN], *more]),
            hint=f"plan again: {shlex.join(['appbox', 'plan', '-o', path, *was.wish.manifests])}",
        )
