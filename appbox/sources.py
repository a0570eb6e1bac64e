"""Manifests and the files that they name, read from disk. Bounded, regular files only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appbox import manifest as manifests
from appbox.configuration import SIZE_LIMIT, ConfigSource
from appbox.document import Document
from appbox.errors import AppboxError, ManifestError, Problem, UsageError
from appbox.manifest import Manifest
from appbox.oci import public_key
from appbox.oci.public_key import BadKeyError, PublicKey
from appbox.store import files


@dataclass(frozen=True, slots=True)
class Loaded:
    """A parsed manifest, the path it came from and its configuration files by their path in the container.

    `keys` are those that `policy.signed_by` names.
    """

    document: Document
    manifest: Manifest
    configs: Mapping[str, ConfigSource]
    keys: tuple[PublicKey, ...] = ()

    @property
    def folder(self) -> str:
        """The directory that relative paths of the manifest start at."""
        return os.path.dirname(os.path.abspath(self.document.file))


def find(arguments: Iterable[str]) -> list[str]:
    """Return the manifests that the arguments name: files, and every `*.toml` of a directory, sorted, each once."""
    found: dict[str, str] = {}
    for argument in arguments:
        for file in _of_directory(argument) if os.path.isdir(argument) else [argument]:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _of_directory(folder: str) -> list[str]:
    names = sorted(n for n in os.listdir(folder) if n.endswith(".toml") and not n.startswith("."))
    inside = [os.path.join(folder, name) for name in names if os.path.isfile(os.path.join(folder, name))]
    if not inside:
        raise UsageError("there is no manifest in the directory", where=folder, hint="manifests end in .toml")
    return inside


def load(arguments: Iterable[str]) -> list[Loaded]:
    """Return every manifest that the arguments name, sorted by service; all problems are reported at once.

    Raises ManifestError, also for a service that two manifests describe, and AppboxError for an unreadable file.
    """
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for file in find(arguments):
        try:
            loaded.append(_load(file))
        except ManifestError as error:
            problems += error.problems
    problems += _twice(loaded)
    if problems:
        raise ManifestError(problems)
    return sorted(loaded, key=lambda one: one.manifest.name)


def _twice(loaded: list[Loaded]) -> list[Problem]:
    first: dict[str, str] = {}
    problems = []
    for one in loaded:
        other = first.setdefault(one.manifest.name, one.document.file)
        if other != one.document.file:
            problems.append(one.document.problem(("name",), f"{other} describes {one.manifest.name} too"))
    return problems


def _load(file: str) -> Loaded:
    data = _read(file, 4 * manifests.SIZE_LIMIT, file)  # a little too much is refused with its own words
    manifest = manifests.parse_bytes(data, file=file)
    document = Document(file, data.decode("utf-8-sig"))
    problems = [*_overlays(file)]
    configs: dict[str, ConfigSource] = {}
    for path in manifest.config:
        try:
            configs[path] = _config(document, manifest, path)
        except ManifestError as error:
            problems += error.problems
    keys: list[PublicKey] = []
    for index, name in enumerate(manifest.policy.signed_by):
        try:
            keys.append(_key(document, name))
        except BadKeyError as error:
            problems.append(document.problem(("policy", "signed_by", index), f"{name} {error.message}", error.hint))
    if problems:
        raise ManifestError(problems)
    return Loaded(document, manifest, configs, tuple(keys))


def _key(document: Document, name: str) -> PublicKey:
    try:
        data = _read(os.path.join(os.path.dirname(document.file), name), public_key.SIZE_LIMIT, "")
    except AppboxError as error:
        why = f" ({error.why})" if error.why else ""
        raise BadKeyError(f"{error.what}{why}", "name the file of a public key, relative to the manifest") from error
    return public_key.parse(data, name)


def _config(document: Document, manifest: Manifest, path: str) -> ConfigSource:
    config = manifest.config[path]
    name = config.file or config.template
    if name is None:
        return ConfigSource((config.text or "").encode(), False, "", document, ("config", path, "text"))
    key = ("config", path, "file" if config.file else "template")
    origin = os.path.join(os.path.dirname(document.file), name)
    try:
        return ConfigSource(_read(origin, SIZE_LIMIT, name), config.file is None, origin, document, key)
    except AppboxError as error:
        raise ManifestError([document.problem(key, str(error))]) from error


def _overlays(file: str) -> list[Problem]:
    """Refuse what would silently be left out: overlays for hosts are not read yet."""
    folder = os.path.join(os.path.dirname(file), "hosts")
    if os.path.isdir(folder) and any(name.endswith(".toml") for name in os.listdir(folder)):
        return [Problem(folder, 0, "", "not supported yet: host overlays (hosts/<hostname>.toml)")]
    return []


def _read(path: str, limit: int, name: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise AppboxError("cannot be read", where=name, why=error.strerror or str(error)) from error
    return files.read_descriptor(fd, limit, where=name)
