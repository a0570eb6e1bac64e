"""How a generation that should be differs from one that is there: in which files, in which lines, for whom. Pure."""

from __future__ import annotations

import difflib
import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Final

from appbox import live, remembered, secrets
from appbox.actions import Action, InstallUnit, RemoveUnit
from appbox.desired_values import Desired, File
from appbox.plan_values import Observed
from appbox.store.installed import Stored

_HEADS: Final = ("+++", "---")
_DIFF_LINES: Final = 400
"""Lines of a diff that are kept; what follows is counted."""
_ADDED: Final = (b"created = ", b"previous = ", b"effective = ", b"visible = ", b"rootfs_mtree = ")
"""Lines of bundle.toml that an apply adds; they stand before its first table."""
_COMMAND: Final = re.compile(
    r"^(\[manifest\.secrets\..*\]\n(?:[^\[\n].*\n)*?command = )(\[(?:\]|\n(?:    .*\n)*\]))\n", re.MULTILINE
)
"""The command of a secret in bundle.toml, as tomli_w writes it."""
_OF_THE_RUN: Final = (*_ADDED, b"appbox = ", b"source = ", b"overlay = ")
"""The same, and the lines that say which appbox did it and where the manifest was."""


def shown(path: str) -> str:
    """Return how a generation's file is called in a sentence: by its place in the container, if it is for there."""
    return path.removeprefix("config") if path.startswith("config/") else path


def changed_files(desired: Desired, before: Mapping[str, Stored]) -> list[str]:
    """Return the paths of the generation's files that differ in bytes, mode or owner, sorted."""
    after = {file.path: file for file in desired.files}
    return sorted(p for p in {*after, *before} if not _same(after.get(p), before.get(p)))


def _same(file: File | None, stored: Stored | None) -> bool:
    if file is None or stored is None:
        return False
    if file.path == "bundle.toml":
        return desired_meta(file.data) == desired_meta(stored.data)
    return file.data == stored.data and file.mode == stored.mode and file.owner == stored.owner


def desired_meta(text: bytes, without: tuple[bytes, ...] = _OF_THE_RUN) -> bytes:
    """Return bundle.toml without the lines that only the apply could know."""
    head, table, rest = text.partition(b"\n[")
    lines = head.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(without)) + table + rest


def diff_of(desired: Desired, before: Mapping[str, Stored], changes: list[str]) -> str:
    after = {file.path: file.data for file in desired.files}
    texts = []
    for path in changes:
        if path == remembered.NAME:
            continue  # it repeats what other files and actions say
        stored, new = before.get(path), after.get(path, b"")
        old = stored.data if stored else b""
        words = _size if path.startswith(f"{secrets.FOLDER}/") and not path.endswith("/list") else _text
        if path == "bundle.toml":
            old, words = desired_meta(old, _ADDED), _without_commands
        texts.append(unified(words(old), words(new), shown(path)))
    return "".join(texts)


def _size(data: bytes) -> str:
    """Return what may be shown of how a secret is found: commands may hold more than their authors thought of."""
    return f"({len(data)} bytes)\n" if data else ""


def _without_commands(data: bytes) -> str:
    """Return bundle.toml as it may be shown: the same commands stand in it."""
    return _COMMAND.sub(lambda found: f"{found[1]}{_size(found[2].encode())}", _text(data))


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"(binary, {len(data)} bytes)\n"


def unified(old: str, new: str, path: str) -> str:
    """Return a unified diff of a file's old and new text; empty when they are equal."""
    name = posixpath.join("/", path).lstrip("/")
    lines = list(
        difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"a/{name}" if old else "/dev/null", f"b/{name}", lineterm=""
        )
    )
    if len(lines) > _DIFF_LINES:
        lines[_DIFF_LINES:] = [f"… {len(lines) - _DIFF_LINES} more lines"]
    return "".join(f"{line}\n" for line in lines)


def only_described(actions: Iterable[Action]) -> bool:
    """Return whether the units that a plan writes differ from those that are there in their descriptions alone."""
    written = []
    for one in actions:
        if isinstance(one, RemoveUnit):
            return False
        if isinstance(one, InstallUnit):
            written.append(one)
    if any(one.new or "more lines" in one.diff for one in written):
        return False
    changed = [line for one in written for line in _changed_lines(one.diff)]
    return all(line[1:].lower().startswith("description=") for line in changed)


def only_scheduled(action: InstallUnit) -> bool:
    """Return whether what a plan writes of a unit says only when snapshots are taken, which no service notices.

    A user's unit ends in a comment with all its values (`units.declared`): what the service would notice is in other
    lines, too.
    """
    timer = f"{action.service}:snapshot.timer"
    if action.path.endswith((f"/{action.service}:snapshot.service", f"/{timer}")):
        return True
    if not action.path.endswith((f"/{action.service}.service", f"/init.d/{action.service}")):
        return _says_snapshots(action)
    lines = [line[1:] for line in _changed_lines(action.diff)]
    return bool(lines) and all(line == f"Wants={timer}" or line.startswith("# {") for line in lines)


def _says_snapshots(action: InstallUnit) -> bool:
    """Return whether this is a table of cron by which snapshots are taken, before and after."""
    lines = [line[1:] for line in _changed_lines(action.diff) if not line[1:].startswith("#")]
    return bool(lines) and all(line.endswith(f" snapshot --scheduled {action.service}") for line in lines)


def _changed_lines(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in _HEADS]


def needs_restart(desired: Desired, observed: Observed) -> bool:
    """Return whether a new generation changes anything that a running service would have to be restarted for."""
    return "restart" in changes_of(desired, observed).values()


def needs_replacing(desired: Desired, observed: Observed) -> bool:
    """Return whether a new generation changes files that are replaced in a running container."""
    changes = changes_of(desired, observed)
    return any(path.startswith("config/") and change != "restart" for path, change in changes.items())


def changes_of(desired: Desired, observed: Observed) -> dict[str, live.OnChange]:
    """Return what each changed file of a new generation asks of a running service."""
    before = observed.target.files if observed.target else {}
    after = {file.path: file for file in desired.files}
    changed = [path for path in changed_files(desired, before) if path != "bundle.toml"]
    return {path: live.change_of(path, after, desired.live) for path in changed}


def fingerprint(desired: Desired) -> str:
    """Return what stands for everything that a manifest asks for: the same again would end the same way."""
    found = hashlib.sha256(desired.digest.encode())
    for file in desired.files:
        if file.path == "bundle.toml":
            # Who the process runs as may not be known yet.
            found.update(desired_meta(file.data, (*_OF_THE_RUN, b"user = ")))
        elif file.path.startswith(("config/", "secrets/")):
            found.update(f"{file.path}\0{file.mode}\0".encode() + file.data)
    return found.hexdigest()
