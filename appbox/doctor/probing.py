"""Looks at a host as far as is asked: everything the doctor judges. What it tries leaves nothing behind."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from appbox.doctor import becoming, probe_first, probe_host, probe_registries, probe_user
from appbox.doctor.seen import Kernel, Login, Place, Seen, Tried
from appbox.doctor.wants import Wants
from appbox.host import borrow, cgroups, gather, os_release, secret_sources
from appbox.host.facts import InitKind
from appbox.oci.platform import Platform
from appbox.oci.reference import RegistryImage
from appbox.oci.runtimes import unsafe
from appbox.store import paths
from appbox.store.root import Root


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked at: `who` is an ordinary user by name or number, None for root's services.

    `environ` is the environment of the user, if that is who asks. `images` are those of registries, by the registry.
    """

    who: str | int | None = None
    init: str = "auto"
    environ: Mapping[str, str] | None = None
    images: Mapping[str, Sequence[tuple[RegistryImage, str]]] = field(default_factory=dict)


def look(question: Question, wants: Wants) -> Seen:
    """Return what was seen. Raises UsageError for a user whom the host does not know."""
    with Root() as root:
        init = gather.detect_init(root) if question.init == "auto" else gather.known_init(question.init)
        login = probe_user.login(question.who, init, question.environ) if question.who is not None else None
        seen = _host(root, init, wants, login)
        path = probe_user.data_home(login, question.environ) if login is not None else paths.CONTAINERS
    runtime = next((one.path for one in seen.runtimes.values() if one.version and not unsafe(one.version)), "")

    def tried() -> dict[str, Any]:
        return _try(path, login, runtime)

    foreign = login is not None and os.geteuid() != login.uid
    found = becoming.as_user(login.uid, login.gid, tried) if login is not None and foreign else tried()
    kernel, place, first = _values(found)
    registries = probe_registries.ask(question.images) if question.images else ()
    return replace(seen, kernel=kernel, store=place, first=first, registries=registries, login=login)


def _host(root: Root, init: InitKind, wants: Wants, login: Login | None) -> Seen:
    """Return what is the same for everybody."""
    return Seen(
        distribution=os_release.read(root),
        init=init,
        root=os.geteuid() == 0,
        cgroups=cgroups.gather(),
        groups_mounted=probe_host.groups_mounted(),
        runtimes=probe_host.found_runtimes(),
        programs=probe_host.programs(),
        plugins=probe_host.plugins(),
        tun=probe_host.tun(),
        clock=probe_host.clock(),
        openrc=probe_host.openrc(root) if init == "openrc" else None,
        age_key=_age_key() if wants.keys("age") and login is None else "",
        no_lists=not glob.glob("/var/lib/apt/lists/*_Packages*"),
        cron=bool(gather.cron(root)),
        reaper=bool(borrow.find_reaper(root, Platform.host(os.uname().machine).architecture)),
    )


def _age_key() -> str:
    problem = secret_sources.look(paths.AGE_KEY)
    return f"{paths.AGE_KEY} {problem}" if problem else ""


def _try(path: str, login: Login | None, runtime: str) -> dict[str, Any]:
    """Return what only trying shows, as whoever this process is."""
    place = probe_host.store(path) if path else Place("")
    first = probe_first.start(runtime, place.existing, login) if runtime and path and not place.problem else None
    return {
        "kernel": asdict(probe_host.kernel()),
        "store": {**asdict(place), "options": sorted(place.options)},
        "first": asdict(first) if first is not None else None,
    }


def _values(found: Mapping[str, Any]) -> tuple[Kernel, Place, Tried | None]:
    """Return as values what `_try` says as data."""
    kernel, store, first = found["kernel"], found["store"], found["first"]
    nested = Tried(**kernel["nested"]) if kernel["nested"] else None
    return (
        Kernel(**{**kernel, "nested": nested}),
        Place(**{**store, "options": frozenset(store["options"])}),
        Tried(**first) if first else None,
    )
