"""A service's manifest for another host: its text, the files that it names, and the overlay of this host in it.

What is wanted is what is installed. Where the manifest and its files still say that, they go along as they are, with
comments and templates; where they have changed since or are gone, what bundle.toml says is written as a manifest, with
the configuration files as they were rendered.
"""

from __future__ import annotations

import os
import posixpath
import re
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

import tomli_w

from appbox import configuration, overlays, sources, toml_source
from appbox import manifest as manifests
from appbox.constraints import is_constraint
from appbox.errors import AppboxError
from appbox.host.facts import Facts
from appbox.manifest import Manifest, as_table
from appbox.oci import public_key
from appbox.oci.reference import RegistryImage, parse_image
from appbox.sources import ENCRYPTED_LIMIT, Loaded
from appbox.store import files
from appbox.store.installed import Installed

IMAGES: Final = "images"
"""The layout beside an exported manifest whose image came from no registry."""
_RESERVED: Final = (overlays.FOLDER, IMAGES, "appbox.lock")
_IMAGE_LINE: Final = re.compile(r"""^(\s*image\s*=\s*)("[^"\\]*"|'[^']*')""")

Content = tuple[bytes, int]
"""What is in a file, and its permissions."""


@dataclass(frozen=True, slots=True)
class Portable:
    """A manifest that says on any host what the installed one said here; `files` by their paths relative to it.

    `image` is the name that the image has in it; `notes` say what of it is not as its author wrote it.
    """

    manifest: Manifest
    text: str
    image: str
    files: Mapping[str, Content]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Draft:
    """A manifest's data whose references to files are being replaced by portable ones."""

    name: str
    table: dict[str, Any]
    taken: Mapping[str, Content]
    files: dict[str, Content] = field(default_factory=dict)
    changed: bool = False

    def refer(self, holder: dict[str, Any] | list[Any], key: Any, content: Content) -> None:
        """Let the file that `holder[key]` names be at a portable path."""
        self.refer_all(holder, key, {"": content})

    def refer_all(self, holder: dict[str, Any] | list[Any], key: Any, contents: Mapping[str, Content]) -> None:
        """The same for a directory; `contents` by their paths in it, "" for what is a file itself."""
        wanted = str(holder[key]).rstrip("/").removeprefix("./")
        place = wanted if _is_plain(wanted) and self._free(wanted, contents) else self._other(wanted, contents)
        if place != holder[key]:
            holder[key], self.changed = place, True
        self.files |= {_joined(place, path): content for path, content in contents.items()}

    def _free(self, place: str, contents: Mapping[str, Content]) -> bool:
        known = {**self.taken, **self.files}
        found = ((_joined(place, path), content) for path, content in contents.items())
        return all(known.get(path, content) == content for path, content in found)

    def _other(self, wanted: str, contents: Mapping[str, Content]) -> str:
        leaf = re.sub(r"[^A-Za-z0-9._-]", "-", posixpath.basename(wanted)).lstrip(".") or "file"
        place, number = f"{self.name}.files/{leaf}", 2
        while not self._free(place, contents):
            place, number = f"{self.name}.files/{number}-{leaf}", number + 1
        return place


def of(installed: Installed, facts: Facts, taken: Mapping[str, Content]) -> Portable:
    """Return the manifest of an installed service; `taken` are the files of those beside which it will lie.

    Raises AppboxError when a file that cannot be told from what is installed is gone.
    """
    loaded, why = _source(installed, facts)
    before: Mapping[str, Any] = installed.meta["manifest"]
    notes = []
    draft = _Draft(installed.name, deepcopy(dict(before)), taken)
    if loaded is None:
        notes.append(f"its manifest is written as it was applied, and its templates as they were rendered: {why}")
        _configs_as_installed(draft, installed)
    else:
        if is_constraint(str(loaded.manifest.version)):
            draft.table["version"] = loaded.manifest.version
        if loaded.manifest.digest is None:
            draft.table.pop("digest", None)
        _configs_as_written(draft, loaded)
        if loaded.document.overlay is not None:
            notes.append(f"what {loaded.document.overlay.file} says of this host is part of its manifest now")
            draft.changed = True
    _others(draft, os.path.dirname(str(installed.meta.get("source", ""))), loaded)
    image = str(before["image"])
    if not isinstance(parse_image(image), RegistryImage):
        image = f"oci:{IMAGES}:{installed.directory}"
    draft.table["image"] = image
    text = None if loaded is None or draft.changed else _edited(loaded.document.text, image, draft.table)
    if text is None:
        comment = "as it was applied" if loaded is None else "with the paths of the files that came along"
        text = f"# Written by appbox export: the manifest of {installed.name} {comment}.\n{_dumped(draft.table)}"
    parsed = manifests.parse(text, file=f"{installed.name}.toml")
    return Portable(parsed, text, image, draft.files, tuple(notes))


def _dumped(table: Mapping[str, Any]) -> str:
    return tomli_w.dumps(table, multiline_strings=False)


def _table_of(loaded: Loaded) -> dict[str, Any]:
    """Return a manifest's data as bundle.toml has it."""
    return tomllib.loads(_dumped(as_table(loaded.manifest)))


def _source(installed: Installed, facts: Facts) -> tuple[Loaded | None, str]:
    """Return the manifest that a service was installed from, if it still says what is installed, and else why not."""
    file = str(installed.meta.get("source", ""))
    try:
        loaded = sources.load([file], facts.hostname)[0]
    except (AppboxError, OSError) as error:
        return None, f"{file} cannot be used ({getattr(error, 'what', '') or 'it has mistakes'})"
    if not _same(_table_of(loaded), installed.meta["manifest"]):
        return None, f"{file} has changed since"
    for path, config in loaded.configs.items():
        stored = installed.files.get(f"config{path}")
        try:
            rendered = configuration.render(config, loaded.manifest.vars, facts.for_templates())
        except AppboxError:
            rendered = None
        if stored is None or stored.data != rendered:
            return None, f"what it says of {path} has changed since"
    return loaded, ""


def _same(now: dict[str, Any], installed: Mapping[str, Any]) -> bool:
    """Return whether a manifest is the installed one; what a constraint stands for, a lock says."""
    looked_up = {"version", "digest"} if is_constraint(str(now.get("version", ""))) else set()
    pinned = {"digest"} if "digest" not in now else set()
    ignored = looked_up | pinned
    return {k: v for k, v in now.items() if k not in ignored} == {
        k: v for k, v in installed.items() if k not in ignored
    }


def _configs_as_written(draft: _Draft, loaded: Loaded) -> None:
    for path, table in draft.table.get("config", {}).items():
        kind = next((kind for kind in ("file", "template", "directory") if kind in table), "")
        if kind == "directory":
            inside = {p: c for p, c in loaded.configs.items() if c.table == path}
            contents = {p[len(path) + 1 :]: (c.data, 0o755 if c.executable else 0o644) for p, c in inside.items()}
            draft.refer_all(table, kind, contents)
        elif kind:
            draft.refer(table, kind, (loaded.configs[path].data, 0o644))


def _configs_as_installed(draft: _Draft, installed: Installed) -> None:
    configs = draft.table.get("config", {})
    rendered = {p.removeprefix("config"): f for p, f in installed.files.items() if p.startswith("config/")}
    for path, table in configs.items():
        if "directory" in table:
            inside = {p: f for p, f in rendered.items() if p.startswith(f"{path}/") and p not in configs}
            table["directory"] = f"{draft.name}.files/{posixpath.basename(path)}"
            draft.refer_all(
                table, "directory", {p[len(path) + 1 :]: _content(f.data, f.mode) for p, f in inside.items()}
            )
        elif "text" not in table:
            if path not in rendered:
                raise AppboxError("is not as it was applied", where=f"{installed.directory}/config{path}",
                                  hint=f"appbox apply repairs {installed.name}")  # fmt: skip
            table.pop("template", None)
            table["file"] = f"{draft.name}.files/{posixpath.basename(path)}"
            draft.refer(table, "file", _content(rendered[path].data, 0o644))


def _content(data: bytes, mode: int) -> Content:
    return data, 0o755 if mode & 0o111 else 0o644


def _others(draft: _Draft, folder: str, loaded: Loaded | None) -> None:
    """Take along public keys and what age encrypted."""
    keys = draft.table.get("policy", {}).get("signed_by", [])
    for index, name in enumerate(list(keys)):
        draft.refer(keys, index, (_read(folder, name, public_key.SIZE_LIMIT), 0o644))
    for name, secret in draft.table.get("secrets", {}).items():
        if "age" in secret:
            data = loaded.encrypted[name] if loaded else _read(folder, secret["age"], ENCRYPTED_LIMIT)
            draft.refer(secret, "age", (data, 0o600))


def _read(folder: str, name: str, limit: int) -> bytes:
    path = os.path.join(folder, name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        hint = "put it back where the manifest names it"
        raise AppboxError("cannot be read", where=path, why=error.strerror or str(error), hint=hint) from error
    return files.read_descriptor(fd, limit, where=path)


def _edited(text: str, image: str, table: Mapping[str, Any]) -> str | None:
    """Return a manifest's own text with that image; None when it cannot be written into it."""
    lines = text.splitlines(keepends=True)
    number = toml_source.line_of(toml_source.positions(text), ("image",))
    found = tomllib.loads(text)
    if found.get("image") != image:
        if not 0 < number <= len(lines) or not _IMAGE_LINE.match(lines[number - 1]):
            return None
        lines[number - 1] = _IMAGE_LINE.sub(lambda match: f'{match[1]}"{image}"', lines[number - 1])
    edited = "".join(lines)
    again = as_table(manifests.parse(edited, file=f"{table['name']}.toml"))
    return edited if _same(tomllib.loads(_dumped(again)), table) else None


def _is_plain(path: str) -> bool:
    """Return whether a path leads to a file below the manifest that is nothing else for appbox."""
    parts = path.split("/")
    if posixpath.normpath(path) != path or path.startswith(("/", ".")) or parts[0] in _RESERVED or ".." in parts:
        return False
    return "/" in path or not path.endswith(".toml")


def _joined(place: str, path: str) -> str:
    return f"{place}/{path}" if path else place
