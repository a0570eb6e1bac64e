"""`appbox lock`: asks registries what the versions of manifests mean, and writes it into the locks beside them.

What is locked and still answers its manifest stays as it is, to the letter, unless it is named to be updated. Nothing
is written before everything was found out. All hosts share one lock: where their overlays want other versions, it has
these, too.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from appbox import admission, constraints, lock_file, resolve, sources
from appbox.admission import Demands, Policies
from appbox.constraints import is_constraint
from appbox.errors import AppboxError, Missing, Unavailable, UsageError, printable
from appbox.lock_file import Entry, LockFile
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.held import Held
from appbox.oci.image_config import parse_config
from appbox.oci.model import Index, parse_document
from appbox.oci.platform import Platform
from appbox.oci.reference import OciLayout, RegistryImage, parse_image
from appbox.oci.settings import Settings
from appbox.oci.source import Document, Source
from appbox.session import Options, cache_path, wanted_platform
from appbox.signers import Companions
from appbox.sources import Loaded
from appbox.store import files
from appbox.store.lock import Holder, acquire
from appbox.tables import Policy
from appbox.tag_order import newest_last

_UNKNOWN: Final = Platform("unknown", "unknown")
"""What BuildKit calls the platform of attestations."""

_TEMPORARY: Final = f".{lock_file.NAME}{files.TEMPORARY}"


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one version: new, changed (another version), moved (another digest), kept or gone.

    `now` is the digest that the tag of a kept one has by now, if that is another one.
    """

    kind: Literal["new", "changed", "moved", "kept", "gone"]
    entry: Entry
    before: Entry | None = None
    now: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the change as JSON data."""
        before = {"before": self.before.as_dict()} if self.before and self.kind in {"changed", "moved"} else {}
        return {**self.entry.as_dict(), "change": self.kind, **before, **({"moved_to": self.now} if self.now else {})}

    def line(self) -> str:
        """Return the change in words, empty when there is nothing to say."""
        one, old = self.entry, self.before
        head = f"{one.name}: "
        if self.kind == "gone":
            return f"{head}{one.version} is taken out: no manifest here asks for it\n"
        if self.kind == "moved" and old:
            return f"{head}{one.tag}: {resolve.short(old.digest)} → {resolve.short(one.digest)}\n"
        if self.kind == "changed" and old:
            return f"{head}{old.tag} → {one.tag} ({resolve.short(one.digest)})\n"
        if self.kind == "new":
            wanted = f"{one.version} → " if one.version != one.tag else ""
            return f"{head}{wanted}{one.tag} ({resolve.short(one.digest)})\n"
        if self.now:
            # What is locked stays: whoever wants the new one says so, and reviews it.
            moved = f"{one.tag}: {resolve.short(one.digest)} → {resolve.short(self.now)} in the registry"
            return f"{head}{moved}; kept, appbox lock --update {one.name} takes it\n"
        if old and old.version != one.version:
            return f"{head}{one.version} → {one.tag}, as it is\n"
        return ""


@dataclass(slots=True)
class Registries:
    """What registries and layouts say, each thing asked once. `silent` maps registries to why they did not answer."""

    cache: Cache
    policies: Policies
    platform: Platform
    silent: dict[str, str] = field(default_factory=dict)
    _tags: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def judge(self, loaded: Loaded) -> Demands:
        """Return what policies demand of a manifest's image, after looking at its name; Refused for a forbidden one."""
        name = parse_image(loaded.manifest.image)
        return self.policies.demands(name, pinned=True, base_dir=loaded.folder, more=resolve.own_demands(loaded))

    def tags(self, loaded: Loaded) -> list[str]:
        """Return the versions that there are of a manifest's image; policies judge its name first."""
        self.judge(loaded)
        key = (loaded.folder, loaded.manifest.image)
        if key not in self._tags:
            with resolve.open_image(loaded, self.cache) as opened:
                self._tags[key] = opened.tags()
        return self._tags[key]

    def lock(self, loaded: Loaded) -> Entry:
        """Return what the version of a manifest means now. Raises Unavailable, or Refused by a policy."""
        manifest = loaded.manifest
        demands = self.judge(loaded)
        tag = self._choose(loaded)
        held = Held(self.cache)
        with resolve.open_image(loaded, held) as opened:
            top = opened.top(tag, Digest.parse(manifest.digest) if manifest.digest else None)
            platforms = _platforms(opened, top, held)
            image = opened.resolve(tag, top.digest, _suitable(self.platform, platforms))
            demands.verify(opened, image.reference, [top.digest, image.digest], self.cache)
        held.keep()
        listed = tuple(sorted(map(str, platforms or [image.config.platform])))
        return Entry(manifest.name, manifest.image, manifest.version, tag, str(top.digest), listed, _now())

    def _choose(self, loaded: Loaded) -> str:
        version = loaded.manifest.version
        if not is_constraint(version):
            return version
        tags = self.tags(loaded)
        if (found := constraints.parse(version).newest(tags)) is not None:
            return found
        versions = newest_last(tag for tag in tags if constraints.version(tag))
        there = ", ".join(reversed(versions[-10:])) or "no tag that is a version"
        problem = loaded.document.problem(("version",), "")
        raise Unavailable(
            f"{loaded.manifest.image} has no version {version}",
            where=f"{problem.file}:{problem.line}: {problem.key}",
            why=f"it has {there}{' and older ones' if len(versions) > 10 else ''}",
        )

    def now(self, loaded: Loaded, tag: str) -> str:
        """Return the digest that a tag has now; empty when that cannot be told without reading much.

        A registry that does not answer is noted in `silent` and not asked again.
        """
        name = parse_image(loaded.manifest.image)
        if isinstance(name, OciLayout):
            with suppress(Unavailable), resolve.open_image(loaded, Held(self.cache)) as opened:
                return str(opened.top(tag, None).digest)
        if not isinstance(name, RegistryImage) or name.registry in self.silent:
            return ""
        try:
            with resolve.open_image(loaded, self.cache, Settings(timing=resolve.HURRY)) as opened:
                found = resolve.means(opened, tag)
        except Missing:
            return ""
        except Unavailable as error:
            self.silent[name.registry] = error.why or error.what
            return ""
        except AppboxError:
            return ""  # whoever needs that registry will hear of it
        return str(found or "")

    def insist(self, loaded: Loaded) -> None:
        """Raise Unavailable when the registry of a manifest's image was found not to answer."""
        name = parse_image(loaded.manifest.image)
        if isinstance(name, RegistryImage) and (why := self.silent.get(name.registry)) is not None:
            raise Unavailable("did not answer", where=name.registry, why=why)


def _platforms(opened: Source, top: Document, cache: Cache) -> list[Platform]:
    """Return the platforms that an index lists, or the one that the configuration of a lone image names."""
    document = parse_document(top.data, top.media_type)
    if not isinstance(document, Index):
        config = document.config
        data = opened.small_blob(config) if isinstance(opened, Companions) else opened.entry(config)
        cache.put(config.digest, data)
        return [parse_config(data).platform]
    return list(dict.fromkeys(e.platform for e in document.manifests if e.platform and e.platform != _UNKNOWN))


def _suitable(host: Platform, platforms: Sequence[Platform]) -> Platform:
    """Return the platform by which an image is looked at: this host's if it can be, else the first that there is."""
    ranked = [one for one in platforms if host.rank(one) is not None]
    return host if ranked or not platforms else platforms[0]


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Locking:
    """What a run made of one lock: the one that was there, the one that is to be, and what became of each version."""

    folder: str
    before: LockFile
    after: LockFile
    changes: tuple[Change, ...]

    @property
    def changed(self) -> bool:
        """Whether the file has to be written."""
        return self.before.entries != self.after.entries


def lock(
    options: Options,
    arguments: Sequence[str],
    *,
    update: Sequence[str] = (),
    every: bool = False,
    wait: float | None = 0.0,
) -> None:
    """Bring the locks beside the manifests up to date and print what changed.

    Those named in `update` are looked up anew, with `every` all of them. Raises UsageError for a name that no manifest
    has, ManifestError, Unavailable, Refused, and Locked while another appbox writes the same lock; `wait` is as in
    `store.lock.exclusive`.
    """
    pairs = sources.load_for_all_hosts(arguments)
    _refuse_unknown(update, [one for _, one in pairs])
    registries = connect(options)
    folders = dict.fromkeys(one.folder for _, one in pairs)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_alone(folder, wait, options))
        done = [
            _folder([one for _, one in pairs if one.folder == folder], registries, None if every else set(update))
            for folder in folders
        ]
        for one in done:
            if one.changed:
                _write(one)
    _say(options, done, registries)


def connect(options: Options) -> Registries:
    """Return what asks registries for this host, under its policies."""
    with options.open_root(services=False) as root:
        return Registries(Cache(cache_path(root)), admission.load(root), wanted_platform(""))


def _refuse_unknown(names: Sequence[str], loaded: Sequence[Loaded]) -> None:
    known = sorted({one.manifest.name for one in loaded})
    for name in names:
        if name not in known:
            hint = f"the manifests describe {', '.join(known)}"
            raise UsageError("no manifest describes it", where=f"--update {name}", hint=hint)


def _folder(loaded: Sequence[Loaded], registries: Registries, update: set[str] | None) -> Locking:
    """Return the new lock of one directory; `update` are the services to look up anew, None for all."""
    before = sources.read_lock(loaded[0])
    asked: dict[tuple[str, str, str, str | None, Policy], Loaded] = {}
    for one in loaded:
        m = one.manifest
        if m.image:
            # A host whose overlay only has another policy must be allowed the same image.
            asked.setdefault((m.name, m.image, m.version, m.digest, m.policy), one)
    wanted = {key[:3] for key in asked}
    spare = replace(before, entries=tuple(entry for entry in before.entries if entry.key not in wanted))
    changes: dict[tuple[str, str, str], Change] = {}
    for one in asked.values():
        anew = update is None or one.manifest.name in update
        change = _change(one, before, spare, registries, anew=anew)
        changes.setdefault(change.entry.key, change)
    here, names = {change.entry.key for change in changes.values()}, {one.manifest.name for one in loaded}
    whole = sources.holds_all_of(loaded)
    left = [entry for entry in before.entries if entry.name not in names and not whole]
    gone = [
        Change("gone", entry)
        for entry in before.entries
        if entry not in left and entry.key not in here and entry not in [change.before for change in changes.values()]
    ]
    after = lock_file.lock_file(before.file, [*left, *(change.entry for change in changes.values())])
    everything = sorted([*changes.values(), *gone], key=lambda change: change.entry.key)
    return Locking(loaded[0].folder, before, after, tuple(everything))


def _change(loaded: Loaded, lock: LockFile, spare: LockFile, registries: Registries, *, anew: bool) -> Change:
    """Return what becomes of one version; `spare` has the entries that nobody asks for any more."""
    manifest = loaded.manifest
    old = lock.answer(manifest.name, manifest.image, manifest.version)
    if old and manifest.digest not in (None, old.digest):
        old, anew = None, True
    if old and not anew:
        registries.judge(loaded)
        now = registries.now(loaded, old.tag)
        entry = replace(old, image=manifest.image, version=manifest.version)
        return Change("kept", entry, old, now if now != old.digest else "")
    fresh = registries.lock(loaded)
    former = old or next(iter([e for e in lock.of(fresh.name) if e.key == fresh.key] or spare.of(fresh.name)), None)
    if former is None:
        return Change("new", fresh)
    if former.tag != fresh.tag or not former.answers(fresh.image, former.version):
        return Change("changed", fresh, former)
    if (former.digest, former.platforms) != (fresh.digest, fresh.platforms):
        return Change("moved", fresh, former)
    return Change("kept", replace(former, image=fresh.image, version=fresh.version, offline=False), former)


@contextmanager
def _alone(folder: str, wait: float | None, options: Options) -> Iterator[None]:
    """Let nobody else write the lock of a directory, and take away what one that was killed has left."""
    with files.directory(os.path.realpath(folder)) as fd:
        where = os.path.join(folder, lock_file.NAME)
        acquire(fd, wait, "another appbox is writing it", where, lambda who: _waiting(options, who))
        if files.exists(_TEMPORARY, fd):
            files.remove(_TEMPORARY, dir_fd=fd)
        yield


def _waiting(options: Options, holder: Holder) -> None:
    options.say(printable(f"waiting for {holder}\n"), stream=sys.stderr)


def _write(done: Locking) -> None:
    """Write a lock, atomically, with the mode and owner that it had."""
    try:
        with files.directory(os.path.realpath(done.folder)) as fd:
            mode, owner = _as_before(fd)
            files.replace(lock_file.NAME, done.after.text().encode(), mode=mode, dir_fd=fd, owner=owner)
    except OSError as error:
        raise AppboxError("cannot be written", where=done.after.file, why=error.strerror or str(error)) from error


def _as_before(fd: int) -> tuple[int, tuple[int, int]]:
    """Return the mode and the owner for a lock: those of the one that is there, as far as this user may give them."""
    uid, groups = os.geteuid(), {os.getegid(), *os.getgroups()}
    try:
        info = os.stat(lock_file.NAME, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        there = os.fstat(fd)
        return 0o644, (uid, there.st_gid if there.st_mode & stat.S_ISGID else os.getegid())
    gid = info.st_gid if uid == 0 or info.st_gid in groups else os.getegid()
    return stat.S_IMODE(info.st_mode) & 0o777, (info.st_uid if uid == 0 else uid, gid)


def _say(options: Options, done: Sequence[Locking], registries: Registries) -> None:
    say_silent(options, registries)
    lines = "".join(change.line() for one in done for change in one.changes)
    written = "".join(f"{one.after.file}: written\n" for one in done if one.changed)
    locks = [
        {"file": one.after.file, "changed": one.changed, "services": [change.as_dict() for change in one.changes]}
        for one in done
    ]
    silent = {"silent": registries.silent} if registries.silent else {}
    text = printable(lines + (written or "nothing to do\n"))
    options.result({"locks": locks, **silent}, "" if options.verbosity < 0 else text)


def say_silent(options: Options, registries: Registries) -> None:
    """Name the registries that did not answer."""
    for registry, why in registries.silent.items():
        options.say(printable(f"note: {registry} did not answer ({why}); what is locked stays\n"), stream=sys.stderr)
