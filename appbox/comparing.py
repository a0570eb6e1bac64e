"""What changed between two images that an operator must know before upgrading. Values in, values out.

Times are left aside: a rebuild gives every file a new one.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeVar

from appbox.errors import sentence
from appbox.oci import file_capabilities, users
from appbox.oci.image_config import ImageConfig, healthcheck
from appbox.oci.listing import Listed
from appbox.oci.model import Image
from appbox.oci.tar import Kind
from appbox.oci.xattrs import CAPABILITY
from appbox.sizes import megabytes

PASSWD: Final = "/etc/passwd"  # noqa: S105
GROUP: Final = "/etc/group"

_LONGEST: Final = 200
"""Characters of a value that a person is shown; JSON has them all."""
_PRIVILEGES: Final = ("setuid", "setgid", "capabilities", "world-writable", "device")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: the image, what is in it by path, and its passwd and group files."""

    image: Image
    entries: Mapping[str, Listed]
    passwd: bytes | None = None
    group: bytes | None = None


class Change(NamedTuple):
    """One thing that is not the same; None where it is not there at all. `name` says which one of its kind."""

    kind: str
    name: str
    was: Any
    now: Any


Status = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`settings` are of the configuration, `people` accounts and groups, `privileges` of files, `files` all paths.

    `sizes` are in bytes: each before and after; `layers` counts: before, after, and those that both have.
    """

    before: Image
    after: Image
    settings: tuple[Change, ...] = ()
    people: tuple[Change, ...] = ()
    privileges: tuple[Change, ...] = ()
    files: Mapping[Status, tuple[str, ...]] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    layers: tuple[int, int, int] = (0, 0, 0)
    download: int = 0

    @property
    def same(self) -> bool:
        """Tell whether nothing changed."""
        return not (self.settings or self.people or self.privileges or any(self.files.values()))


def compare(before: Side, after: Side) -> Comparison:
    """Return what changed; everything is sorted."""
    shared = {layer.digest for layer in before.image.manifest.layers}
    new = [layer for layer in after.image.manifest.layers if layer.digest not in shared]
    numbers = len(before.image.manifest.layers), len(after.image.manifest.layers)
    return Comparison(
        before.image,
        after.image,
        settings=tuple(_settings(before.image, after.image)),
        people=tuple(_people(before, after)),
        privileges=tuple(_privileges(before.entries, after.entries)),
        files=_files(before.entries, after.entries),
        sizes={
            "compressed": (_compressed(before.image), _compressed(after.image)),
            "unpacked": (_unpacked(before.entries), _unpacked(after.entries)),
        },
        layers=(*numbers, numbers[1] - len(new)),
        download=sum({layer.digest: layer.size for layer in new}.values()),
    )


# What the images want


def _settings(before: Image, after: Image) -> Iterator[Change]:
    a, b = before.config, after.config
    if before.config.platform != after.config.platform:
        yield Change("platform", "", str(a.platform), str(b.platform))
    for kind in ("user", "entrypoint", "cmd", "working_dir", "stop_signal"):
        was, now = _plain(getattr(a, kind)), _plain(getattr(b, kind))
        if was != now:
            yield Change(kind.replace("working_dir", "workdir"), "", was, now)
    yield from _changes("env", _environment(a), _environment(b))
    yield from _changes("volume", dict.fromkeys(a.volumes, True), dict.fromkeys(b.volumes, True))
    yield from _changes("port", dict.fromkeys(a.exposed_ports, True), dict.fromkeys(b.exposed_ports, True))
    yield from _changes("label", a.labels, b.labels)
    checks = healthcheck(before.config_bytes), healthcheck(after.config_bytes)
    if checks[0] != checks[1]:
        yield Change("healthcheck", "", *checks)


def _plain(value: str | tuple[str, ...]) -> str | list[str]:
    return value if isinstance(value, str) else list(value)


def _environment(config: ImageConfig) -> dict[str, str]:
    return {name: value for name, _, value in (one.partition("=") for one in config.env)}


def _changes(kind: str, before: Mapping[str, T], after: Mapping[str, T]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was != now:
            yield Change(kind, name, was, now)


# Who is in them


def _people(before: Side, after: Side) -> Iterator[Change]:
    def named(side: Side) -> dict[str, str]:
        return {name: f"{uid}:{gid}" for name, (uid, gid) in users.accounts(side.passwd).items()}

    yield from _changes("account", named(before), named(after))
    yield from _changes("group", users.groups(before.group), users.groups(after.group))


# What is in them


def _privileges(before: Mapping[str, Listed], after: Mapping[str, Listed]) -> Iterator[Change]:
    a, b = _by_privilege(before), _by_privilege(after)
    for kind in _PRIVILEGES:
        yield from _changes(kind, a.get(kind, {}), b.get(kind, {}))


def _by_privilege(entries: Mapping[str, Listed]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for path, entry in entries.items():
        for kind, what in _privilege(entry):
            found.setdefault(kind, {})[path] = what
    return found


def _privilege(entry: Listed) -> Iterator[tuple[str, str]]:
    """Yield what a thing lets others do that an ordinary one would not."""
    owned = f"{entry.mode:04o}, {entry.uid}:{entry.gid}"
    if entry.kind is Kind.FILE:
        if entry.mode & stat.S_ISUID:
            yield "setuid", owned
        if entry.mode & stat.S_ISGID and entry.mode & stat.S_IXGRP:
            yield "setgid", owned
        for name, value in entry.xattrs:
            if name == CAPABILITY:
                yield "capabilities", file_capabilities.words(value)
    elif entry.kind is Kind.CHAR or entry.kind is Kind.BLOCK:
        yield "device", f"{entry.kind.value} {entry.device[0]}:{entry.device[1]}, {owned}"
    # In a directory with the sticky bit, such as /tmp, nobody can touch what is another's.
    harmless = entry.kind is Kind.SYMLINK or (entry.kind is Kind.DIRECTORY and entry.mode & stat.S_ISVTX)
    if entry.mode & stat.S_IWOTH and not harmless:
        yield "world-writable", owned


def _files(before: Mapping[str, Listed], after: Mapping[str, Listed]) -> dict[Status, tuple[str, ...]]:
    return {
        "added": tuple(path for path in after if path not in before),
        "removed": tuple(path for path in before if path not in after),
        "changed": tuple(path for path in after if path in before and _told(before[path]) != _told(after[path])),
    }


def _told(entry: Listed) -> Listed:
    """Return what is compared: which of a file's names came first in the archive is nothing that anybody sees."""
    return entry._replace(linked=False)


def _compressed(image: Image) -> int:
    return sum(layer.size for layer in image.manifest.layers)


def _unpacked(entries: Mapping[str, Listed]) -> int:
    """Return the bytes of all files; further names of a file that has several count nothing."""
    return sum(entry.size for entry in entries.values() if not entry.linked)


# In words


def data(found: Comparison, *, paths: bool) -> dict[str, Any]:
    """Return the comparison as JSON data; all paths only with `paths`."""
    images = {
        key: {"reference": image.reference, "digest": str(image.digest), "created": image.config.created}
        for key, image in (("from", found.before), ("to", found.after))
    }
    return {
        **images,
        "same": found.same,
        "settings": [one._asdict() for one in found.settings],
        "people": [one._asdict() for one in found.people],
        "privileges": [one._asdict() for one in found.privileges],
        "files": {key: list(names) if paths else len(names) for key, names in found.files.items()},
        "sizes": {key: {"was": was, "now": now} for key, (was, now) in found.sizes.items()},
        "layers": dict(zip(("was", "now", "shared"), found.layers, strict=True)),
        "download": found.download,
    }


def text(found: Comparison, *, paths: bool) -> str:
    """Return the comparison as lines."""
    lines = [
        f"from: {found.before.reference} {found.before.digest}",
        f"to: {found.after.reference} {found.after.digest}",
    ]
    lines += [_line(one) for one in (*found.settings, *found.privileges, *found.people)]
    if found.same:
        one = found.before.digest == found.after.digest
        lines.append("the same image" if one else "no difference but in times")
    lines += [f"{key}: {path}" for key, names in found.files.items() for path in names if paths]
    lines.append(f"files: {', '.join(f'{len(names)} {key}' for key, names in found.files.items())}")
    lines += [f"{key} size: {megabytes(now)}, was {megabytes(was)}" for key, (was, now) in found.sizes.items()]
    was, now, shared = found.layers
    lines.append(f"layers: {now}, was {was}; {shared} shared, {megabytes(found.download)} to download")
    return "".join(f"{sentence(line)}\n" for line in lines)


def _line(change: Change) -> str:
    kind, name, was, now = change
    title = f"{kind} {name}" if name else kind
    if was is None or now is None:
        value = was if now is None else now
        return f"{'gone' if now is None else 'new'} {title}{'' if value is True else f': {_shown(value)}'}"
    return f"{title}: {_shown(now)}, was {_shown(was)}"


def _shown(value: object) -> str:
    if value in ("", [], {}):
        return "empty"
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
