"""`appbox doctor`: looks, judges, says, and with --fix mends after asking and looks again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Final

from appbox import demands, owner, sources
from appbox.addresses import Attachment, Network, network_of
from appbox.constraints import is_constraint
from appbox.doctor import findings, mending, probing, report, wants
from appbox.doctor.findings import Refusal
from appbox.doctor.probing import Question
from appbox.doctor.values import At, Finding, Step
from appbox.doctor.wants import Wants, registry_of
from appbox.errors import AppboxError, HostLacks, UsageError
from appbox.host import abilities, borrow, gather, ordinary, subids
from appbox.locked import Borrowed
from appbox.manifest import Manifest
from appbox.oci.reference import RegistryImage
from appbox.owner import Owner
from appbox.session import MYSELF, Options
from appbox.sources import Loaded
from appbox.store import addresses as stored
from appbox.store import state
from appbox.store.root import Root

_ATTEMPTS: Final = 4
_PAUSE: Final = 0.5
"""Seconds more before each further look."""
Ask = Callable[[str], bool]
_SUBNET: Final = IPv4Network("10.89.0.0/24")
"""Of a network that nobody has declared: which one it will be says nothing about the host."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for: manifests, a user, registries by name; whether to mend, and who is asked."""

    files: tuple[str, ...] = ()
    user: str = ""
    registries: tuple[str, ...] = ()
    fix: bool = False
    ask: Ask | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A manifest with what its demands depend on (`locked.Asking`)."""

    manifest: Manifest
    attachment: Attachment | None
    borrowed: Borrowed


@dataclass(slots=True)
class _Mended:
    """What --fix has done: the steps that were carried out, the findings that they were for, and what failed."""

    done: dict[Step, str] = field(default_factory=dict)
    findings: set[tuple[str, str]] = field(default_factory=set)
    failed: list[AppboxError] = field(default_factory=list)


def examine(options: Options, wish: Wish) -> int:
    """Print what the host lacks; return the exit code: 8 when something needed is missing, 1 when a fix failed."""
    who = _who(options, wish)
    if wish.fix and os.geteuid() != 0:
        name = f" --user {wish.user or os.geteuid()}"
        raise HostLacks("only root mends a host", where="--fix", hint=f"sudo appbox doctor --fix{name}")
    loaded = sources.load(wish.files, os.uname().nodename) if wish.files else []
    asked = [(one.document, one.manifest) for one in loaded]
    scope = wants.of(asked, user=who is not None) if wish.files else Wants(who is not None)
    environ = dict(os.environ) if isinstance(who, int) and who == os.geteuid() else None
    question = Question(who, options.init, environ, _images(loaded, wish, root=who is None))
    found = _look(question, scope, loaded)
    mended = _mend(options, wish, found) if wish.fix else _Mended()
    if mended.done:
        found = _look_again(question, scope, loaded, mended)
    _say(options, found, mended, _named(who))
    if any(one.bad for one in found):
        return HostLacks.exit_code
    return AppboxError.exit_code if mended.failed else 0


def _who(options: Options, wish: Wish) -> str | int | None:
    """Return whose possibilities are looked at: an ordinary user's by name or number; None for root's."""
    if options.root != "/":
        raise UsageError("the doctor looks at the running host", where="--root", hint="leave --root out")
    own = os.geteuid()
    if not wish.user or (wish.user == MYSELF and own):
        return own or None
    if wish.user == MYSELF:
        raise UsageError("root is no ordinary user", where="--user", hint="name one: --user NAME")
    who: str | int = int(wish.user) if wish.user.isascii() and wish.user.isdigit() else wish.user
    found = subids.user(who)
    if found.uid == 0:
        raise UsageError("root is no ordinary user", where="--user", hint="leave it out to look at root's services")
    if own not in (0, found.uid):
        raise UsageError("only root looks at another user's", where="--user", hint=f"sudo appbox doctor --user {who}")
    return found.uid if own == found.uid else who


def _named(who: str | int | None) -> str:
    return "" if who is None else str(who)


def _images(loaded: Sequence[Loaded], wish: Wish, *, root: bool) -> dict[str, list[tuple[RegistryImage, str]]]:
    """Return which images are asked for at which registry: those of manifests, else those that are installed."""
    pairs = [(one.manifest.image, _tag(one.manifest.version)) for one in loaded]
    if not wish.files and root:
        pairs = list(_installed())
    pairs += [(f"{name.rstrip('/')}/appbox/doctor", "latest") for name in wish.registries]
    found: dict[str, list[tuple[RegistryImage, str]]] = {}
    for text, tag in pairs:
        if (image := registry_of(text)) is not None and (image, tag) not in found.setdefault(image.registry, []):
            found[image.registry].append((image, tag))
        elif image is None and text.endswith("/appbox/doctor"):
            raise UsageError("is no name of a registry", where=f"--registry {text.partition('/')[0]}")
    return found


def _tag(version: str) -> str:
    return "latest" if is_constraint(version) else version


def _installed() -> Iterator[tuple[str, str]]:
    """Yield the images of installed services, as their manifests name them."""
    with Root() as root:
        for name in state.names(root):
            installed = state.load(root, name)
            manifest = installed.meta.get("manifest", {}) if installed else {}
            image = manifest.get("image", "") if isinstance(manifest, dict) else ""
            if installed and isinstance(image, str) and image:
                yield image, _tag(installed.version)


def _look(question: Question, scope: Wants, loaded: Sequence[Loaded]) -> tuple[Finding, ...]:
    seen = probing.look(question, scope)
    return findings.judge(seen, scope, _refusals(question, loaded) if loaded else ())


def _refusals(question: Question, loaded: Sequence[Loaded]) -> tuple[Refusal, ...]:
    """Return why a plan would be refused; nothing for a user for whom none can be made, which the findings say."""
    try:
        if question.who is not None:
            owner.use(_owner(question.who, question.environ))
        return tuple(_refused(question, loaded))
    except HostLacks:
        return ()
    finally:
        owner.use(None)


def _owner(who: str | int, environ: Mapping[str, str] | None) -> Owner:
    """Return for whom a plan would work; HostLacks when something would have to be made for that user first."""
    user, own = subids.user(who), environ or {}
    place = own.get("XDG_RUNTIME_DIR") or f"/run/user/{user.uid}"
    if fault := ordinary.runtime_fault(place, user.uid):
        raise HostLacks(fault, where=place)
    return replace(ordinary.find(own, user.uid), by_root=environ is None)


def _look_again(question: Question, scope: Wants, loaded: Sequence[Loaded], mended: _Mended) -> tuple[Finding, ...]:
    """Look again, until what was mended is well: what init systems are told to start takes a moment."""
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE)
        found = _look(question, scope, loaded)
        if not any(one.state != "ok" and (one.subject, one.what) in mended.findings for one in found):
            break
    return found


def _refused(question: Question, loaded: Sequence[Loaded]) -> Iterator[Refusal]:
    """Yield why a plan of the manifests would be refused on this host."""
    with Root() as root:
        facts = gather.gather(root, question.init)
        able = abilities.gather([one.manifest for one in loaded])
        facts = replace(facts, abilities=able)
        declared = stored.declared(root)
        for one in loaded:
            name = network_of(one.manifest.network.mode)
            network = declared.get(name, Network(name, _SUBNET)) if name else None
            asked = _Asked(
                one.manifest,
                Attachment(network, network.subnet[2]) if network else None,
                borrow.look_up(root, one.manifest, facts.platform.architecture),
            )
            for lack in demands.missing(asked, facts):
                problem = one.document.problem(lack.key, lack.message, lack.hint)
                yield Refusal(At(problem.file, problem.line, problem.key), lack.message, lack.hint)


def _mend(options: Options, wish: Wish, found: Sequence[Finding]) -> _Mended:
    """Carry out the remedies of what is needed and of what is weak, each after its steps were shown."""
    mended = _Mended()
    out = sys.stderr if options.json else sys.stdout
    for one in found:
        steps = [step for step in one.remedy.steps if step not in mended.done]
        if not one.mendable or not steps:
            continue
        out.write(f"{one.subject}: {one.what}\n" + "".join(f"  → {step.shown}\n" for step in steps))
        out.flush()
        if wish.ask is not None and not wish.ask("Do this?"):
            continue
        for step in steps:
            try:
                mending.carry_out(step)
            except (AppboxError, OSError) as error:
                fault = error if isinstance(error, AppboxError) else AppboxError(error.strerror or "", where=step.shown)
                mended.failed.append(fault)
                sys.stderr.write(f"appbox: {fault}\n")
                break
            mended.done[step] = one.subject
        else:
            mended.findings.add((one.subject, one.what))
    return mended


def _say(options: Options, found: Sequence[Finding], mended: _Mended, user: str) -> None:
    fixed = [{"subject": subject, "command": step.shown} for step, subject in mended.done.items()]
    text = report.text(found, verbosity=options.verbosity)
    if mended.done and options.verbosity >= 0:
        text = f"\nafter that:\n{text}"
    if options.verbosity >= 0:
        text += report.summary(found, fixed=bool(mended.done or mended.failed))
    options.result(report.data(found, user=user, fixed=fixed), text)
