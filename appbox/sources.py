"""Manifests and the files that they name, read from disk. Bounded, regular files only."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from appbox import config_directory, overlays, owner, pins
from appbox import manifest as manifests
from appbox.configuration import SIZE_LIMIT, ConfigSource
from appbox.document import Document, Overlay
from appbox.errors import AppboxError, ManifestError, Problem, UsageError
from appbox.fields import quoted
from appbox.lock_file import Entry, LockFile
from appbox.manifest import Manifest
from appbox.oci import public_key
from appbox.oci.public_key import BadKeyError, PublicKey
from appbox.store import files

AGE_HEADERS: Final = (b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----")
"""How a file begins that age has encrypted, as it is and as text (age-encryption.org/v1, "Format")."""

ENCRYPTED_LIMIT: Final = 2 << 20
"""Bytes of an encrypted secret: its text form is a third longer than the secret."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A parsed manifest, the path it came from and its configuration files by their path in the container.

    `keys` are those that `policy.signed_by` names; `encrypted` are the files of `secrets.*.age` by the secret's name.
    `pin` is what the lock says of its version, which is a tag then; `note` what somebody should know about the lock.
    With `strict` no registry may be asked what a tag means.
    """

    document: Document
    manifest: Manifest
    configs: Mapping[str, ConfigSource]
    keys: tuple[PublicKey, ...] = ()
    encrypted: Mapping[str, bytes] = field(default_factory=dict)
    pin: Entry | None = None
    note: str = ""
    strict: bool = False

    @property
    def digest(self) -> str | None:
        """The digest that the image must have: the manifest's, or else the lock's."""
        return self.manifest.digest or (self.pin.digest if self.pin else None)

    @property
    def folder(self) -> str:
        """The directory that relative paths of the manifest start at."""
        return os.path.dirname(os.path.abspath(self.document.file))


def find(arguments: Iterable[str], *, none: bool = False) -> list[str]:
    """Return the manifests that the arguments name: files, and every `*.toml` of a directory, sorted, each once.

    `none`: a directory may be without any.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        for file in _of_directory(argument, none=none) if _is_directory(argument) else [argument]:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError as error:  # said of what was named, before anything beside it is looked for
        raise _unreadable(path, error) from error
    except (OSError, ValueError):
        return False


def _of_directory(folder: str, *, none: bool = False) -> list[str]:
    names = sorted(n for n in os.listdir(folder) if n.endswith(".toml") and not n.startswith("."))
    inside = [os.path.join(folder, name) for name in names if os.path.isfile(os.path.join(folder, name))]
    if not inside and not none:
        raise UsageError("there is no manifest in the directory", where=folder, hint="manifests end in .toml")
    return inside


def load(arguments: Iterable[str], host: str = "", *, strict: bool = False, none: bool = False) -> list[Loaded]:
    """Return every manifest that the arguments name, sorted by service, as the overlay of `host` would have them.

    Each version is a tag then: what a constraint means is in the lock beside its manifest. With `strict` all that a
    registry would have to be asked for must be locked. `none`: a directory may be without any manifest.

    All problems are reported at once. Raises ManifestError, also for a service that two manifests describe and for an
    overlay of a service that there is not, and AppboxError for an unreadable file.
    """
    found = find(arguments, none=none)
    problems: list[Problem] = []
    chosen: dict[str, Overlay | None] = {}
    for folder in dict.fromkeys(os.path.dirname(file) for file in found):
        try:
            chosen[folder] = _overlay(folder, host) if host else None
        except ManifestError as error:
            problems += error.problems
    loaded, more = _load_all(found, chosen)
    problems += more
    if problems:
        raise ManifestError(problems)
    return _pinned(loaded, strict=strict)


def _pinned(loaded: Sequence[Loaded], *, strict: bool) -> list[Loaded]:
    """Return manifests with what the locks beside them say; ManifestError with what they lack."""
    locks: dict[str, LockFile] = {}
    found: list[Loaded] = []
    problems: list[Problem] = []
    for one in loaded:
        lock = locks.get(one.folder) or locks.setdefault(one.folder, read_lock(one))
        try:
            pinned = pins.pin(one.manifest, one.document, lock, strict=strict)
        except ManifestError as error:
            problems += error.problems
            continue
        found.append(replace(one, manifest=pinned.manifest, pin=pinned.entry, note=pinned.note, strict=strict))
    if problems:
        raise ManifestError(problems)
    return found


def read_lock(loaded: Loaded) -> LockFile:
    """Return the lock beside a manifest, an empty one when there is none; raises as `pins.read` does."""
    return pins.read(loaded.folder, os.path.dirname(loaded.document.file))


def holds_all_of(loaded: Sequence[Loaded]) -> bool:
    """Return whether manifests of one directory are all that it has."""
    folder = loaded[0].folder
    here = {os.path.realpath(one.document.file) for one in loaded}
    return all(os.path.realpath(file) in here for file in _of_directory(folder))


def load_for_all_hosts(arguments: Iterable[str]) -> list[tuple[str, Loaded]]:
    """Return every manifest as it is and once more for each host with an overlay: pairs of host ("" for none) and it.

    Versions are as they are written: no lock is read. Raises as `load`, with the problems of every host.
    """
    found = find(arguments)
    plain, problems = _load_all(found, {})
    pairs = [("", one) for one in plain]
    for folder in dict.fromkeys(os.path.dirname(file) for file in found):
        inside = [file for file in found if os.path.dirname(file) == folder]
        for file in _overlay_files(folder):
            try:
                overlay = _read_overlay(folder, file)
            except ManifestError as error:
                problems += error.problems
                continue
            # What is wrong without the overlay has been said.
            sound = [one for one in inside if any(one == p.document.file for p in plain)]
            merged, more = _load_all(sound, {folder: overlay})
            problems += more
            pairs += [(overlays.host_of(file), one) for one in merged]
    if problems:
        raise ManifestError(list(dict.fromkeys(problems)))
    return pairs


def _load_all(found: Sequence[str], chosen: Mapping[str, Overlay | None]) -> tuple[list[Loaded], list[Problem]]:
    """Return the sound manifests among files, sorted by service, and the problems of all of them."""
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for file in found:
        try:
            loaded.append(_load(file, chosen.get(os.path.dirname(file))))
        except ManifestError as error:
            problems += error.problems
    problems += _twice(loaded)
    return sorted(loaded, key=lambda one: one.manifest.name), problems


def _overlay_files(folder: str) -> list[str]:
    """Return the overlays beside manifests, sorted."""
    try:
        names = os.listdir(os.path.join(folder, overlays.FOLDER))
    except (FileNotFoundError, NotADirectoryError):
        return []
    wanted = sorted(name for name in names if name.endswith(".toml") and not name.startswith("."))
    return [os.path.join(folder, overlays.FOLDER, name) for name in wanted]


def _overlay(folder: str, host: str) -> Overlay | None:
    """Return the overlay of a host: that of its whole name, or of the name's first part."""
    files_ = _overlay_files(folder)
    for name in dict.fromkeys((host, host.partition(".")[0])):
        fitting = [file for file in files_ if overlays.matches(file, name)]
        if len(fitting) > 1:
            message = f"is for the same host as {fitting[0]}"
            raise ManifestError([Problem(fitting[1], 0, "", message, "keep one of them")])
        if fitting:
            return _read_overlay(folder, fitting[0])
    return None


def _read_overlay(folder: str, file: str) -> Overlay:
    data = _read(file, 4 * manifests.SIZE_LIMIT, file)
    overlay = overlays.parse(manifests.decode(data, file=file), file=file)
    if wanted := overlays.services(overlay):
        known = set(_names(folder))
        document = Document(file, overlay.text)
        hint = f"the manifests here describe {', '.join(sorted(known))}" if known else ""
        strangers = [
            (("services", name), "no manifest here describes it", hint) for name in wanted if name not in known
        ]
        if strangers:
            raise ManifestError(document.problems(strangers))
    return overlay


def _names(folder: str) -> Iterator[str]:
    """Yield the names of the services that the manifests of a directory describe, also of broken ones."""
    for file in _of_directory(folder or "."):
        try:
            text = manifests.decode(_read(file, 4 * manifests.SIZE_LIMIT, file), file=file)
            yield str(tomllib.loads(text).get("name", ""))
        except (AppboxError, ValueError, RecursionError):
            continue


def _twice(loaded: list[Loaded]) -> list[Problem]:
    first: dict[str, str] = {}
    problems = []
    for one in loaded:
        other = first.setdefault(one.manifest.name, one.document.file)
        if other != one.document.file:
            problems.append(one.document.problem(("name",), f"{other} describes {one.manifest.name} too"))
    return problems


def _load(file: str, overlay: Overlay | None = None) -> Loaded:
    data = _read(file, 4 * manifests.SIZE_LIMIT, file)  # a little too much is refused with its own words
    text = manifests.decode(data, file=file)
    # Without its overlay, too, a manifest is one: this also knows the name that the overlay has it by.
    manifest = manifests.parse(text, file=file)
    document = Document(file, text)
    if overlay is not None and overlays.concerns(overlay, manifest.name):
        document = Document(file, text, overlay, manifest.name)
        manifest = manifests.parse(text, file=file, overlay=overlay)
    problems: list[Problem] = []
    configs = _configs(document, manifest, problems)
    encrypted = _encrypted(document, manifest, problems)
    keys: list[PublicKey] = []
    for index, name in enumerate(manifest.policy.signed_by):
        try:
            keys.append(_key(document, name))
        except BadKeyError as error:
            problems.append(document.problem(("policy", "signed_by", index), f"{name} {error.message}", error.hint))
    if problems:
        raise ManifestError(problems)
    return Loaded(document, manifest, configs, tuple(keys), encrypted)


def _key(document: Document, name: str) -> PublicKey:
    try:
        data = _read(os.path.join(os.path.dirname(document.file), name), public_key.SIZE_LIMIT, "")
    except AppboxError as error:
        why = f" ({error.why})" if error.why else ""
        raise BadKeyError(f"{error.what}{why}", "name the file of a public key, relative to the manifest") from error
    return public_key.parse(data, name)


def _configs(document: Document, manifest: Manifest, problems: list[Problem]) -> dict[str, ConfigSource]:
    """Return the configuration files by their paths in the container; what is wrong with them joins `problems`."""
    found: dict[str, ConfigSource] = {}
    # A file of its own in a directory takes the place of the directory's.
    for path in sorted(manifest.config, key=lambda path: (manifest.config[path].directory is None, path)):
        try:
            found |= _config(document, manifest, path)
        except ManifestError as error:
            problems += error.problems
    for path in found:
        if inside := next((other for other in found if other.startswith(f"{path}/")), None):
            message = f"is a file at {quoted(path)}, and {quoted(inside)} needs a directory there"
            problems.append(document.problem(found[path].key, message, "rename one of them"))
    return found


def _config(document: Document, manifest: Manifest, path: str) -> dict[str, ConfigSource]:
    config = manifest.config[path]
    if config.text is not None:
        return {path: ConfigSource(config.text.encode(), False, "", document, ("config", path, "text"))}
    name = config.directory or config.file or config.template or ""
    kind = "directory" if config.directory else "file" if config.file else "template"
    key = ("config", path, kind)
    origin = os.path.join(os.path.dirname(document.file), name)
    try:
        if kind == "directory":
            return {
                f"{path}/{entry.path}": ConfigSource(
                    entry.data, False, os.path.join(origin, entry.path), document, key, entry.executable
                )
                for entry in config_directory.read(origin, name)
            }
        return {path: ConfigSource(_read(origin, SIZE_LIMIT, name), kind == "template", origin, document, key)}
    except AppboxError as error:
        raise ManifestError([document.problem(key, str(error))]) from error


def _encrypted(document: Document, manifest: Manifest, problems: list[Problem]) -> dict[str, bytes]:
    """Return the files of secrets that age encrypted; what is wrong with them joins `problems`."""
    found: dict[str, bytes] = {}
    for name, secret in manifest.secrets.items():
        if secret.age is None:
            continue
        key = ("secrets", name, "age")
        try:
            data = _read(os.path.join(os.path.dirname(document.file), secret.age), ENCRYPTED_LIMIT, secret.age)
        except AppboxError as error:
            problems.append(document.problem(key, str(error)))
            continue
        if data.startswith(AGE_HEADERS):
            found[name] = data
        else:
            # It might be the secret itself, which would then be copied to where it does not belong.
            hint = "encrypt it with age -r RECIPIENT"
            problems.append(document.problem(key, f"{secret.age}: is not encrypted with age", hint))
    return found


def _read(path: str, limit: int, name: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _unreadable(name, error) from error
    return files.read_descriptor(fd, limit, where=name)


def _unreadable(name: str, error: OSError) -> AppboxError:
    own = owner.current() if isinstance(error, PermissionError) else None
    hint = f"it is read as {own.name}: let this user read it" if own else ""
    return AppboxError("cannot be read", where=name, why=error.strerror or str(error), hint=hint)
