"""What is asked about: a whole host, or only what certain manifests need of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from appbox import container
from appbox.addresses import by_pasta, network_of
from appbox.demands import CONTROLLERS
from appbox.doctor.values import NOTHING, At, Finding, Remedy, State
from appbox.document import Document
from appbox.errors import AppboxError
from appbox.manifest import Manifest
from appbox.oci.reference import RegistryImage, parse_image
from appbox.toml_source import Path

WHY: Final[Mapping[str, str]] = {
    "kernel": "every service: paths inside images are opened with openat2, whatever links an image has",
    "overlay": 'security.rootfs = "overlay" and "persistent": what a service writes is kept apart from its image',
    "seccomp": 'security.seccomp = "default": a service may make only harmless system calls',
    "user namespaces": 'security.userns = "auto": root in a service is not root on the host',
    "cgroups": "resources.memory, cpus, pids, io_weight…: limits hold, and a stop ends every process",
    "runtime": "every service: it starts the container",
    "first start": "every service: the whole chain from the runtime to the kernel",
    "store": "every service: images are unpacked there, and volumes without a source are there",
    "clock": "image, service.schedule, snapshots.schedule: certificates and timers go by it",
    "init": "service.enable, service.restart: it starts and watches services",
    "sub-ids": "process.user, volumes.*.owner and most images: users in a container need numbers on the host",
    "newuidmap": "process.user, volumes.*.owner and most images: it gives a user's namespace its sub-ids",
    "newgidmap": "process.user, volumes.*.owner and most images: it gives a user's namespace its sub-ids",
    "runtime directory": "every service of a user: locks, sockets and states of running containers are there",
    "linger": "service.enable: services of a user run without a login and come back after a reboot",
    "delegation": "resources.memory, cpus, pids, io_weight…: a user may limit only what his systemd was given",
    "home": "every service of a user: images, units and data are there",
    "user services": "service.enable: OpenRC itself starts services of users since 0.60",
    "cni": 'network.mode = "bridge"',
    "iptables": 'network.mode = "bridge"',
    "flock": 'network.mode = "bridge"',
    "pasta": 'network.mode = "pasta", and "bridge" of a user\'s service',
    "tun": 'network.mode = "pasta", and "bridge" of a user\'s service',
    "ports": "network.ports, and servers of a user's service that listen below that number",
    "age": "secrets.*.age",
    "cron": "service.schedule and snapshots.schedule under OpenRC",
    "reaper": "process.init",
    "git": "appbox sync",
    "buildah": "build.containerfile",
    "mmdebstrap": "build.packages",
    "registry": "image",
}
"""For which keys each subject matters, and why."""

_BASE: Final = frozenset({"kernel", "runtime", "store", "clock", "init", "first start"})
_BASE_OF_USERS: Final = frozenset({"home", "sub-ids", "newuidmap", "newgidmap", "runtime directory", "user namespaces"})
_USUAL: Final = frozenset({"overlay", "seccomp", "user namespaces", "linger"})
"""What manifests ask for that say nothing of it."""

_Asks = Callable[[Manifest], Path | None]


@dataclass(frozen=True, slots=True)
class Wants:
    """`user`: services of an ordinary user. `asked` maps subjects to the keys that need them; None: any manifest.

    `lowest_port` is the lowest port of the host that is published below 1024, 0 for none.
    """

    user: bool = False
    asked: Mapping[str, tuple[At, ...]] | None = None
    lowest_port: int = 0

    def covers(self, subject: str) -> bool:
        """Return whether a subject is asked about."""
        return self._base(subject) or self.asked is None or subject in self.asked

    def needs(self, subject: str) -> bool:
        """Return whether nothing that is asked about works without it."""
        return self._base(subject) or subject in (_USUAL if self.asked is None else self.asked)

    def keys(self, subject: str) -> tuple[At, ...]:
        """Return the keys of the given manifests that ask for a subject."""
        return () if self.asked is None else self.asked.get(subject, ())

    def _base(self, subject: str) -> bool:
        return subject in _BASE or (self.user and subject in _BASE_OF_USERS)

    def say(
        self,
        subject: str,
        state: State,
        what: str,
        remedy: Remedy = NOTHING,
        *,
        why: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> Finding:
        """Return the finding about a subject."""
        why = why or WHY[subject]
        return Finding(subject, state, what, why, self.needs(subject), remedy, self.keys(subject), data or {})


def of(manifests: Sequence[tuple[Document, Manifest]], *, user: bool) -> Wants:
    """Return what manifests need."""
    asked: dict[str, tuple[At, ...]] = {}
    for document, manifest in manifests:
        for subject, path in _subjects(manifest, user=user):
            problem = document.problem(path, "")
            asked[subject] = (*asked.get(subject, ()), At(problem.file, problem.line, problem.key))
    low = [port.host_port for _, manifest in manifests for port in manifest.network.ports if 0 < port.host_port < 1024]
    return Wants(user, asked, min(low, default=0))


def _subjects(manifest: Manifest, *, user: bool) -> Iterator[tuple[str, Path]]:
    """Yield the subjects that one manifest asks for, each with the key that does."""
    for subject, asks in _ASKED:
        if (path := asks(manifest)) is not None:
            yield subject, path
    for key in CONTROLLERS:
        if getattr(manifest.resources, key) is not None:
            yield "cgroups", ("resources", key)
            if user:
                yield "delegation", ("resources", key)
    if network_of(manifest.network.mode):
        for subject in ("cni", "flock") if user else ("cni", "iptables", "flock"):
            yield subject, ("network", "mode")
    if by_pasta(manifest.network.mode, user=user):
        yield "pasta", ("network", "mode")
        yield "tun", ("network", "mode")
    if user:
        for index, port in enumerate(manifest.network.ports):
            if 0 < port.host_port < 1024:
                yield "ports", ("network", "ports", index)


def _build(kind: str) -> _Asks:
    def asks(manifest: Manifest) -> Path | None:
        return ("build", kind) if manifest.build and getattr(manifest.build, kind) is not None else None

    return asks


def _registry(manifest: Manifest) -> Path | None:
    return ("image",) if registry_of(manifest.image) else None


def registry_of(image: str) -> RegistryImage | None:
    """Return the image of a registry that a text names; None for one that is in a layout or an archive."""
    try:
        found = parse_image(image) if image else None
    except AppboxError:
        return None
    return found if isinstance(found, RegistryImage) else None


def _age(manifest: Manifest) -> Path | None:
    return next((("secrets", name, "age") for name, one in manifest.secrets.items() if one.age is not None), None)


def _schedule(manifest: Manifest) -> Path | None:
    if manifest.service.schedule:
        return ("service", "schedule")
    return ("snapshots", "schedule") if manifest.snapshots.schedule else None


_ASKED: Final[tuple[tuple[str, _Asks], ...]] = (
    ("user namespaces", lambda one: ("security", "userns") if container.is_mapped(one) else None),
    ("overlay", lambda one: ("security", "rootfs") if one.security.rootfs != "read-only" else None),
    ("seccomp", lambda one: ("security", "seccomp") if one.security.seccomp == "default" else None),
    ("linger", lambda one: ("service", "enable") if one.service.enable else None),
    ("reaper", lambda one: ("process", "init") if one.process.init else None),
    ("age", _age),
    ("cron", _schedule),
    ("buildah", _build("containerfile")),
    ("mmdebstrap", _build("packages")),
    ("registry", _registry),
)
